"""Rounds, the versions that they made, and what was decided on each.

One round a minute reads the updates of that minute, judges the pending candidate and makes the next
one. Some rounds still wait for a verdict, some candidates are rejected, and every day the head is
taken back once.
"""

import hashlib
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np

from benchmarks.filled.columns import Times, copy_columns
from benchmarks.filled.fleet import (
    BY_CHANCE,
    DAY_MINUTES,
    REJECTED,
    REJECTED_SHARE,
    ROWS_PER_MINUTE,
    Fleet,
    log_loss,
    skill_at,
)
from flead.contracts.schema import input_names
from flead.contracts.simulation import FEATURES
from flead.features.rows import Floats, Integers
from flead.storage.connection import Cursor
from flead.storage.copying import NULL

WAITING_EVERY: Final = 40
REJECTED_EVERY: Final = 17
WAITS_AT: Final = WAITING_EVERY // 2
REJECTED_AT: Final = REJECTED_EVERY // 2
ROLLED_BACK_AT: Final = DAY_MINUTES // 2 + 7
"""Minutes before the end, of each `WAITING_EVERY`, `REJECTED_EVERY`, and day."""

ROUND_SECONDS: Final = 3
INPUTS: Final = len(input_names(FEATURES))


@dataclass(slots=True)
class Version:
    """A global model: what `federated_models` says of it, but for its figures."""

    version: int
    parent: int
    restored: int | None
    round: int | None
    status: str
    minute: int
    promoted_minute: int | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision on a version, at the end of a minute."""

    version: int
    reference: int | None
    decision: str
    reason: str
    round: int | None
    decided_by: str
    minute: int


class History:
    """What the rounds of a fleet have made of its updates.

    Attributes
    ----------
    versions : list of Version
        Without a gap, the oldest first; the newest is a candidate.
    head_at, candidate_at : ndarray of shape (minutes + 1,)
        Version that was the head, and the candidate, in each minute; 0 for none.
    of_round : dict
        Version that a round made, and the one that became the head in it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.versions: list[Version] = []
        self.decisions: list[Decided] = []
        self.made: dict[int, int] = {}
        self.promoted: dict[int, int] = {}
        self.head_at = np.zeros(fleet.minutes + 1, np.int64)
        self.candidate_at = np.zeros(fleet.minutes + 1, np.int64)
        self._head = 0
        self._candidate: Version | None = None
        for number in range(1, fleet.minutes + 1):
            self._round(number, fleet.minutes_left(number))
            self.head_at[number] = self._head
            self.candidate_at[number] = self._candidate.version if self._candidate else 0

    @property
    def head(self) -> Version:
        """The head at the end."""
        return self.versions[self._head - 1]

    def _round(self, number: int, minutes_left: int) -> None:
        if minutes_left % WAITING_EVERY == WAITS_AT and self._candidate is not None:
            return
        if self._candidate is not None:
            is_bad = minutes_left % REJECTED_EVERY == REJECTED_AT
            self._judge(self._candidate, number, is_bad=is_bad)
        if minutes_left % DAY_MINUTES == ROLLED_BACK_AT and self._head > 1:
            self._take_back(number)
        made = self._add(number, parent=self._head, made_by=number)
        self.made[number] = made.version
        if self._head == 0:
            self._promote(made, number)
        else:
            self._candidate = made

    def _judge(self, candidate: Version, number: int, *, is_bad: bool) -> None:
        if is_bad:
            candidate.status = "rejected"
            reason = "worse than its parent on the same rows"
        else:
            self._promote(candidate, number)
            reason = "not worse than its parent on the same rows"
        self._decide(candidate.version, candidate.parent, candidate.status, reason, number)
        self._candidate = None

    def _take_back(self, number: int) -> None:
        bad, good = self.versions[self._head - 1], self.versions[self._head - 1].parent
        reason = "its prequential loss is worse than its parent's on the same devices"
        bad.status = "rolled_back"
        restored = self._add(number, parent=good, made_by=None)
        restored.restored = good
        self._promote(restored, number)
        self._decide(bad.version, good, "rolled_back", reason, number)
        self._decide(restored.version, good, "restored", reason, number)

    def _add(self, number: int, parent: int, made_by: int | None) -> Version:
        version = len(self.versions) + 1
        made = Version(version, parent, None, made_by, "candidate", number, None)
        self.versions.append(made)
        return made

    def _promote(self, made: Version, number: int) -> None:
        made.status, made.promoted_minute = "promoted", number
        self._head = self.promoted[number] = made.version

    def _decide(
        self, version: int, reference: int | None, decision: str, reason: str, number: int
    ) -> None:
        self.decisions.append(
            Decided(
                version, reference or None, decision, reason, number, "aggregation_round", number
            )
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Sums over the rows that each version has scored; arrays by version - 1."""

    rows: Integers
    loss_sum: Floats
    tp: Integers
    fp: Integers
    tn: Integers
    fn: Integers


def draw_counts(
    fleet: Fleet, random: np.random.Generator, rows: Integers, skill: Floats
) -> tuple[Integers, Integers, Integers, Integers]:
    """Draw tp, fp, tn and fn of models of some skill on numbers of rows of the fleet."""
    normal = NormalDist()
    levels, at = np.unique(skill.round(2), return_inverse=True)
    talents = fleet.talents.tolist()
    accuracy = np.array([np.mean([normal.cdf(of + each) for of in talents]) for each in levels])[at]
    positives = random.binomial(rows, fleet.label_share)
    tp = random.binomial(positives, accuracy)
    tn = random.binomial(rows - positives, accuracy)
    return tp, rows - positives - tn, tn, positives - tp


def expected_loss(fleet: Fleet, skill: Floats) -> Floats:
    """Return the mean log loss of models of some skill on the fleet, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    level = np.asarray(skill)[..., np.newaxis, np.newaxis] + fleet.talents[:, np.newaxis]
    return (log_loss(level + nodes) @ (weights / weights.sum())).mean(axis=-1)


def write_rounds(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write every round, and how far the updates have been read."""
    random = fleet.generator(1)
    numbers = np.arange(1, fleet.minutes + 1)
    shares = (*(REJECTED_SHARE / BY_CHANCE,) * BY_CHANCE, 0.0, 1.0 - REJECTED_SHARE)
    rejected = random.multinomial(len(fleet), shares, size=len(numbers))[:, :-1]
    for minute in {
        *fleet.update_minutes,
        *(each for trying in fleet.tuning.trying for each in trying),
    }:
        reasons = fleet.rejections(minute)
        rejected[minute] = np.bincount(reasons[reasons >= 0], minlength=len(REJECTED))
    opened = fleet.start_ms + numbers * 60_000 + 1_000
    made = [history.made.get(number) for number in numbers.tolist()]
    promoted = [history.promoted.get(number) for number in numbers.tolist()]
    copy_columns(
        cursor,
        "aggregation_rounds",
        {
            "round": numbers,
            "state": ["waiting" if each is None else "aggregated" for each in made],
            "start_offsets": [_json(fleet.update_offsets(n - 1)) for n in numbers.tolist()],
            "end_offsets": [_json(fleet.update_offsets(n)) for n in numbers.tolist()],
            "updates": len(fleet),
            "dead_letters": 0,
            "accepted": len(fleet) - rejected.sum(axis=1),
            "rejected": [
                _json({REJECTED[at]: n for at, n in enumerate(each) if n})
                for each in rejected.tolist()
            ],
            "version": [_or_null(each) for each in made],
            "promoted_version": [_or_null(each) for each in promoted],
            "dag_run_id": [f"round__{number}" for number in numbers.tolist()],
            "attempts": 1,
            "opened_at": Times(opened),
            "attempted_at": Times(opened),
            "completed_at": Times(opened + ROUND_SECONDS * 1_000),
        },
    )


def write_versions(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write every version with its figures, the decisions, and the head."""
    versions = history.versions
    accepted = _accepted_of_rounds(cursor)
    measured = _measure(fleet, history)
    accuracy = (measured.tp + measured.tn) / np.maximum(measured.rows, 1)
    loss = measured.loss_sum / np.maximum(measured.rows, 1)
    parents = np.array([each.parent for each in versions]) - 1
    is_known = (parents >= 0) & (measured.rows[parents] > 0)
    weights, intercepts = _weights(fleet, versions)
    created = fleet.start_ms + np.array([each.minute for each in versions]) * 60_000 + 4_000
    updates = np.array([accepted[each.round or each.minute] for each in versions])
    copy_columns(
        cursor,
        "federated_models",
        {
            "version": np.array([each.version for each in versions]),
            "parent_version": parents + 1,
            "restored_version": [_or_null(each.restored) for each in versions],
            "aggregation_round": [_or_null(each.round) for each in versions],
            "status": [each.status for each in versions],
            "feature_schema": fleet.schema,
            "feature_names": "{" + ",".join(FEATURES) + "}",
            "strategy": "fedavg",
            "options": "{}",
            "weights": weights,
            "intercept": intercepts,
            "standardizer": moments_json(fleet, 0),
            "num_devices": updates,
            "num_updates": updates,
            "total_samples": updates * ROWS_PER_MINUTE,
            "input_offsets": [
                _json({p: n - 1 for p, n in fleet.first_offsets(each.minute).items()})
                for each in versions
            ],
            "hyperparameters_revision": np.array(
                [fleet.tuning.control_at(each.minute - 1).revision for each in versions]
            ),
            "parent_accuracy": np.where(is_known, accuracy[parents], np.nan),
            "parent_loss": np.where(is_known, loss[parents], np.nan),
            "metrics_rows": measured.rows,
            "metrics_log_loss_sum": measured.loss_sum,
            "metrics_tp": measured.tp,
            "metrics_fp": measured.fp,
            "metrics_tn": measured.tn,
            "metrics_fn": measured.fn,
            "artifact_path": [f"models/{each.version}.json" for each in versions],
            "artifact_sha256": [
                hashlib.sha256(f"{fleet.size.seed}/{each.version}".encode()).hexdigest()
                for each in versions
            ],
            "created_at": Times(created),
            "promoted_at": Times(
                np.array(
                    [
                        -1 if each.promoted_minute is None
                        else fleet.at_ms(each.promoted_minute) + 4_000
                        for each in versions
                    ]
                )
            ),
        },
    )  # fmt: skip
    copy_columns(
        cursor,
        "model_head",
        {"feature_schema": [fleet.schema], "version": history.head.version},
    )
    _write_decisions(cursor, fleet, history)


def correct_measured(
    cursor: Cursor, fleet: Fleet, history: History, sums: dict[int, list[float]]
) -> None:
    """Replace the figures of versions by the sums over the updates that are stored.

    Parameters
    ----------
    sums
        By version: rows, log loss, tp, fp, tn, fn. Versions that were scored before the recent
        minutes too are left as they are.
    """
    start = fleet.recent.start
    before = {*history.head_at[:start].tolist(), *history.candidate_at[:start].tolist()}
    for version, (rows, loss, tp, fp, tn, fn) in sums.items():
        if version and version not in before:
            cursor.execute(
                "UPDATE federated_models SET metrics_rows = %s, metrics_log_loss_sum = %s,"
                " metrics_tp = %s, metrics_fp = %s, metrics_tn = %s, metrics_fn = %s"
                " WHERE version = %s",
                (rows, loss, tp, fp, tn, fn, version),
            )


def moments_json(fleet: Fleet, device: int | None) -> str:
    """Return moments of a device's inputs, or those of the fleet's first as the fleet's own."""
    level = np.nan_to_num(fleet.character.level[device or 0])
    noise = np.nan_to_num(fleet.character.noise[device or 0])
    rows = 100_000.0
    mean = np.column_stack([level, np.zeros_like(level), level, noise]).ravel()
    spread = np.column_stack([noise, np.ones_like(level), noise / 10, noise / 20]).ravel()
    return _json(
        {
            "count": [rows] * INPUTS,
            "mean": mean.round(6).tolist(),
            "m2": (rows * spread**2).round(6).tolist(),
        }
    )


def array_text(values: Floats) -> str:
    """Return an array of numbers as COPY takes it."""
    return "{" + ",".join(f"{each:.6g}" for each in values.tolist()) + "}"


def _write_decisions(cursor: Cursor, fleet: Fleet, history: History) -> None:
    made = history.decisions
    random = fleet.generator(2)
    worse = np.array([each.decision in {"rejected", "rolled_back"} for each in made])
    copy_columns(
        cursor,
        "promotion_decisions",
        {
            "version": np.array([each.version for each in made]),
            "reference_version": [_or_null(each.reference) for each in made],
            "decision": [each.decision for each in made],
            "reason": [each.reason for each in made],
            "aggregation_round": [_or_null(each.round) for each in made],
            "decided_by": [each.decided_by for each in made],
            "devices": len(fleet),
            "rows": len(fleet) * ROWS_PER_MINUTE,
            "mean_difference": np.where(worse, 0.02, -0.004) * random.uniform(0.5, 1.5, len(made)),
            "p_value": np.where(worse, 0.001, 0.6) * random.uniform(0.5, 1.5, len(made)),
            "decided_at": Times(np.array([fleet.at_ms(each.minute) + 4_000 for each in made])),
        },
    )


def _measure(fleet: Fleet, history: History) -> Measured:
    """Draw what each version was measured at while it was the head."""
    count = len(history.versions)
    # As the candidate first, then as the head.
    minutes = sum(
        np.bincount(each[: fleet.minutes], minlength=count + 1)[1:]
        for each in (history.candidate_at, history.head_at)
    )
    rows = minutes * round(len(fleet) * (1.0 - REJECTED_SHARE)) * ROWS_PER_MINUTE
    skill = skill_at(np.array([each.minute for each in history.versions]))
    bad = np.array([each.status in {"rejected", "rolled_back"} for each in history.versions])
    skill = np.where(bad, skill - 0.2, skill)
    random = fleet.generator(3)
    # Within a day it hardly changes.
    levels, of_version = np.unique(skill.round(2), return_inverse=True)
    tp, fp, tn, fn = draw_counts(fleet, random, rows, skill)
    loss = rows * expected_loss(fleet, levels)[of_version] * random.uniform(0.98, 1.02, count)
    return Measured(rows, loss, tp, fp, tn, fn)


def _weights(fleet: Fleet, versions: list[Version]) -> tuple[list[str], Floats]:
    """Return the weights of each version, which settle in time, and its intercept."""
    random = fleet.generator(4)
    settled = random.normal(0.0, 1.5, INPUTS)
    minute = np.array([each.minute for each in versions])
    share = 1.0 - np.exp(-(minute + 30.0) / 1_500.0)
    noise = random.normal(0.0, 0.02, (len(versions), INPUTS))
    weights = settled * share[:, np.newaxis] + noise
    intercept = -2.0 * share + noise[:, 0]
    for at, each in enumerate(versions):
        if each.restored is not None:
            weights[at], intercept[at] = weights[each.restored - 1], intercept[each.restored - 1]
    return [array_text(each) for each in weights], intercept


def _accepted_of_rounds(cursor: Cursor) -> dict[int, int]:
    cursor.execute("SELECT round, accepted FROM aggregation_rounds")
    return dict(cursor.fetchall())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _or_null(value: int | None) -> str:
    return NULL if value is None else str(value)
