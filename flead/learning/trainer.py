"""Local training of a group of devices: valid rows in, updates and anomalies out."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import Anomaly, ClosedBy, LocalUpdate, TrainingState
from flead.contracts.schema import INPUT_KINDS, feature_schema
from flead.features.rolling import roll
from flead.features.rows import Floats, Integers, RowBatch
from flead.learning.anomalies import describe_anomalies
from flead.learning.cohorts import assign, cohorts_of
from flead.learning.fleet import FleetState
from flead.learning.metrics import probability
from flead.learning.moments import standardize, standardizer
from flead.learning.pending import Columns, Indices
from flead.learning.state import NO_DEADLINE, NO_PARTITION, TrainerState
from flead.learning.updates import Occasion
from flead.learning.windows import ClosedWindows, close_windows, log_odds, start_personalized
from flead.learning.zscore import is_anomalous

JITTER: Final = 0.25
"""Share of `window_seconds` over which the windows of different devices are spread."""

_CHUNK_VALUES: Final = 1 << 21
"""Inputs that are trained on in one call: 16 MB."""


@dataclass(slots=True)
class Outcome:
    """What the devices send: the updates of closed windows, and anomalous rows."""

    updates: list[LocalUpdate] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)

    def extend(self, other: "Outcome") -> None:
        """Append what another call returned."""
        self.updates.extend(other.updates)
        self.anomalies.extend(other.anomalies)


class LocalTrainer:
    """Trains the models of a group of devices, held as arrays, as their rows come.

    One window of a device is open at a time and windows are consecutive. They close at
    `window_rows` rows, or when their oldest row has waited `window_seconds`, less up to a quarter
    by the hash of the device so that the fleet's windows do not close together. Time is what the
    caller says: processing time in milliseconds.

    Parameters
    ----------
    features
        The deployment's feature list.

    Raises
    ------
    ValueError
        When the list is empty or names a feature twice.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self._features = list(features)
        self._schema = feature_schema(features)
        self._state = TrainerState.fresh(len(features))
        self._numbers: dict[str, int] = {}

    def process(self, batch: RowBatch, now_ms: int, fleet: FleetState) -> Outcome:
        """Take new rows of any of the devices; close and train the windows that they fill."""
        devices = self._numbers_of(batch.devices)
        outcome = Outcome()
        if not self._has_moved(batch, devices):
            self._take(batch, devices, now_ms, fleet, outcome)
            return outcome
        # A topic with more partitions than before: a window's offsets must be of one partition.
        for partition in np.unique(batch.partition):
            part = batch.select(batch.partition == partition)
            devices = self._numbers_of(part.devices)
            moved = devices[self._state.arrays.partition[devices] != partition]
            waiting = moved[self._state.pending.count[moved] > 0]
            for closed in self._close(waiting, ClosedBy.FLUSH, now_ms, fleet):
                outcome.updates.extend(closed.updates)
            self._take(part, devices, now_ms, fleet, outcome)
        return outcome

    def close_due(self, now_ms: int, fleet: FleetState) -> Outcome:
        """Close and train the windows whose oldest row has waited long enough."""
        due = np.flatnonzero(self._state.arrays.deadline_ms <= now_ms)
        closed = self._close(due, ClosedBy.TIME, now_ms, fleet)
        return Outcome([update for windows in closed for update in windows.updates])

    def flush(self, now_ms: int, fleet: FleetState) -> Outcome:
        """Close and train all open windows: the input has ended."""
        waiting = np.flatnonzero(self._state.pending.count > 0)
        closed = self._close(waiting, ClosedBy.FLUSH, now_ms, fleet)
        return Outcome([update for windows in closed for update in windows.updates])

    def next_deadline_ms(self) -> int | None:
        """When the next window closes by time, None when none is open."""
        deadline = int(self._state.arrays.deadline_ms.min(initial=NO_DEADLINE))
        return None if deadline == NO_DEADLINE else deadline

    def to_bytes(self) -> bytes:
        """Encode all that the trainer remembers; see `flead.learning.state`."""
        return self._state.to_bytes(self._features)

    @classmethod
    def from_bytes(cls, data: bytes, features: Sequence[str]) -> "LocalTrainer":
        """Restore a trainer.

        Raises
        ------
        ValueError
            When the bytes are no state, of an unknown version, of another feature list, or cut off.
        """
        trainer = cls(features)
        trainer._state = TrainerState.from_bytes(data, features)
        trainer._numbers = {name: number for number, name in enumerate(trainer._state.devices)}
        return trainer

    def _numbers_of(self, names: list[str]) -> Integers:
        """Numbers of devices; unknown ones are added."""
        new = [name for name in names if name not in self._numbers]
        if new:
            self._numbers.update(zip(new, range(len(self._numbers), 1 << 31), strict=False))
            self._state.add(new)
        return np.array([self._numbers[name] for name in names], np.int64)

    def _has_moved(self, batch: RowBatch, devices: Integers) -> bool:
        """Whether a device's rows come from another partition than those before them."""
        partition = self._state.arrays.partition[devices]
        some = np.empty(len(devices), np.int64)
        some[batch.device_index] = batch.partition
        known = np.where(partition == NO_PARTITION, some, partition)
        return bool((known[batch.device_index] != batch.partition).any())

    def _take(
        self, batch: RowBatch, devices: Integers, now_ms: int, fleet: FleetState, outcome: Outcome
    ) -> None:
        """Take rows of devices that stay in their partition."""
        if not len(batch):
            return
        state = self._state
        order = np.argsort(batch.device_index, kind="stable")
        counts = np.bincount(batch.device_index, minlength=len(devices))
        rolled = roll(
            state.arrays.history[devices], state.arrays.seen[devices], batch.values[order], counts
        )
        state.arrays.history[devices] = rolled.history
        state.arrays.seen[devices] += counts
        state.arrays.partition[devices[batch.device_index]] = batch.partition
        start_personalized(state, devices, fleet.current(self._schema))
        rows = Columns(
            rolled.inputs, batch.label[order], batch.event_time[order], batch.offset[order]
        )
        places = state.pending.append(devices, counts, rows)

        found = np.flatnonzero(is_anomalous(rolled.inputs))
        sure = _Probabilities(places[found])
        while len(full := devices[state.pending.count[devices] >= self._limits(devices, fleet)]):
            lengths = self._limits(full, fleet)
            for closed in self._close(full, ClosedBy.COUNT, now_ms, fleet, lengths):
                outcome.updates.extend(closed.updates)
                sure.note(closed)
        self._set_deadlines(devices, now_ms, fleet)
        if len(found):
            numbers = np.repeat(devices, counts)[found]
            sure.fill(self._probabilities(rolled.inputs[found], numbers, fleet))
            current = fleet.current(self._schema)
            outcome.anomalies.extend(
                describe_anomalies(
                    batch.select(order[found]),
                    rolled.inputs[found],
                    sure.values,
                    self._features,
                    0 if current is None else current.version,
                )
            )

    def _close(
        self,
        devices: Integers,
        closed_by: ClosedBy,
        now_ms: int,
        fleet: FleetState,
        lengths: Integers | None = None,
    ) -> Iterator[ClosedWindows]:
        """Close a window of each device, of all its waiting rows or of its oldest `lengths`."""
        if lengths is None:
            lengths = self._state.pending.count[devices]
        self._state.arrays.deadline_ms[devices] = NO_DEADLINE
        cohort_of_device = self._cohorts(devices, fleet)
        inputs = len(self._features) * len(INPUT_KINDS)
        for number, cohort in enumerate(cohorts_of(fleet.control)):
            members = np.flatnonzero(cohort_of_device == number)
            members = members[np.argsort(-lengths[members], kind="stable")]
            occasion = Occasion(
                now_ms=now_ms,
                closed_by=closed_by,
                feature_schema=self._schema,
                current=fleet.current(self._schema),
                candidate=fleet.challenger(self._schema),
                paused=fleet.control.state == TrainingState.PAUSE,
                revision=fleet.control.revision,
                hyperparameters=cohort.hyperparameters,
                trial=cohort.trial,
            )
            while len(members):
                chunk = max(1, _CHUNK_VALUES // (int(lengths[members[0]]) * inputs))
                part, members = members[:chunk], members[chunk:]
                yield close_windows(self._state, devices[part], lengths[part], occasion)

    def _cohorts(self, devices: Integers, fleet: FleetState) -> Integers:
        names = self._state.devices
        # Without a trial no names are needed.
        chosen = [names[device] for device in devices.tolist()] if fleet.control.trials else []
        return assign(fleet.control, chosen) if chosen else np.zeros(len(devices), np.int64)

    def _limits(self, devices: Integers, fleet: FleetState) -> Integers:
        """`window_rows` of each device."""
        limits = [cohort.hyperparameters.window_rows for cohort in cohorts_of(fleet.control)]
        return np.array(limits, np.int64)[self._cohorts(devices, fleet)]

    def _set_deadlines(self, devices: Integers, now_ms: int, fleet: FleetState) -> None:
        """Say when the windows that have opened close by time."""
        arrays, pending = self._state.arrays, self._state.pending
        opened = (pending.count[devices] > 0) & (arrays.deadline_ms[devices] == NO_DEADLINE)
        devices = devices[opened]
        if not len(devices):
            return
        seconds = [cohort.hyperparameters.window_seconds for cohort in cohorts_of(fleet.control)]
        wait_ms = 1000.0 * np.array(seconds)[self._cohorts(devices, fleet)]
        names = self._state.devices
        spread = [zlib.crc32(names[device].encode()) / 2**32 for device in devices.tolist()]
        waits = np.ceil(wait_ms * (1.0 - JITTER * np.array(spread))).astype(np.int64)
        arrays.deadline_ms[devices] = now_ms + waits

    def _probabilities(self, inputs: Floats, devices: Integers, fleet: FleetState) -> Floats:
        """Probability of each row (rows, inputs) by the personalized model of its device as it is.

        `devices` is (rows,).
        """
        arrays = self._state.arrays
        current = fleet.current(self._schema)
        prior = None if current is None else current.prior
        standardized = standardize(inputs, standardizer(arrays.moments(devices), prior))
        return probability(log_odds(standardized[np.newaxis], arrays.personalized[devices])[0])


class _Probabilities:
    """Probability of each anomalous row by the model that its window started with.

    So that a row's probability does not depend on how the stream was cut into batches.
    """

    def __init__(self, places: Indices) -> None:
        self.values: Floats = np.full(len(places), np.nan)
        self._number = {place: number for number, place in enumerate(places.tolist())}

    def note(self, closed: ClosedWindows) -> None:
        """Take what the closed windows' models made of their rows."""
        if not self._number:
            return
        at: NDArray[np.bool_] = closed.within & np.isin(closed.places, list(self._number))
        for place, logit in zip(closed.places[at].tolist(), closed.logits[at], strict=True):
            self.values[self._number[place]] = probability(logit)

    def fill(self, values: Floats) -> None:
        """Take the probabilities of rows whose window is open."""
        self.values = np.where(np.isnan(self.values), values, self.values)
