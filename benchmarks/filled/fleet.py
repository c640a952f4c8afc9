"""The fleet that fills the database, and what its devices send in any minute.

Every device sends `ROWS_PER_MINUTE` rows a minute, evenly spread; the devices of a partition take
turns. So the offset of a device's k-th row is known without those before it, and any minute can be
drawn alone: the same size gives the same rows.

What happens now and then is counted from the end, so that a database ends in the same way at any
time of day.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.filled.tuning import Tuning
from flead.contracts.schema import Z_THRESHOLD, feature_schema
from flead.contracts.simulation import FEATURES
from flead.features.rows import Floats, Integers
from flead.fleet.devices import KINDS, device_names, draw_character
from flead.learning.cohorts import assign

ROWS_PER_MINUTE: Final = 13
"""31,000 rows a minute of 2,407 devices."""

PARTITIONS: Final = 4
MINUTE_MS: Final = 60_000
BLOCK_MINUTES: Final = 5
"""Minutes of the longer windows of the stream analysis."""

DAY_MINUTES: Final = 24 * 60
KEPT_UPDATES_MINUTES: Final = 7 * DAY_MINUTES
"""As long as the retention keeps them."""

SHARPNESS: Final = 2.2
"""How sure models are: logit of a row's probability, by its distance from the boundary."""

REJECTED: Final = ("stale_base", "norm", "implausible", "trial")
"""Why updates are rejected; the first ones by chance, the last for a device that tries something.
"""
BY_CHANCE: Final = len(REJECTED) - 1
REJECTED_SHARE: Final = 0.006
ODD_SHARE: Final = 0.03
"""Share of the devices that are like no other."""

_STATUS: Final = ("training", "converged", "drifting", "paused")
_PERIOD_MS: Final = MINUTE_MS / ROWS_PER_MINUTE


class Size(msgspec.Struct, frozen=True):
    """How much is filled in.

    The last `recent_minutes` are complete. Of the time before, one block of five minutes every
    `block_hours`, and the one in which the last minutes begin, has, of each device, its window of
    300 s, its anomalies, its first sample and, in the last week, its first update. Rounds, versions
    and readings of health are complete, and so are evaluations of the fleet; the newest
    `device_evaluations` have the devices' figures too, of the newest `device_versions`, and
    predictions. The daily analysis has the last `analysed_days` before today.

    Parameters
    ----------
    days
        Whole UTC days before today.
    now
        When it ends; the present by default.
    """

    devices: int = 60
    days: int = 2
    seed: int = 1
    recent_minutes: int = 30
    block_hours: int = 2
    device_evaluations: int = 3
    device_versions: int = 20
    analysed_days: int = 2
    now: datetime | None = None


SMALL: Final = Size()
FULL: Final = Size(devices=2_407, days=30, recent_minutes=15, block_hours=12, analysed_days=30)
"""The fleet of the demonstration, after a month."""

LARGE: Final = Size(
    devices=240_700, days=30, recent_minutes=1, block_hours=360, device_evaluations=1,
    device_versions=2, analysed_days=1,
)  # fmt: skip
"""A hundred times as many devices."""


class Rows(NamedTuple):
    """The rows of a minute: arrays of shape (devices, `ROWS_PER_MINUTE`).

    `distance` is how far a row lies on the right side of the boundary of a model without skill.
    """

    offset: Integers
    time_ms: Integers
    label: Integers
    is_anomalous: np.ndarray
    distance: Floats


