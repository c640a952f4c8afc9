"""Sums of a device's rows in windows of event time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flead.analysis.telemetry import TIME
from flead.features.rows import Floats, Integers
from flead.learning.metrics import THRESHOLD

WINDOWS = pa.schema(
    [
        ("device_id", pa.string()),
        ("window_start", TIME),
        ("window_seconds", pa.int32()),
        ("row_count", pa.int64()),
        ("zscore_anomaly_count", pa.int64()),
        ("scored_rows", pa.int64()),
        ("anomaly_count", pa.int64()),
        ("probability_sum", pa.float64()),
        ("rows_labelled", pa.int64()),
        ("correct", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows as they were judged, arrays of shape (rows,).

    `device` is an index in `devices`, `event_time` in milliseconds since the epoch, `probability`
    nan where no model scored the row, `label` nan where it has none.
    """

    devices: Sequence[str]
    device: Integers
    event_time: Integers
    is_anomalous: NDArray[np.bool_]
    probability: Floats
    label: Floats

    def select(self, rows: NDArray[np.bool_]) -> "Judged":
        """Return the rows of a mask."""
        return Judged(
            self.devices,
            self.device[rows],
            self.event_time[rows],
            self.is_anomalous[rows],
            self.probability[rows],
            self.label[rows],
        )


def window_sums(rows: Judged, windows_seconds: Sequence[int]) -> pa.Table:
    """Sum up rows by device and window, for each length of a window.

    Windows begin at multiples of their length since the epoch. `anomaly_count` is of the rows with
    a probability of at least a half, null where none was scored. A row is correct when its label is
    1 just where it counts as an anomaly; only labelled rows that were scored count.

    Returns
    -------
    Table with the columns `WINDOWS`.
    """
    return pa.concat_tables(
        [WINDOWS.empty_table(), *(_sums(rows, seconds) for seconds in windows_seconds)]
    )


def _sums(rows: Judged, seconds: int) -> pa.Table:
    length = seconds * 1000
    start = rows.event_time - rows.event_time % length
    pairs = np.stack([rows.device, start])
    groups, group = np.unique(pairs, axis=1, return_inverse=True)
    group, count = group.ravel(), groups.shape[1]
    scored = ~np.isnan(rows.probability)
    labelled = scored & ~np.isnan(rows.label)
    positive = rows.probability >= THRESHOLD
    correct = labelled & (positive == (rows.label == 1.0))

    def how_many(mask: NDArray[np.bool_]) -> Integers:
        return np.bincount(group[mask], minlength=count)

    sums = np.bincount(group, np.where(scored, rows.probability, 0.0), count)
    scored_rows = how_many(scored)
    names = pa.array(rows.devices, pa.string())
    return pa.table(
        [
            names.take(pa.array(groups[0], pa.int64())),
            pa.array(groups[1] * 1000, pa.int64()).cast(TIME),
            pa.array(np.full(count, seconds, np.int32)),
            np.bincount(group, minlength=count),
            how_many(rows.is_anomalous),
            scored_rows,
            pa.array(how_many(scored & positive), mask=scored_rows == 0),
            sums,
            how_many(labelled),
            how_many(correct),
        ],
        schema=WINDOWS,
    )
