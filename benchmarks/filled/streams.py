"""What devices send and the stream analysis finds: updates, windows, anomalies, samples."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from benchmarks.filled.columns import Times, copy_columns
from benchmarks.filled.fleet import (
    BLOCK_MINUTES,
    REJECTED,
    ROWS_PER_MINUTE,
    Fleet,
    Rows,
    kind_features,
    log_loss,
    probability,
    skill_at,
)
from benchmarks.filled.history import INPUTS, History, array_text, moments_json
from flead.contracts.schema import Z_THRESHOLD
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.features.rows import Floats, Integers
from flead.fleet.devices import KINDS
from flead.fleet.simulator import DECIMALS
from flead.learning.metrics import THRESHOLD
from flead.storage.connection import Cursor
from flead.storage.copying import NULL

SLOT_MS: Final = 15_000
SHORT_MS: Final = 30_000
CANDIDATE_SKILL: Final = 0.02
"""By which candidates are better than the head."""

MODELS: Final = 64
"""Different weights and moments among the updates, which devices share."""

Sums = dict[int, list[float]]


def write_streams(cursor: Cursor, fleet: Fleet, history: History) -> Sums:
    """Write them; returns the sums of the accepted updates by the version that they scored."""
    writer = _Writer(cursor, fleet, history)
    for first in fleet.blocks:
        writer.write_block(first)
    writer.write_moments()
    return writer.sums


class _Writer:
    """Writes the minutes of a fleet, a block at a time, so that memory stays bounded."""

    def __init__(self, cursor: Cursor, fleet: Fleet, history: History) -> None:
        self.sums: Sums = {}
        self._cursor = cursor
        self._fleet = fleet
        self._history = history
        random = fleet.generator(5)
        models = [array_text(each) for each in random.normal(0.0, 1.5, (MODELS, INPUTS))]
        moments = [moments_json(fleet, each % len(fleet)) for each in range(MODELS)]
        shared = (np.arange(len(fleet)) % MODELS).tolist()
        self._weights = [models[each] for each in shared]
        self._moments = [moments[each] for each in shared]
        self._update_minutes = frozenset(fleet.update_minutes)

    def write_block(self, first: int) -> None:
        long_window = _Window(self._fleet)
        for minute in range(first, first + BLOCK_MINUTES):
            rows = self._fleet.rows(minute)
            version = int(self._history.head_at[minute])
            correctness = self._fleet.correctness(rows, float(skill_at(minute)))
            likely = probability(rows.label, correctness)
            long_window.add(rows, correctness, likely, slice(None))
            is_first, is_complete = minute == first, minute in self._fleet.recent
            if is_complete:
                self._short_windows(minute, rows, correctness, likely, version)
            if minute in self._update_minutes:
                self._updates(minute, rows, correctness, version)
            self._readings(minute, rows, likely, version, slots=4 if is_complete else is_first)
        version = int(self._history.head_at[first + BLOCK_MINUTES - 1])
        self._window(self._fleet.at_ms(first), BLOCK_MINUTES * 60, long_window, version)

    def write_moments(self) -> None:
        """Write the newest moments of each device, as of the last round."""
        fleet = self._fleet
        copy_columns(
            self._cursor,
            "device_moments",
            {
                "feature_schema": fleet.schema,
                "device_id": fleet.names,
                "aggregation_round": fleet.minutes,
                "kafka_partition": fleet.partition,
                "kafka_offset": self._update_offset(fleet.minutes - 1),
                "kafka_timestamp": Times(np.full(len(fleet), fleet.end_ms + 500)),
                "moments": self._moments,
            },
        )

    def _update_offset(self, minute: int) -> Integers:
        return minute * self._fleet.of_partition[self._fleet.partition] + self._fleet.rank

    def _short_windows(
        self, minute: int, rows: Rows, correctness: Floats, likely: Floats, version: int
    ) -> None:
        begin = self._fleet.at_ms(minute)
        is_later = rows.time_ms - begin >= SHORT_MS
        for number, inside in enumerate((~is_later, is_later)):
            window = _Window(self._fleet)
            window.add(rows, correctness, likely, inside)
            self._window(begin + number * SHORT_MS, SHORT_MS // 1_000, window, version)

    def _window(self, begin_ms: int, seconds: int, window: "_Window", version: int) -> None:
        fleet = self._fleet
        written = np.full(len(fleet), begin_ms + seconds * 1_000 + 5_000)
        copy_columns(
            self._cursor,
            "stream_analysis_results",
            {
                "window_start": Times(np.full(len(fleet), begin_ms)),
                "window_seconds": seconds,
                "device_id": fleet.names,
                "model_version": version,
                "row_count": window.rows,
                "zscore_anomaly_count": window.anomalies,
                "scored_rows": window.rows if version else 0,
                "anomaly_count": window.positives if version else None,
                "probability_sum": window.probability_sum if version else 0.0,
                "rows_labelled": window.rows if version else 0,
                "correct": window.correct if version else 0,
                "created_at": Times(written),
                "updated_at": Times(written),
            },
        )

    def _updates(self, minute: int, rows: Rows, correctness: Floats, version: int) -> None:
        fleet, history = self._fleet, self._history
        candidate = int(history.candidate_at[minute])
        personal = fleet.personal(minute, rows, float(skill_at(minute)))
        rejection = fleet.rejections(minute)
        control = fleet.tuning.control_at(minute)
        trials = np.array([NULL, *(each.trial for each in control.trials)])
        is_accepted = rejection < 0
        own, accuracy = _metrics(rows, personal, minute + 1)
        of_head, _ = _metrics(rows, correctness, version)
        of_candidate, _ = _metrics(rows, correctness + CANDIDATE_SKILL, candidate)
        for scored, by in ((version, correctness), (candidate, correctness + CANDIDATE_SKILL)):
            if scored:
                self._add_up(scored, rows, by, is_accepted)
        sent = np.full(len(fleet), fleet.at_ms(minute + 1) + 500)
        copy_columns(
            self._cursor,
            "local_models",
            {
                "kafka_topic": Topic.LOCAL_UPDATES.value,
                "kafka_partition": fleet.partition,
                "kafka_offset": self._update_offset(minute),
                "kafka_timestamp": Times(sent),
                "aggregation_round": minute + 1,
                "status": np.where(is_accepted, "accepted", "rejected").tolist(),
                "reject_reason": np.array([*REJECTED, NULL])[rejection].tolist(),
                "aggregation_weight": np.where(is_accepted, 1.0 / is_accepted.sum(), np.nan),
                "device_id": fleet.names,
                "model_version": minute + 1,
                "base_version": version,
                "feature_schema": fleet.schema,
                "trained": True,
                "training_status": fleet.status,
                "samples_processed": ROWS_PER_MINUTE,
                "weights": self._weights,
                "intercept": -1.5,
                "moments": self._moments,
                "global_metrics": of_head,
                "candidate_metrics": of_candidate,
                "personalized_metrics": own,
                "accuracy": accuracy,
                "rows": ROWS_PER_MINUTE,
                "rows_labelled": ROWS_PER_MINUTE,
                "rows_pseudo_labelled": 0,
                "label_source": "label",
                "input_partition": fleet.partition,
                "first_offset": rows.offset[:, 0],
                "last_offset": rows.offset[:, -1],
                "offset_sum": rows.offset.sum(axis=1),
                "window_start": Times(rows.time_ms[:, 0]),
                "window_end": Times(rows.time_ms[:, -1]),
                "closed_by": "time",
                "learning_rate": fleet.learning_rate,
                "hyperparameters_revision": control.revision,
                "trial": trials[fleet.cohorts(minute)].tolist(),
                "timestamp": Times(sent),
            },
        )

    def _add_up(
        self, version: int, rows: Rows, correctness: Floats, is_accepted: np.ndarray
    ) -> None:
        counts = [each[is_accepted].sum() for each in _counts(rows, correctness)]
        loss = log_loss(correctness[is_accepted]).sum()
        number = int(is_accepted.sum()) * ROWS_PER_MINUTE
        added = [number, float(loss), *map(int, counts)]
        known = self.sums.get(version, [0] * len(added))
        self.sums[version] = [a + b for a, b in zip(known, added, strict=True)]

    def _readings(self, minute: int, rows: Rows, likely: Floats, version: int, slots: int) -> None:
        """Write the anomalous rows of a minute, and the first row in each of its first slots."""
        fleet = self._fleet
        slot = (rows.time_ms - fleet.at_ms(minute)) // SLOT_MS
        is_first = np.diff(slot, axis=1, prepend=-1) > 0
        is_sample = is_first & (slot < slots)
        device, at = np.nonzero(rows.is_anomalous | is_sample)
        is_anomalous = rows.is_anomalous[device, at]
        z_score = fleet.z_scores(minute, is_anomalous, device)
        time_ms = rows.time_ms[device, at]
        values = fleet.values(time_ms, device, z_score)
        columns = {
            "kafka_partition": fleet.partition[device],
            "kafka_offset": rows.offset[device, at],
            "event_time": time_ms,
            "device": device,
            "label": rows.label[device, at],
            "probability": likely[device, at] if version else np.full(len(device), np.nan),
            "model_version": np.full(len(device), version),
        }
        self._anomalies(
            {name: each[is_anomalous] for name, each in columns.items()},
            values[is_anomalous],
            z_score[is_anomalous],
        )
        sampled = is_sample[device, at]
        self._samples(
            {name: each[sampled] for name, each in columns.items()},
            values[sampled],
            is_anomalous[sampled],
        )

    def _anomalies(self, of_row: dict[str, Integers], values: Floats, z_score: Floats) -> None:
        device = of_row.pop("device")
        if not len(device):
            return
        beyond = np.where(np.isnan(values), 0.0, np.abs(z_score))
        largest = beyond.argmax(axis=1)
        rows = np.arange(len(device))
        score = z_score[rows, largest]
        assert bool((np.abs(score) > Z_THRESHOLD).all())  # noqa: S101 - holds by `z_scores`
        feature = [FEATURES[each] for each in largest.tolist()]
        copy_columns(
            self._cursor,
            "anomalies",
            {
                **of_row,
                "event_time": Times(of_row["event_time"]),
                "device_id": [self._fleet.names[each] for each in device.tolist()],
                "feature": feature,
                "value": values[rows, largest].round(3),
                "z_score": score.round(4),
                "features": [
                    f'{{"{name}":{each:.4f}}}'
                    for name, each in zip(feature, score.tolist(), strict=True)
                ],
            },
        )

    def _samples(
        self, of_row: dict[str, Integers], values: Floats, is_anomalous: np.ndarray
    ) -> None:
        device = of_row.pop("device")
        if not len(device):
            return
        time_ms = of_row["event_time"]
        copy_columns(
            self._cursor,
            "device_samples",
            {
                **of_row,
                "event_time": Times(time_ms),
                "device_id": [self._fleet.names[each] for each in device.tolist()],
                "slot_start": Times(time_ms // SLOT_MS * SLOT_MS),
                "features": readings_json(self._fleet.character.kind[device], values),
                "is_anomalous": is_anomalous,
            },
        )


class _Window:
    """Sums of each device's rows in a window."""

    def __init__(self, fleet: Fleet) -> None:
        self.rows = np.zeros(len(fleet), np.int64)
        self.anomalies = np.zeros(len(fleet), np.int64)
        self.positives = np.zeros(len(fleet), np.int64)
        self.correct = np.zeros(len(fleet), np.int64)
        self.probability_sum = np.zeros(len(fleet))

    def add(
        self, rows: Rows, correctness: Floats, likely: Floats, inside: np.ndarray | slice
    ) -> None:
        mask = np.zeros(rows.label.shape, np.bool_)
        mask[inside] = True
        self.rows += mask.sum(axis=1)
        self.anomalies += (rows.is_anomalous & mask).sum(axis=1)
        self.positives += ((likely >= THRESHOLD) & mask).sum(axis=1)
        self.correct += ((correctness > 0) & mask).sum(axis=1)
        self.probability_sum += np.where(mask, likely, 0.0).sum(axis=1)