class Fleet:
    """Devices with their character, and the minutes that they have sent in.

    Attributes
    ----------
    minutes
        How many there are, from 0 o'clock of the first day on; a multiple of `BLOCK_MINUTES`.
    start_ms, end_ms
        Where they begin and end.
    talents
        How much better models do on devices than their skill: a few that stand for all.
    label_share
        Share of the rows that are labelled as anomalies.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        now = size.now or datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        start = midnight - timedelta(days=size.days)
        blocks = (now - start) // timedelta(minutes=BLOCK_MINUTES)
        self.minutes = blocks * BLOCK_MINUTES
        self.start_ms = round(start.timestamp() * 1000)
        self.end_ms = self.start_ms + self.minutes * MINUTE_MS
        self.schema = feature_schema(FEATURES)
        random = self._random(0)
        self.character = draw_character(size.devices, random)
        self.names = device_names(self.character.kind)
        number = np.arange(size.devices)
        self.partition = number % PARTITIONS
        self.rank = number // PARTITIONS
        self.of_partition = np.bincount(self.partition, minlength=PARTITIONS)
        self._phase = (self.rank + 0.5) / self.of_partition[self.partition]
        self.attacked_share = np.clip(random.lognormal(np.log(0.06), 0.8, size.devices), 0.0, 0.6)
        self._talent = random.normal(0.0, 0.2, size.devices)
        # Some devices are like no other: the fleet's model does badly on them.
        self._talent -= 1.2 * random.binomial(1, ODD_SHARE, size.devices)
        self.talents = np.quantile(self._talent, np.linspace(0.005, 0.995, 100))
        self.label_share = 0.7 * float(self.attacked_share.mean()) + 0.01
        self.tuning = Tuning(self.minutes, size.devices)
        self._cohorts: dict[int, Integers] = {}
        self.learning_rate = 0.05 * random.lognormal(0.0, 0.3, size.devices)
        self.status = np.array(_STATUS)[
            random.choice(len(_STATUS), size.devices, p=(0.35, 0.58, 0.06, 0.01))
        ].tolist()

    def __len__(self) -> int:
        return self.size.devices

    @property
    def recent(self) -> range:
        """The minutes of which everything is stored."""
        return range(self.minutes - min(self.size.recent_minutes, self.minutes), self.minutes)

    @property
    def blocks(self) -> list[int]:
        """First minutes of all blocks of which something is stored, oldest first."""
        recent = self.recent.start // BLOCK_MINUTES * BLOCK_MINUTES
        step = self.size.block_hours * 60
        return [
            *range(recent % step, recent, step),
            *range(recent, self.minutes, BLOCK_MINUTES),
        ]

    @property
    def update_minutes(self) -> list[int]:
        """Minutes of which the updates are stored, oldest first."""
        kept = self.minutes - KEPT_UPDATES_MINUTES
        return sorted({*(first for first in self.blocks if first >= kept), *self.recent})

    def at_ms(self, minute: int) -> int:
        """Return when a minute begins."""
        return self.start_ms + minute * MINUTE_MS

    def at(self, minute: int) -> datetime:
        """Return the same as a time."""
        return datetime.fromtimestamp(self.at_ms(minute) / 1_000, UTC)

    def minutes_left(self, minute: int) -> int:
        """Return how many minutes before the end a minute begins."""
        return self.minutes - minute

    def first_offsets(self, minute: int) -> dict[int, int]:
        """Return the offset of each partition at which a minute begins."""
        rows = (self.of_partition * ROWS_PER_MINUTE * minute).tolist()
        return dict(enumerate(rows))

    def update_offsets(self, minute: int) -> dict[int, int]:
        """Return, of the updates that devices send at the end of each minute, the first offsets."""
        return dict(enumerate((self.of_partition * minute).tolist()))

    def rows(self, minute: int) -> Rows:
        """Draw the rows of a minute."""
        random = self._random(1, self.minutes_left(minute))
        shape = (len(self), ROWS_PER_MINUTE)
        attacked = random.random(len(self)) < self.attacked_share
        label = random.random(shape) < np.where(attacked, 0.7, 0.01)[:, np.newaxis]
        # The z-score rule finds most attacks, and something else now and then.
        is_anomalous = random.random(shape) < np.where(label, 0.75, 0.004)
        number = minute * ROWS_PER_MINUTE + np.arange(ROWS_PER_MINUTE)
        offset = (
            number * self.of_partition[self.partition][:, np.newaxis] + self.rank[:, np.newaxis]
        )
        time_ms = self.start_ms + ((number + self._phase[:, np.newaxis]) * _PERIOD_MS).astype(
            np.int64
        )
        distance = random.standard_normal(shape)
        return Rows(offset, time_ms, label.astype(np.int64), is_anomalous, distance)

    def correctness(self, rows: Rows, skill: float) -> Floats:
        """Return how far a model of some skill is on the right side, above 0 where it is right."""
        return rows.distance + self._talent[:, np.newaxis] + skill

    def values(self, time_ms: Integers, devices: Integers, z_score: Floats) -> Floats:
        """Return readings, shape (rows, features), nan where a device lacks the feature.

        Parameters
        ----------
        z_score
            Of the readings, shape (rows, features).
        """
        character = self.character
        seconds = time_ms / 1000.0 - character.peak_seconds[devices]
        day = np.cos(2 * np.pi * seconds / 86_400.0)[:, np.newaxis]
        values = (
            character.level[devices]
            + character.swing[devices] * day
            + character.noise[devices] * z_score
        )
        return np.maximum(values, 0.0)

    def z_scores(self, minute: int, is_anomalous: np.ndarray, devices: Integers) -> Floats:
        """Draw z-scores of readings, shape (rows, features): of anomalous ones one is extreme."""
        random = self._random(2, self.minutes_left(minute))
        shape = (len(devices), len(FEATURES))
        z_score = np.clip(random.standard_normal(shape), -2.4, 2.4)
        extreme = Z_THRESHOLD + 0.1 + random.exponential(1.2, len(devices))
        signed = extreme * random.choice((1.0, -1.0), len(devices), p=(0.7, 0.3))
        has = ~np.isnan(self.character.level[devices])
        at = np.where(has, random.random(shape), -1.0).argmax(axis=1)
        rows = np.flatnonzero(is_anomalous)
        z_score[rows, at[rows]] = np.minimum(signed, 10.0)[rows]
        return z_score

    def rejections(self, minute: int) -> Integers:
        """Return what becomes of the devices' updates of a minute.

        An index in `REJECTED`, -1 for an accepted one.
        """
        random = self._random(3, self.minutes_left(minute))
        reason = random.integers(BY_CHANCE, size=len(self))
        drawn = np.where(random.random(len(self)) < REJECTED_SHARE, reason, -1)
        return np.where(self.cohorts(minute) > 0, BY_CHANCE, drawn)

    def cohorts(self, minute: int) -> Integers:
        """Return which trial each device is in, from 1 on; 0 for none."""
        control = self.tuning.control_at(minute)
        if control.revision not in self._cohorts:
            self._cohorts[control.revision] = assign(control, self.names)
        return self._cohorts[control.revision]

    def personal(self, minute: int, rows: Rows, skill: float) -> Floats:
        """Return the same as `correctness`, of each device's personalized model."""
        random = self._random(4, self.minutes_left(minute))
        own = 0.8 * rows.distance + 0.6 * random.standard_normal(rows.distance.shape)
        return own + skill + 0.25

    def generator(self, *key: int) -> np.random.Generator:
        """Return random numbers of a purpose of its own."""
        return self._random(9, *key)

    def _random(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.size.seed, *key])


def skill_at(minute: int | Integers) -> Floats:
    """Return the skill of the fleet's model at a minute: an accuracy of 73 % grows to 93 %."""
    minutes = np.asarray(minute, np.float64)
    return 0.6 + 0.9 * (1.0 - np.exp(-minutes / 1_500.0)) + 0.05 * np.sin(minutes / 300.0)


def probability(label: Integers, correctness: Floats) -> Floats:
    """Return a model's probability of an anomaly for rows."""
    return 1.0 / (1.0 + np.exp(np.clip(SHARPNESS * correctness * (1 - 2 * label), -30.0, 30.0)))


def log_loss(correctness: Floats) -> Floats:
    """Return the log loss of each row."""
    return np.logaddexp(0.0, -SHARPNESS * np.clip(correctness, -30.0, 30.0))


def kind_features(kind: int) -> list[int]:
    """Return the features that a kind of device has, as indexes in `FEATURES`."""
    return [index for index, name in enumerate(FEATURES) if name in KINDS[kind].signals]
