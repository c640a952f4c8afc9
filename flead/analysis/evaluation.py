"""Rows of an evaluation scored by several versions at once, summed up for each device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flead.analysis.figures import BINS, Counts, Mask, bins_of, roc_auc
from flead.analysis.scoring import inputs_of, log_odds_of, moments_of
from flead.analysis.telemetry import batch_of, in_order
from flead.contracts.messages import GlobalModel, Moments
from flead.contracts.schema import ROLLING_ROWS, feature_schema, input_names
from flead.features.rows import Floats, Integers, ShortIntegers
from flead.learning.fleet import PublishedModel
from flead.learning.metrics import THRESHOLD
from flead.learning.scoring import probability
from flead.learning.zscore import is_anomalous

COUNTS: Final = Counts._fields
_BINS: Final = pa.list_(pa.float64())
_SAMPLE: Final = pa.struct(
    [
        pa.field("kafka_partition", pa.int32()),
        pa.field("kafka_offset", pa.int64()),
        pa.field("event_time", pa.int64()),
        pa.field("prediction", pa.float64()),
        pa.field("actual", pa.int8()),
    ]
)

DEVICES: Final = pa.schema(
    [
        ("device_id", pa.string()),
        ("model_version", pa.int64()),
        ("rows", pa.int64()),
        ("history_rows", pa.int64()),
        ("first_timestamp", pa.timestamp("us", tz="UTC")),
        ("last_timestamp", pa.timestamp("us", tz="UTC")),
        *((name, pa.int64()) for name in COUNTS),
        *((f"zscore_{name}", pa.int64()) for name in COUNTS),
        ("log_loss_sum", pa.float64()),
        ("brier_sum", pa.float64()),
        ("error_sum", pa.float64()),
        ("confidence_sum", pa.float64()),
        ("roc_auc", pa.float64()),
        ("calibration_count", _BINS),
        ("calibration_probability_sum", _BINS),
        ("calibration_positives", _BINS),
        ("samples", pa.list_(_SAMPLE)),
        ("log_odds", pa.list_(pa.float64())),
        ("positive", pa.list_(pa.bool_())),
    ]
)
"""One row a device and version; the last two columns are its labelled rows, for the fleet's AUC."""

FLEET: Final = pa.schema([("model_version", pa.int64()), ("roc_auc", pa.float64())])


class UnusableModelError(Exception):
    """A version cannot be scored; the message names it and what is wrong."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What all devices of an evaluation are scored with.

    `start_offsets` is where the window begins in each partition; what lies before is history.
    `models` are of one feature list, the newest last: that one's predictions are sampled,
    `sampled_rows` of each device. `moments` are the newest of each device before the window.
    """

    features: list[str]
    models: list[PublishedModel]
    start_offsets: Mapping[int, int]
    moments: Mapping[str, Moments]
    sampled_rows: int


def usable(model: GlobalModel, schema: str) -> PublishedModel:
    """Return a stored model as arrays, if it has what an evaluation of this schema needs.

    Raises
    ------
    UnusableModelError
        It is of another feature list, has a wrong number of weights, or one that is not finite.
    """
    name, inputs = f"version {model.version}", len(input_names(model.feature_names))
    if {model.feature_schema, feature_schema(model.feature_names)} != {schema}:
        raise UnusableModelError(
            f"{name} is of feature schema {model.feature_schema} with the features"
            f" {model.feature_names}, not of {schema} as this evaluation"
        )
    moments = model.standardizer
    arrays = (model.weights, moments.count, moments.mean, moments.m2)
    if set(map(len, arrays)) != {inputs}:
        raise UnusableModelError(
            f"{name} has {len(model.weights)} weights and a standardizer of"
            f" {len(moments.count)}, {len(moments.mean)} and {len(moments.m2)} for {inputs} inputs:"
            " restore the row of federated_models from the version's artifact"
        )
    published = PublishedModel.of(model)
    if not (np.isfinite(published.weights).all() and np.isfinite(published.prior).all()):
        raise UnusableModelError(
            f"{name} has weights or moments that are not finite: restore the row of"
            " federated_models from the version's artifact"
        )
    return published


def evaluate_devices(rows: pa.Table, scoring: Scoring) -> pa.Table:
    """Score the rows of some devices by every version.

    Parameters
    ----------
    rows
        All rows of these devices from the beginning of the warm-up to the end of the window, with
        the columns `flead.analysis.telemetry.ROWS`, in any order.

    Returns
    -------
    A row for each device with rows in the window, and version, with the columns `DEVICES`.
    """
    table = in_order(rows)
    batch, number = batch_of(table, scoring.features)
    first = np.zeros(max(scoring.start_offsets) + 1, np.int64)
    first[list(scoring.start_offsets)] = list(scoring.start_offsets.values())
    inside = batch.offset >= first[batch.partition]
    if not inside.any():
        return DEVICES.empty_table()
    window = batch.select(inside)
    inputs = np.ascontiguousarray(inputs_of(batch)[inside])
    device = window.device_index.astype(np.int64)
    moments = moments_of(window.devices, scoring.moments, inputs.shape[1])
    by_device = _Rows(device, window.label, len(window.devices))
    timestamps = table["kafka_timestamp"].take(pa.array(number[inside]))
    before = np.bincount(batch.device_index[~inside], minlength=len(batch.devices)).tolist()
    history = dict(zip(batch.devices, before, strict=True))
    of_device = {
        "device_id": pa.array(window.devices, pa.string()),
        "rows": pa.array(np.bincount(device, minlength=by_device.devices)),
        "history_rows": pa.array([min(history[name], ROLLING_ROWS) for name in window.devices]),
        "first_timestamp": _extremes(timestamps, device, "min"),
        "last_timestamp": _extremes(timestamps, device, "max"),
        **{
            f"zscore_{name}": pa.array(count)
            for name, count in by_device.counts(is_anomalous(inputs)).items()
        },
    }
    sampled = by_device.sample(window.partition, window.offset, scoring.sampled_rows)
    tables = []
    for model in scoring.models:
        logits = log_odds_of(inputs, device, moments, model)
        samples = np.empty(0, np.int64) if model is not scoring.models[-1] else sampled
        sure = probability(logits)
        columns = of_device | by_device.figures(logits, sure)
        columns["model_version"] = pa.array(np.full(by_device.devices, model.version))
        columns["samples"] = _lists(
            device[samples],
            by_device.devices,
            pa.StructArray.from_arrays(
                [
                    pa.array(window.partition[samples]),
                    pa.array(window.offset[samples]),
                    pa.array(window.event_time[samples]),
                    pa.array(sure[samples]),
                    pa.array(window.label[samples].astype(np.int8)),
                ],
                fields=list(_SAMPLE),
            ),
        )
        tables.append(pa.table([columns[name] for name in DEVICES.names], schema=DEVICES))
    return pa.concat_tables(tables)


