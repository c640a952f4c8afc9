"""What the stream remembers of devices between batches: their last rows and newest times.

The inputs of a row need the `ROLLING_ROWS` rows before it. A tail holds those of the devices of one
bucket, with one column more: `newest_time`, the largest event time of the device. Rows of other
lists are kept beside them, since a model of another list may be promoted next.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from flead.analysis.telemetry import ROWS, TIME
from flead.contracts.schema import ROLLING_ROWS

TAIL = ROWS.append(pa.field("newest_time", TIME, nullable=False))


class HistoryLostError(Exception):
    """A file with the history of devices is missing or cannot be read."""


def bucket_of(device: str, buckets: int) -> int:
    """Return the bucket of a device, as Spark's `crc32(key) % buckets`."""
    return crc32(device.encode()) % buckets


def newest_times(rows: pa.Table) -> dict[str, int]:
    """Largest event time of each device in microseconds, none beyond the time that it was sent.

    A clock that runs ahead would otherwise make all later rows of its device late.

    Parameters
    ----------
    rows
        With the columns `ROWS`.
    """
    times = [rows[name].cast(pa.int64()) for name in ("event_time", "kafka_timestamp")]
    newest = pa.table({"device": rows["device_id"], "time": pc.min_element_wise(*times)})
    found = newest.group_by("device").aggregate([("time", "max")])
    return dict(zip(found["device"].to_pylist(), found["time_max"].to_pylist(), strict=True))


def known_times(tail: pa.Table) -> dict[str, int]:
    """Largest event time that a tail has of each device, in microseconds."""
    found = tail.group_by("device_id").aggregate([("newest_time", "max")])
    times = found["newest_time_max"].cast(pa.int64())
    return dict(zip(found["device_id"].to_pylist(), times.to_pylist(), strict=True))


def tail_of(
    rows: pa.Table, is_known: np.ndarray, times: Mapping[str, int], ttl: timedelta
) -> pa.Table:
    """Return the last `ROLLING_ROWS` rows of each device, of the feature list and of others.

    Parameters
    ----------
    rows
        The tail before and the rows since, with the columns `ROWS`, each device's in its order.
    is_known
        Whether each row is of the feature list.
    times
        Newest time of each device, in microseconds.
    ttl
        A device of which nothing was sent for longer than this is left out.
    """
    device = rows["device_id"].combine_chunks().dictionary_encode()
    group = device.indices.to_numpy(zero_copy_only=False).astype(np.int64) * 2 + is_known
    # Position from the end within each group.
    order = np.argsort(group, kind="stable")[::-1]
    sorted_group = group[order]
    first = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    starts = np.repeat(first, np.diff(np.append(first, len(order))))
    behind = np.empty(len(order), np.int64)
    behind[order] = np.arange(len(order)) - starts
    sent = rows["kafka_timestamp"].cast(pa.int64()).to_numpy()
    names = device.dictionary.to_pylist()
    last_sent = np.zeros(len(names), np.int64)
    np.maximum.at(last_sent, group // 2, sent)
    oldest = (sent.max() if len(sent) else 0) - ttl // timedelta(microseconds=1)
    kept = (behind < ROLLING_ROWS) & (last_sent >= oldest)[group // 2]
    tail = rows.filter(pa.array(kept))
    newest = np.array([times[name] for name in names], np.int64)[group[kept] // 2]
    return tail.append_column(TAIL.field("newest_time"), pa.array(newest).cast(TIME))


def read_tail(
    folder: str, tails: Mapping[str, Any] | None, bucket: int, buckets: int, *, may_lack: bool
) -> pa.Table:
    """Read what is known of the devices of a bucket, with the columns `TAIL`.

    Parameters
    ----------
    folder
        URI of the files.
    tails
        `{"buckets": number, "files": {"bucket": name}}` of the newest committed batch; another
        number of buckets is read, too. None: nothing is known.
    may_lack
        Whether a lost file stands for devices without a history.

    Raises
    ------
    HistoryLostError
        Names the file.
    """
    if tails is None:
        return TAIL.empty_table()
    files, same = dict(tails["files"]), tails["buckets"] == buckets
    names = [files[str(bucket)]] if same and str(bucket) in files else []
    tables = [_read(folder, name, may_lack) for name in (names if same else files.values())]
    if not tables:
        return TAIL.empty_table()
    tail = pa.concat_tables(tables)
    if same:
        return tail
    mine = [bucket_of(name, buckets) == bucket for name in tail["device_id"].to_pylist()]
    return tail.filter(pa.array(mine, pa.bool_()))


def _read(folder: str, name: str, may_lack: bool) -> pa.Table:
    filesystem, path = fs.FileSystem.from_uri(f"{folder}/{name}")
    try:
        return pq.read_table(path, filesystem=filesystem, schema=TAIL)
    except (OSError, pa.ArrowInvalid) as error:
        if may_lack:
            return TAIL.empty_table()
        raise HistoryLostError(
            f"{path}, which holds the history of devices, cannot be read ({error}): restore it, or"
            " deploy the stream with `fresh`, and devices begin without a history"
        ) from error


def remove_other_tails(folder: str, tails: Mapping[str, Any]) -> None:
    """Remove the files that are not named by `tails`."""
    filesystem, path = fs.FileSystem.from_uri(folder)
    kept = set(dict(tails["files"]).values())
    for each in filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        if each.base_name not in kept:
            filesystem.delete_file(each.path)
