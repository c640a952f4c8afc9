"""The analysis of a UTC day: from rows of many devices to one result a device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flead.analysis.drift import drift_of
from flead.analysis.scoring import inputs_of, log_odds_of, moments_of
from flead.analysis.statistics import FeatureStatistics, describe
from flead.analysis.telemetry import ROWS, TIME, batch_of, in_order
from flead.contracts.messages import Moments
from flead.features.rows import Floats, Integers, RowBatch
from flead.learning.fleet import PublishedModel
from flead.learning.metrics import THRESHOLD
from flead.learning.scoring import probability
from flead.learning.zscore import is_anomalous

DAY_ROWS: Final = ROWS.append(pa.field("in_day", pa.bool_(), nullable=False))
"""Rows of a day, and those of other days before them that their inputs depend on."""

KNOWN: Final = pa.schema(
    [
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("moments", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("days_before", pa.list_(pa.string()), nullable=False),
    ]
)
"""What is known of a device before the day, as JSON: its newest moments of each feature schema, and
its `feature_statistics` of earlier days."""

RESULTS: Final = pa.schema(
    [
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("row_count", pa.int64(), nullable=False),
        pa.field("rows_labelled", pa.int64(), nullable=False),
        pa.field("first_event_time", TIME, nullable=False),
        pa.field("last_event_time", TIME, nullable=False),
        pa.field("scored_rows", pa.int64(), nullable=False),
        pa.field("anomaly_count", pa.int64()),
        pa.field("reference_anomaly_count", pa.int64()),
        pa.field("zscore_anomaly_count", pa.int64(), nullable=False),
        pa.field("feature_statistics", pa.string(), nullable=False),
        pa.field("drift", pa.float64()),
        pa.field("feature_drift", pa.string(), nullable=False),
    ]
)

UNSCORED: Final = -1

Statistics = dict[str, FeatureStatistics]

_MOMENTS: Final = msgspec.json.Decoder(Moments)
_STATISTICS: Final = msgspec.json.Decoder(Statistics)


@dataclass(frozen=True)
class NamedModel:
    """A global model and the features that it is of."""

    features: list[str]
    published: PublishedModel


@dataclass(frozen=True)
class DayAnalysis:
    """Analyse the rows of some devices; either model may be missing."""

    model: NamedModel | None
    reference: NamedModel | None

    def __call__(self, rows: pa.Table, known: pa.Table) -> pa.Table:
        """Return the results of the devices that have a row on the day.

        Parameters
        ----------
        rows
            With the columns `DAY_ROWS`, all of these devices; repeated positions count once.
        known
            With the columns `KNOWN`, of these devices.

        Returns
        -------
        One row a device, with the columns `RESULTS`.
        """
        rows = _without_repeats(in_order(rows))
        in_day = rows["in_day"].to_numpy()
        if not in_day.any():
            return RESULTS.empty_table()
        before = {each["device_id"]: each for each in known.to_pylist()}
        inputs = _Inputs(rows.drop_columns("in_day"))
        every = sorted(set(pc.unique(_names(rows["features"])).to_pylist()))
        batch, far = inputs.batch(every), is_anomalous(inputs.of(every))
        by_model = _anomalies(self.model, inputs, before)
        by_reference = _anomalies(self.reference, inputs, before)
        results = []
        for name, mine in _rows_of_devices(batch, in_day):
            scored = int((by_model[mine] != UNSCORED).sum())
            declared = self.model.features if self.model and scored else ()
            earlier = _earlier(before.get(name))
            results.append(
                {
                    "device_id": name,
                    "row_count": len(mine),
                    "rows_labelled": int((~np.isnan(batch.label[mine])).sum()),
                    "first_event_time": int(batch.event_time[mine].min()) * 1000,
                    "last_event_time": int(batch.event_time[mine].max()) * 1000,
                    "scored_rows": scored,
                    "anomaly_count": _count(by_model[mine]),
                    "reference_anomaly_count": _count(by_reference[mine]),
                    "zscore_anomaly_count": int(far[mine].sum()),
                    **_of_features(every, declared, batch.values[mine], earlier),
                }
            )
        return pa.Table.from_pylist(results, schema=RESULTS)


class _Inputs:
    """Rows of some devices over feature lists, and their inputs, each list made once."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._made: dict[tuple[str, ...], tuple[RowBatch, Integers, Floats]] = {}

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def _make(self, features: Sequence[str]) -> tuple[RowBatch, Integers, Floats]:
        key = tuple(features)
        if key not in self._made:
            batch, number = batch_of(self._rows, features)
            self._made[key] = batch, number, inputs_of(batch)
        return self._made[key]

    def batch(self, features: Sequence[str]) -> RowBatch:
        """Return the rows that have no other features."""
        return self._make(features)[0]

    def numbers(self, features: Sequence[str]) -> Integers:
        """Return which of all rows those are."""
        return self._make(features)[1]

    def of(self, features: Sequence[str]) -> Floats:
        """Return their inputs, of shape (rows of these features, inputs)."""
        return self._make(features)[2]


