"""A simulated fleet: the same parameters give the same messages, byte for byte."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import Telemetry
from flead.contracts.simulation import FEATURES
from flead.fleet.attacks import ATTACKS, AttackSchedule
from flead.fleet.devices import KINDS, Floats, Integers, device_names, draw_character
from flead.fleet.malformed import MALFORMATIONS, Message

DECIMALS: Final = {"temperature": 2, "vibration": 3, "current": 3, "pressure": 4, "throughput": 3}
"""Resolution of the sensors."""

MISSING_RATE: Final = 0.01
"""Share of the readings that get lost: null in the message."""

BATCH_ROWS: Final = 16_384
DAY_SECONDS: Final = 86_400.0
JITTER: Final = 0.2
"""How far a device's row lies from its regular time, in periods, both signs."""


@dataclass(frozen=True, slots=True)
class SimulatedRows:
    """Consecutive rows of a simulated fleet, in order of time.

    Arrays have one entry a row; `values` is (rows, features) in the order of
    `flead.contracts.simulation.FEATURES`, nan where missing. `kind` is an index in `KINDS`,
    `attack` one in `ATTACKS`, `malformation` one in `MALFORMATIONS`, the latter two -1 for none.
    `seconds` is the time since the fleet's start, `event_time` the time since the epoch in ms.
    """

    device_names: list[str]
    device_index: Integers
    kind: Integers
    seconds: Floats
    event_time: Integers
    values: Floats
    attack: Integers
    malformation: Integers

    def __len__(self) -> int:
        return len(self.device_index)

    def __getitem__(self, rows: slice) -> "SimulatedRows":
        arrays = {name: getattr(self, name)[rows] for name in self.__slots__[1:]}
        return replace(self, **arrays)

    @property
    def label(self) -> NDArray[np.int8]:
        """1 for rows of an attack, else 0."""
        return (self.attack >= 0).astype(np.int8)

    def telemetry(self) -> list[Telemetry]:
        """Return the rows as messages, as if none were malformed."""
        attacks = (*ATTACKS, None)
        readings = self._readings()
        return [
            Telemetry(
                self.device_names[device], time, values, 0 if attack < 0 else 1, attacks[attack]
            )
            for device, time, values, attack in zip(
                self.device_index.tolist(),
                self.event_time.tolist(),
                readings,
                self.attack.tolist(),
                strict=True,
            )
        ]

    def encode(self) -> list[Message]:
        """Key and value of each row's Kafka message; malformed ones are broken."""
        encode = msgspec.json.Encoder().encode
        valid = [(row.device_id.encode(), encode(row)) for row in self.telemetry()]
        messages: list[Message] = [*valid]
        for row in np.flatnonzero(self.malformation >= 0).tolist():
            messages[row] = MALFORMATIONS[self.malformation[row]](*valid[row])
        return messages

    def _readings(self) -> list[dict[str, float | None]]:
        """Each row's features: those that its kind has, null where the reading is missing."""
        readings: list[dict[str, float | None]] = [{}] * len(self)
        values = self.values.astype(object)
        values[np.isnan(self.values)] = None
        for number, kind in enumerate(KINDS):
            rows = np.flatnonzero(self.kind == number)
            names = [feature for feature in FEATURES if feature in kind.signals]
            columns = [FEATURES.index(feature) for feature in names]
            of_kind = values[rows][:, columns].tolist()
            for row, numbers in zip(rows.tolist(), of_kind, strict=True):
                readings[row] = dict(zip(names, numbers, strict=True))
        return readings


