"""Local training of a group of devices: valid rows in, updates and anomalies out."""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from flead.contracts.messages import (
    Anomaly,
    ClosedBy,
    LocalUpdate,
    ModelFeedback,
    TrainingState,
)
from flead.contracts.schema import feature_schema
from flead.features.rolling import roll
from flead.features.rows import Floats, Integers, RowBatch
from flead.learning.adaptation import CLOSED_LOOP, Adaptation
from flead.learning.adopting import adopt
from flead.learning.anomalies import describe_anomalies
from flead.learning.cohorts import assign, cohorts_of
from flead.learning.feedback import CUT, is_alarming
from flead.learning.fleet import FleetState
from flead.learning.multiplier import LEAST
from flead.learning.pending import Columns, Indices
from flead.learning.plateau import LOSS
from flead.learning.rate import MULTIPLIER
from flead.learning.scoring import probability, score_rows
from flead.learning.state import NO_DEADLINE, NO_PARTITION, TrainerState
from flead.learning.updates import Occasion
from flead.learning.windows import PERSONALIZED, ClosedWindows, close_windows
from flead.learning.zscore import is_anomalous

JITTER: Final = 0.25
"""Share of `window_seconds` over which the windows of different devices are spread."""

DAY_MS: Final = 24 * 60 * 60 * 1000


WindowObserver = Callable[[ClosedWindows, Integers], None]
"""Takes closed windows and the offset of each of their rows, (longest, devices) as `places`."""