def readings_json(kind: Integers, values: Floats) -> list[str]:
    """Return readings of devices as documents, each with the features of its kind."""
    documents = np.empty(len(kind), object)
    for number in range(len(KINDS)):
        rows = np.flatnonzero(kind == number)
        features = kind_features(number)
        names = [FEATURES[index] for index in features]
        form = "{" + ",".join(f'"{name}":%.{DECIMALS[name]}f' for name in names) + "}"
        documents[rows] = [form % tuple(each) for each in values[rows][:, features].tolist()]
    return documents.tolist()


def _counts(rows: Rows, correctness: Floats) -> tuple[Integers, Integers, Integers, Integers]:
    """Return tp, fp, tn and fn of each device."""
    is_right, is_positive = correctness > 0, rows.label == 1
    return (
        (is_right & is_positive).sum(axis=1),
        (~is_right & ~is_positive).sum(axis=1),
        (is_right & ~is_positive).sum(axis=1),
        (~is_right & is_positive).sum(axis=1),
    )


def _metrics(rows: Rows, correctness: Floats, version: int) -> tuple[list[str], Floats]:
    """Return the metrics of a version on each device as documents, and its accuracy."""
    tp, fp, tn, fn = _counts(rows, correctness)
    accuracy = (tp + tn) / ROWS_PER_MINUTE
    if not version:
        return [NULL] * len(tp), accuracy
    loss = log_loss(correctness).sum(axis=1)
    form = (
        f'{{"version":{version},"rows":{ROWS_PER_MINUTE},"log_loss_sum":%r,'
        '"tp":%d,"fp":%d,"tn":%d,"fn":%d}'
    )
    columns: Iterator[tuple[float, ...]] = zip(
        loss.tolist(), tp.tolist(), fp.tolist(), tn.tolist(), fn.tolist(), strict=True
    )
    return [form % each for each in columns], accuracy
