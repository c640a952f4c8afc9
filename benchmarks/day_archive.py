"""A day of the simulated fleet in the archive, as the stream analysis would have left it.

Each of the simulator's groups of rows goes through the decoder of the stream and becomes a batch of
its own: at the fleet's rate that is half a minute of rows, the stream's usual batch.
"""

from datetime import date
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flead.analysis.archive import write_rows
from flead.analysis.telemetry import TIME, decode_messages, in_order
from flead.fleet.simulator import SimulatedRows, Simulator
from flead.storage.analysis_days import day_bounds

MINUTES = 24 * 60
ANOMALY_RATE = 0.02
PARTITIONS = 4


def write_day(uri: str, day: date, *, rows: int, devices: int, seed: int, buckets: int) -> None:
    """Archive `rows` rows that are spread over a UTC day; the same seed gives the same files.

    Parameters
    ----------
    buckets
        Files of a batch.
    """
    # A little faster than needed: jitter must move no row into the next day.
    rate = (rows + devices) / MINUTES
    start_ms = int(day_bounds(day)[0].timestamp() * 1000)
    simulator = Simulator(devices, rate, ANOMALY_RATE, seed, start_ms)
    offsets = np.zeros(PARTITIONS, np.int64)
    left = rows
    for number, batch in enumerate(simulator.batches()):
        group = batch[:left]
        decoded = pa.Table.from_batches([decode_messages(_messages(group, offsets))])
        bucket_of = {name: crc32(name.encode()) % buckets for name in group.device_names}
        of_row = np.array([bucket_of[name] for name in decoded["device_id"].to_pylist()])
        for bucket in range(buckets):
            mine = in_order(decoded.filter(pa.array(of_row == bucket)))
            write_rows(uri, f"simulated-{number}", bucket, mine)
        left -= len(group)
        if not left:
            return


def _messages(rows: SimulatedRows, offsets: NDArray[np.int64]) -> pa.RecordBatch:
    """Return rows as Spark reads them from Kafka; moves on the next offset of each partition."""
    keys, values = zip(*rows.encode(), strict=True)
    partition = rows.device_index % PARTITIONS
    offset = np.empty(len(rows), np.int64)
    for number in range(PARTITIONS):
        mine = partition == number
        offset[mine] = offsets[number] + np.arange(mine.sum())
        offsets[number] += mine.sum()
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array(keys, pa.binary()),
            "value": pa.array(values, pa.binary()),
            "partition": pa.array(partition),
            "offset": pa.array(offset),
            "timestamp": pa.array(rows.event_time * 1000).cast(TIME),
        }
    )