@dataclass(slots=True)
class Outcome:
    """What the devices send: the updates of closed windows, and anomalous rows."""

    updates: list[LocalUpdate] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    evicted: int = 0
    """Devices that were forgotten."""

    def extend(self, other: "Outcome") -> None:
        """Append what another call returned."""
        self.updates.extend(other.updates)
        self.anomalies.extend(other.anomalies)
        self.evicted += other.evicted


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
    device_ttl_days
        A device without a row for so long is forgotten; when it comes back it starts anew.
    observer
        Told of the windows as they close.
    adaptation
        How devices adapt by themselves.

    Raises
    ------
    ValueError
        When the list is empty or names a feature twice.
    """

    def __init__(
        self,
        features: Sequence[str],
        device_ttl_days: float = math.inf,
        observer: WindowObserver | None = None,
        adaptation: Adaptation = CLOSED_LOOP,
    ) -> None:
        self._features = list(features)
        self._observer = observer
        self._adaptation = adaptation
        self._ttl_ms = device_ttl_days * DAY_MS
        self._schema = feature_schema(features)
        self._state = TrainerState.fresh(len(features))
        self._numbers: dict[str, int] = {}

    @property
    def devices(self) -> int:
        """How many devices it remembers."""
        return len(self._state.devices)

    def personalized(self) -> tuple[list[str], Floats, Floats]:
        """Name the devices, with copies of their moments and personalized models as they are.

        Of shape (devices, 3, inputs) and (devices, inputs + 1), the intercept last.
        """
        arrays = self._state.arrays
        return list(self._state.devices), arrays.moments.copy(), arrays.personalized.copy()

    def process(self, batch: RowBatch, now_ms: int, fleet: FleetState) -> Outcome:
        """Take new rows of any of the devices; close and train the windows that they fill."""
        devices = self._numbers_of(batch.devices)
        outcome = Outcome()
        if not self._has_moved(batch, devices):
            self._take(batch, devices, now_ms, fleet, outcome)
            return outcome
        # A topic with more partitions than before: a window's offsets must be of one partition.
        for partition in np.unique(batch.partition).tolist():
            part = batch.select(batch.partition == partition)
            devices = self._numbers_of(part.devices)
            moved = devices[self._state.arrays.partition[devices] != partition]
            waiting = moved[self._state.pending.count[moved] > 0]
            for closed in self._close(waiting, ClosedBy.FLUSH, now_ms, fleet):
                outcome.updates.extend(closed.updates)
            self._take(part, devices, now_ms, fleet, outcome)
        return outcome

    def take_feedback(self, feedback: Sequence[ModelFeedback], fleet: FleetState) -> None:
        """Lower the rates of devices on which an evaluated global model did badly.

        Each version counts once for a device, and only when it is newer than those before; while
        trials run rates stay. Devices without rows are not known and have no rate.
        """
        arrays = self._state.arrays
        known = [each for each in feedback if each.device_id in self._numbers]
        for each in sorted(known, key=lambda message: message.model_version):
            device = self._numbers[each.device_id]
            if each.model_version <= arrays.feedback_version[device]:
                continue
            arrays.feedback_version[device] = each.model_version
            if fleet.control.trials:
                continue
            if is_alarming(each.log_loss, arrays.progress[device, LOSS]):
                lowered = CUT * arrays.rate[device, MULTIPLIER]
                arrays.rate[device, MULTIPLIER] = max(lowered, LEAST)

    def close_due(self, now_ms: int, fleet: FleetState) -> Outcome:
        """Close and train the windows whose oldest row has waited long enough.

        Then forget the devices that have had no row for `device_ttl_days`.
        """
        due = np.flatnonzero(self._state.arrays.deadline_ms <= now_ms)
        closed = self._close(due, ClosedBy.TIME, now_ms, fleet)
        outcome = Outcome([update for windows in closed for update in windows.updates])
        outcome.evicted = self._evict(now_ms)
        return outcome

    def flush(self, now_ms: int, fleet: FleetState) -> Outcome:
        """Close and train all open windows: the input has ended."""
        waiting = np.flatnonzero(self._state.pending.count > 0)
        closed = self._close(waiting, ClosedBy.FLUSH, now_ms, fleet)
        return Outcome([update for windows in closed for update in windows.updates])

    def next_deadline_ms(self) -> int | None:
        """When `close_due` has something to do next, None when nothing is known that it could."""
        arrays = self._state.arrays
        deadline = float(arrays.deadline_ms.min(initial=NO_DEADLINE))
        if len(arrays.last_row_ms):
            deadline = min(deadline, float(arrays.last_row_ms.min()) + self._ttl_ms)
        return None if deadline >= NO_DEADLINE else math.ceil(deadline)

    def to_bytes(self) -> bytes:
        """Encode all that the trainer remembers; see `flead.learning.state`."""
        return self._state.to_bytes(self._features)

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        features: Sequence[str],
        device_ttl_days: float = math.inf,
        adaptation: Adaptation = CLOSED_LOOP,
    ) -> "LocalTrainer":
        """Restore a trainer.

        Raises
        ------
        ValueError
            When the bytes are no state, of an unknown version, of another feature list, or cut off.
        """
        trainer = cls(features, device_ttl_days, adaptation=adaptation)
        trainer._state = TrainerState.from_bytes(data, features)
        trainer._number_devices()
        return trainer

    def _number_devices(self) -> None:
        self._numbers = {name: number for number, name in enumerate(self._state.devices)}

    def _evict(self, now_ms: int) -> int:
        """Forget devices without a row for too long, and return how many."""
        state = self._state
        last = state.arrays.last_row_ms
        # A state of the first version does not say: the time counts from its restore.
        last[last == 0] = now_ms
        idle = (last + self._ttl_ms <= now_ms) & (state.pending.count == 0)
        if not idle.any():
            return 0
        state.keep(np.flatnonzero(~idle))
        self._number_devices()
        return int(idle.sum())

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
        device = devices[batch.device_index]
        arrays, pending = state.arrays, state.pending
        inputs = roll(arrays.history, arrays.shared, arrays.seen, device, batch.values)
        arrays.partition[device] = batch.partition
        arrays.last_row_ms[devices] = now_ms
        current = fleet.current(self._schema)
        adopt(state, devices, current)
        places = pending.append(
            device, Columns(inputs, batch.label, batch.event_time, batch.offset)
        )
        found = np.flatnonzero(is_anomalous(inputs))
        sure = _LogOdds(places[found])
        while len(full := devices[pending.count[devices] >= self._limits(devices, fleet)]):
            lengths = self._limits(full, fleet)
            for closed in self._close(full, ClosedBy.COUNT, now_ms, fleet, lengths):
                outcome.updates.extend(closed.updates)
                sure.note(closed)
        self._set_deadlines(devices, now_ms, fleet)
        if len(found):
            far = inputs[found]
            prior = np.zeros(arrays.moments.shape[1:]) if current is None else current.prior
            sure.fill(score_rows(far, device[found], arrays.moments, prior, arrays.personalized))
            outcome.anomalies.extend(
                describe_anomalies(
                    batch,
                    found,
                    far,
                    probability(sure.values),
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
        if not len(devices):
            return
        cohort_of_device = self._cohorts(devices, fleet)
        for number, cohort in enumerate(cohorts_of(fleet.control)):
            members = np.flatnonzero(cohort_of_device == number)
            if not len(members):
                continue
            occasion = Occasion(
                now_ms=now_ms,
                closed_by=closed_by,
                feature_schema=self._schema,
                current=fleet.current(self._schema),
                candidate=fleet.challenger(self._schema),
                paused=fleet.control.state == TrainingState.PAUSE,
                revision=fleet.control.revision,
                unchanged_since=fleet.control.unchanged_since,
                hyperparameters=cohort.hyperparameters,
                trial=cohort.trial,
                trials_run=bool(fleet.control.trials),
                adaptation=self._adaptation,
            )
            closed = close_windows(self._state, devices[members], lengths[members], occasion)
            if self._observer is not None:
                self._observer(closed, self._state.pending.pool.offset[closed.places])
            yield closed

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


class _LogOdds:
    """Log-odds of each anomalous row by the model that its window started with.

    So that a row's probability does not depend on how the stream was cut into batches.
    """

    def __init__(self, places: Indices) -> None:
        self.values: Floats = np.full(len(places), np.nan)
        self._number = {place: number for number, place in enumerate(places.tolist())}

    def note(self, closed: ClosedWindows) -> None:
        """Take what the closed windows' models made of their rows."""
        if not self._number:
            return
        within = np.arange(len(closed.places))[:, np.newaxis] < closed.lengths
        at = within & np.isin(closed.places, list(self._number))
        logits = closed.logits[..., PERSONALIZED][at]
        for place, logit in zip(closed.places[at].tolist(), logits.tolist(), strict=True):
            self.values[self._number[place]] = logit

    def fill(self, values: Floats) -> None:
        """Take those of rows whose window is open."""
        self.values = np.where(np.isnan(self.values), values, self.values)