@dataclass(frozen=True, slots=True)
class Simulator:
    """A fleet that sends rows at a steady rate, each device at its own times.

    Values, labels and times since the start depend on `seed` and the other parameters only:
    `start_ms` shifts `event_time` and nothing else, `malformed_rate` leaves the other rows alone.

    Parameters
    ----------
    devices
        Devices in the fleet.
    rate_per_minute
        Rows a minute of the whole fleet.
    anomaly_rate
        Mean share of rows that belong to an attack, 0 to 1.
    seed
        Of all random numbers.
    start_ms
        Event time of the start, milliseconds since the epoch.
    drift_at_seconds
        When the level and the gain of some devices change for good, seconds after the start; such
        rows are no attack.
    malformed_rate
        Share of the messages that arrive broken, 0 to 1.

    Raises
    ------
    ValueError
        Names the parameter that is out of range.
    """

    devices: int
    rate_per_minute: float
    anomaly_rate: float
    seed: int
    start_ms: int = 0
    drift_at_seconds: float | None = None
    malformed_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("devices", "rate_per_minute"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("anomaly_rate", "malformed_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")

    @property
    def period_seconds(self) -> float:
        """Mean time between two rows of a device."""
        return 60.0 * self.devices / self.rate_per_minute

    def batches(self) -> Iterator[SimulatedRows]:
        """Yield the rows without end, in batches of whole periods; each call starts anew."""
        fleet = _Fleet(self)
        periods = -(-BATCH_ROWS // self.devices)
        while True:
            yield fleet.rows(periods)


class _Fleet:
    """State of a running simulation."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        (
            of_character,
            of_drift,
            of_attacks,
            self._of_noise,
            self._of_times,
            self._of_losses,
            self._of_damage,
        ) = (
            np.random.default_rng(seed) for seed in np.random.SeedSequence(simulator.seed).spawn(7)
        )
        devices = simulator.devices
        self._before = draw_character(devices, of_character)
        self._after = self._before.drifted(of_drift)
        self._names = device_names(self._before.kind)
        self._attacks = AttackSchedule(self._before.level, simulator.anomaly_rate, of_attacks)
        self._deviation = self._of_noise.standard_normal(self._before.level.shape)
        # Spread evenly, so that the fleet's rate is steady.
        self._phase = (self._of_times.permutation(devices) + 0.5) / devices
        self._period = 0

    def rows(self, periods: int) -> SimulatedRows:
        """Return the rows of the next `periods` periods, one of each device in each."""
        seconds, values, attack = zip(*(self._next_period() for _ in range(periods)), strict=True)
        order = np.concatenate(
            [number * len(self._names) + np.argsort(at) for number, at in enumerate(seconds)]
        )
        device_index = order % len(self._names)
        at = np.concatenate(seconds)[order]
        damaged = self._of_damage.random(len(order)) < self._simulator.malformed_rate
        kind_of_damage = self._of_damage.integers(len(MALFORMATIONS), size=len(order))
        measured = np.concatenate(values)[order]
        for column, feature in enumerate(FEATURES):
            measured[:, column] = measured[:, column].round(DECIMALS[feature])
        return SimulatedRows(
            device_names=self._names,
            device_index=device_index,
            kind=self._before.kind[device_index],
            seconds=at,
            event_time=self._simulator.start_ms + (at * 1000.0).astype(np.int64),
            values=measured,
            attack=np.concatenate(attack)[order],
            malformation=np.where(damaged, kind_of_damage, -1),
        )

    def _next_period(self) -> tuple[Floats, Floats, Integers]:
        """Return times, values and attacks of the next row of every device."""
        seconds = self._next_times()
        level, noise = self._at(seconds)
        deviation = self._next_deviation()
        character = self._before
        day = np.cos(2 * np.pi * (seconds - character.peak_seconds) / DAY_SECONDS)
        values = level + character.swing * day[:, np.newaxis] + noise * deviation
        attack = self._attacks.step(values, noise)
        np.maximum(values, 0.0, out=values)
        values[self._of_losses.random(values.shape) < MISSING_RATE] = np.nan
        self._period += 1
        return seconds, values, attack

    def _next_times(self) -> Floats:
        jitter = self._of_times.uniform(-JITTER, JITTER, len(self._phase))
        # Reflected at both ends of the period: times of a device stay in order and evenly spread.
        within = np.abs(self._phase + jitter)
        within = np.where(within > 1.0, 2.0 - within, within)
        return (self._period + within) * self._simulator.period_seconds

    def _next_deviation(self) -> Floats:
        """AR(1) noise of unit variance: a copy, for attacks must not echo in later rows."""
        persistence = self._before.persistence
        fresh = self._of_noise.standard_normal(self._deviation.shape)
        self._deviation = persistence * self._deviation + np.sqrt(1 - persistence**2) * fresh
        return self._deviation

    def _at(self, seconds: Floats) -> tuple[Floats, Floats]:
        """Level and noise of every device at its time."""
        before, after = self._before, self._after
        if self._simulator.drift_at_seconds is None:
            return before.level, before.noise
        drifted = (seconds >= self._simulator.drift_at_seconds)[:, np.newaxis]
        return (
            np.where(drifted, after.level, before.level),
            np.where(drifted, after.noise, before.noise),
        )