def fleet_roc_auc(devices: pa.Table) -> pa.Table:
    """Return the area under the ROC curve of versions over the labelled rows of all devices.

    Parameters
    ----------
    devices
        With the columns `model_version`, `log_odds` and `positive` of `DEVICES`.

    Returns
    -------
    With the columns `FLEET`; the area is null where the rows are of one class.
    """
    version = devices["model_version"].combine_chunks()
    table = devices.combine_chunks()
    lengths = pc.list_value_length(table["log_odds"]).to_numpy()
    versions, group = np.unique(version.to_numpy(), return_inverse=True)
    areas = roc_auc(
        pc.list_flatten(table["log_odds"]).to_numpy(),
        pc.list_flatten(table["positive"]).to_numpy(),
        np.repeat(group, lengths),
        len(versions),
    )
    return pa.table([pa.array(versions), pa.array(areas, from_pandas=True)], schema=FLEET)


class _Rows:
    """Rows of a window by device, of which those with a label are summed up."""

    def __init__(self, device: Integers, label: Floats, devices: int) -> None:
        self.devices = devices
        self._labelled = np.flatnonzero(~np.isnan(label))
        self._device = device[self._labelled]
        self._truth = label[self._labelled]
        self._positive = self._truth == 1.0

    def counts(self, predicted: Mask) -> dict[str, Integers]:
        """Count the labelled rows of each device by what they are and were called."""
        said = predicted[self._labelled]
        cells = (
            said & self._positive,
            said & ~self._positive,
            ~said & ~self._positive,
            ~said & self._positive,
        )
        return {
            name: np.bincount(self._device[cell], minlength=self.devices)
            for name, cell in zip(COUNTS, cells, strict=True)
        }

    def figures(self, logits: Floats, sure: Floats) -> dict[str, pa.Array]:
        """Return what a version comes to on each device, as the columns of `DEVICES`."""
        score, chance, truth = logits[self._labelled], sure[self._labelled], self._truth
        # ln(1 + exp(z)) - y z: exact for sure predictions too, as in training.
        log_loss = np.logaddexp(0.0, score) - truth * score
        error = np.abs(truth - chance)
        sums = {
            "log_loss_sum": log_loss,
            "brier_sum": error * error,
            "error_sum": error,
            "confidence_sum": np.abs(2.0 * chance - 1.0),
        }
        place = self._device * BINS + bins_of(chance)
        calibration = {
            "calibration_count": np.ones(len(place)),
            "calibration_probability_sum": chance,
            "calibration_positives": truth,
        }
        return {
            **{name: pa.array(count) for name, count in self.counts(sure >= THRESHOLD).items()},
            **{
                name: pa.array(np.bincount(self._device, value, self.devices))
                for name, value in sums.items()
            },
            "roc_auc": pa.array(
                roc_auc(score, self._positive, self._device, self.devices), from_pandas=True
            ),
            **{
                name: _bins(np.bincount(place, value, self.devices * BINS).astype(np.float64))
                for name, value in calibration.items()
            },
            "log_odds": _lists(self._device, self.devices, pa.array(score)),
            "positive": _lists(self._device, self.devices, pa.array(self._positive)),
        }

    def sample(self, partition: ShortIntegers, offset: Integers, rows: int) -> Integers:
        """Return the numbers of `rows` labelled rows of each device, chosen by their position."""
        mixed = _mix(partition[self._labelled], offset[self._labelled])
        order = np.lexsort((mixed, self._device))
        rank = np.arange(len(order)) - np.searchsorted(self._device, self._device[order])
        return self._labelled[np.sort(order[rank < rows])]


def _mix(partition: ShortIntegers, offset: Integers) -> NDArray[np.uint64]:
    """Hash positions, by the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = (offset.astype(np.uint64) << np.uint64(12)) ^ partition.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _lists(device: Integers, devices: int, values: pa.Array) -> pa.Array:
    """Make a list for each device of values that are in the order of devices."""
    offsets = np.searchsorted(device, np.arange(devices + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _bins(values: Floats) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, BINS)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _extremes(times: pa.ChunkedArray, device: Integers, extreme: str) -> pa.Array:
    """Return the smallest or largest time of each device; rows are in the order of devices."""
    grouped = pa.table({"device": pa.array(device), "time": times}).group_by("device")
    found = grouped.aggregate([("time", extreme)]).sort_by("device")
    return found[f"time_{extreme}"].combine_chunks()
