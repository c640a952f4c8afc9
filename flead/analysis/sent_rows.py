"""Rows that devices have sent, read from Kafka between offsets, without Spark."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from flead.analysis.due import Offsets
from flead.analysis.telemetry import ROWS, decode_messages
from flead.contracts.topics import Topic
from flead.messaging.client import Properties
from flead.messaging.reading import Record, read_committed

CHUNK_MESSAGES: Final = 50_000

_MESSAGES: Final = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
    ]
)


def read_rows(kafka_properties: Properties, start: Offsets, end: Offsets) -> pa.Table:
    """Read the valid rows from `start` to before `end`, both of every partition.

    Returns
    -------
    With the columns `flead.analysis.telemetry.ROWS`, in the order in which they were read.
    """
    chunks = []
    position = dict(start)
    while any(position[partition] < last for partition, last in end.items()):
        reading = read_committed(kafka_properties, Topic.TELEMETRY, position, CHUNK_MESSAGES)
        chunks.append(decode_messages(_messages(reading.records)))
        if not reading.records:
            break
        position = reading.next_offsets
    return rows_between(pa.Table.from_batches(chunks, ROWS), start, end)


def rows_between(rows: pa.Table, start: Offsets, end: Offsets) -> pa.Table:
    """Return the rows from `start` to before `end`, both of every partition."""
    partition, offset = (rows[name].to_numpy() for name in ("kafka_partition", "kafka_offset"))
    first, last = (np.zeros(max(start) + 1, np.int64) for _ in range(2))
    first[list(start)] = list(start.values())
    last[list(end)] = list(end.values())
    return rows.filter(pa.array((offset >= first[partition]) & (offset < last[partition])))


def _messages(records: Sequence[Record]) -> pa.RecordBatch:
    columns = [
        [record.key for record in records],
        [record.value for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [record.timestamp for record in records],
    ]
    arrays = [pa.array(each, field.type) for each, field in zip(columns, _MESSAGES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_MESSAGES)
