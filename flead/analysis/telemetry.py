"""Kafka messages into the rows that are archived and analysed, as Arrow tables.

Unlike the training job's decoder, which knows the one feature list that it trains on, this one
takes rows of any features: a day's archive may hold those of several deployments.
"""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flead.analysis.validity import valid_row
from flead.contracts.messages import Telemetry
from flead.features.rows import Floats, Integers, RowBatch

TIME: Final = pa.timestamp("us", tz="UTC")

ROWS: Final = pa.schema(
    [
        pa.field("device_id", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("kafka_timestamp", TIME, nullable=False),
        pa.field("event_time", TIME, nullable=False),
        pa.field("label", pa.int8()),
        pa.field("attack_type", pa.string()),
        pa.field("features", pa.map_(pa.string(), pa.float64()), nullable=False),
    ]
)
"""Columns of valid rows: position and send time in Kafka, then what the device sent."""


def decode_messages(messages: pa.RecordBatch) -> pa.RecordBatch:
    """Decode messages of `edge-iiot-stream`; those that are no valid row are left out.

    They are dead letters of the training job. A row is valid here when it is for some feature list.

    Parameters
    ----------
    messages
        With the columns of Spark's Kafka source that are used: `key`, `value`, `partition`,
        `offset`, `timestamp`.

    Returns
    -------
    Rows with the columns `ROWS`, in the messages' order.
    """
    rows: list[Telemetry] = []
    kept: list[int] = []
    keys, values = messages["key"].to_pylist(), messages["value"].to_pylist()
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        if (row := valid_row(key, value)) is not None:
            rows.append(row)
            kept.append(number)
    return _table(rows, messages.take(pa.array(kept, pa.int64())))


def _table(rows: list[Telemetry], messages: pa.RecordBatch) -> pa.RecordBatch:
    def column(name: str) -> list[Any]:
        return list(map(attrgetter(name), rows))

    readings = column("features")
    offsets = np.cumsum([0, *map(len, readings)])
    features = pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.array(list(chain.from_iterable(readings)), pa.string()),
        pa.array(list(chain.from_iterable(each.values() for each in readings)), pa.float64()),
    )
    event_time = pa.array(np.array(column("event_time"), np.int64) * 1000)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(column("device_id"), pa.string()),
            messages["partition"].cast(pa.int32()),
            messages["offset"].cast(pa.int64()),
            messages["timestamp"].cast(TIME),
            event_time.cast(TIME),
            pa.array(column("label"), pa.int8()),
            pa.array(column("attack_type"), pa.string()),
            features,
        ],
        schema=ROWS,
    )


def in_order(rows: pa.Table) -> pa.Table:
    """Sort rows by device, and those of a device by their position in Kafka."""
    order = [("device_id", "ascending"), ("kafka_partition", "ascending")]
    return rows.sort_by([*order, ("kafka_offset", "ascending")])


def batch_of(rows: pa.Table, features: Sequence[str]) -> tuple[RowBatch, Integers]:
    """Turn rows into arrays over one feature list; rows with other features are left out.

    Parameters
    ----------
    rows
        With the columns `ROWS`, in the order of `in_order`.
    features
        The feature list of a model or deployment.

    Returns
    -------
    tuple
        The rows of this feature list, and their numbers in `rows`, of shape (rows,).
    """
    table = rows.combine_chunks()
    matrix, known = _matrix(table["features"], list(features))
    number = np.flatnonzero(known)
    table = table if known.all() else table.take(pa.array(number))
    device = table["device_id"].combine_chunks().dictionary_encode()
    milliseconds = table["event_time"].cast(pa.timestamp("ms", tz="UTC"), safe=False)
    batch = RowBatch(
        devices=device.dictionary.to_pylist(),
        device_index=device.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        partition=table["kafka_partition"].to_numpy().astype(np.int32),
        offset=table["kafka_offset"].to_numpy(),
        event_time=milliseconds.cast(pa.int64()).to_numpy(),
        label=table["label"].cast(pa.float64()).to_numpy(),
        values=matrix[number],
    )
    return batch, number


def _matrix(column: pa.ChunkedArray, features: list[str]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return values (rows, features), nan where missing, and which rows have no other feature."""
    maps = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = np.diff(maps.offsets.to_numpy())
    row = np.repeat(np.arange(len(maps)), lengths)
    begin, end = int(maps.offsets[0].as_py()), int(maps.offsets[-1].as_py())
    place = pc.index_in(maps.keys[begin:end], value_set=pa.array(features, pa.string()))
    place = place.fill_null(-1).to_numpy(zero_copy_only=False)
    value = maps.items[begin:end].to_numpy(zero_copy_only=False)
    known = np.ones(len(maps), np.bool_)
    known[row[place < 0]] = False
    matrix = np.full((len(maps), len(features)), np.nan)
    at = place >= 0
    matrix[row[at], place[at]] = value[at]
    return matrix, known