def _without_repeats(rows: pa.Table) -> pa.Table:
    """Leave one row at each position, of rows in order: the archive and Kafka may both have it."""
    partition, offset = rows["kafka_partition"].to_numpy(), rows["kafka_offset"].to_numpy()
    again = (np.diff(partition, prepend=-1) == 0) & (np.diff(offset, prepend=-1) == 0)
    return rows.filter(pa.array(~again)) if again.any() else rows


def _names(features: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([chunk.keys for chunk in features.chunks])


def _anomalies(
    model: NamedModel | None, inputs: _Inputs, before: Mapping[str, Mapping[str, Any]]
) -> Integers:
    """Return 1 for an anomaly, 0 for none, `UNSCORED` for a row of other features."""
    found = np.full(len(inputs), UNSCORED)
    if model is None:
        return found
    batch, made = inputs.batch(model.features), inputs.of(model.features)
    stored = {
        name: dict(before[name]["moments"]).get(model.published.feature_schema)
        for name in batch.devices
        if name in before
    }
    known = {name: _MOMENTS.decode(text) for name, text in stored.items() if text}
    moments = moments_of(batch.devices, known, made.shape[1])
    odds = log_odds_of(made, batch.device_index.astype(np.int64), moments, model.published)
    found[inputs.numbers(model.features)] = probability(odds) >= THRESHOLD
    return found


def _count(anomalies: Integers) -> int | None:
    """Count anomalies; None where no row was scored."""
    return int((anomalies == 1).sum()) if (anomalies != UNSCORED).any() else None


def _rows_of_devices(batch: RowBatch, in_day: NDArray[np.bool_]) -> Iterator[tuple[str, Integers]]:
    """Yield the numbers of each device's rows on the day; the rows are in order of devices."""
    number = np.flatnonzero(in_day)
    device = batch.device_index[number]
    first = np.flatnonzero(np.diff(device, prepend=-1))
    for mine in np.split(number, first[1:]):
        yield batch.devices[batch.device_index[mine[0]]], mine


def _earlier(known: Mapping[str, Any] | None) -> list[Statistics]:
    return [_STATISTICS.decode(text) for text in known["days_before"]] if known else []


def _of_features(
    features: Sequence[str],
    declared: Sequence[str],
    values: Floats,
    earlier: Sequence[Statistics],
) -> dict[str, object]:
    """Describe every feature that has a value, had one on the days before, or is declared."""
    column = {name: values[:, number] for number, name in enumerate(features)}
    measured = {name for name, each in column.items() if not np.isnan(each).all()}
    missing = np.full(len(values), np.nan)
    statistics: Statistics = {}
    drift: dict[str, float | None] = {}
    for name in sorted(measured.union(declared, *earlier)):
        mine = column.get(name, missing)
        statistics[name] = describe(mine)
        drift[name] = drift_of(mine, [day[name] for day in earlier if name in day])
    distances = [distance for distance in drift.values() if distance is not None]
    return {
        "feature_statistics": msgspec.json.encode(statistics).decode(),
        "drift": max(distances, default=None),
        "feature_drift": msgspec.json.encode(drift).decode(),
    }
