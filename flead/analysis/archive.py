"""The raw archive: rows as Parquet files, in a folder for each UTC day of `event_time`.

`ARCHIVE/day=YYYY-MM-DD/<writer>-<bucket>.parquet`, where the writer is one batch of the stream: a
batch that is repeated writes the same files again.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

PREFIX = "day="


def write_rows(uri: str, writer: str, bucket: int, rows: pa.Table) -> dict[date, int]:
    """Write the rows of one bucket of a batch, a file for each day.

    Parameters
    ----------
    rows
        With the columns `flead.analysis.telemetry.ROWS`.

    Returns
    -------
    dict
        Rows of each day.
    """
    day = rows["event_time"].cast(pa.date32(), safe=False)
    counts: dict[date, int] = {}
    for each in pc.unique(day).to_pylist():
        mine = rows.filter(pc.equal(day, each))
        write_file(day_folder(uri, each), f"{writer}-{bucket}.parquet", mine)
        counts[each] = mine.num_rows
    return counts


def write_file(folder: str, name: str, table: pa.Table) -> None:
    """Write a Parquet file into a folder, given as a URI; nobody sees half of it."""
    filesystem, path = fs.FileSystem.from_uri(folder)
    filesystem.create_dir(path, recursive=True)
    hidden = f"{path}/_{name}"
    pq.write_table(table, hidden, filesystem=filesystem, compression="zstd")
    filesystem.move(hidden, f"{path}/{name}")


def day_folder(uri: str, day: date) -> str:
    """Return the URI of the folder of a day."""
    return f"{uri}/{PREFIX}{day.isoformat()}"


def days(uri: str) -> list[date]:
    """Return the days that have a folder, in order."""
    return sorted(day for day, _ in _folders(uri))


def day_files(uri: str, day: date) -> list[str]:
    """Return the paths of a day's files on the file system of `uri`, in order."""
    filesystem, path = fs.FileSystem.from_uri(day_folder(uri, day))
    return sorted(each.path for each in _files(filesystem, path))


def remove_writer(uri: str, writer: str) -> int:
    """Remove what a batch has written; returns how many files that were."""
    filesystem, _ = fs.FileSystem.from_uri(uri)
    removed = 0
    for _, path in _folders(uri):
        for each in _files(filesystem, path):
            if each.base_name.rpartition("-")[0] == writer:
                filesystem.delete_file(each.path)
                removed += 1
    return removed


def expire(uri: str, now: datetime, keep: timedelta) -> int:
    """Remove files that were written longer than `keep` ago; returns how many.

    Their age counts, not the day of their rows: a data set of another year may be replayed today.
    """
    filesystem, _ = fs.FileSystem.from_uri(uri)
    expired = 0
    for _, path in _folders(uri):
        files = list(_files(filesystem, path))
        old = [each for each in files if each.mtime.astimezone(UTC) < now - keep]
        for each in old:
            filesystem.delete_file(each.path)
        if len(old) == len(files):
            filesystem.delete_dir(path)
        expired += len(old)
    return expired


def _folders(uri: str) -> Iterator[tuple[date, str]]:
    filesystem, root = fs.FileSystem.from_uri(uri)
    for each in filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True)):
        if each.type == fs.FileType.Directory and each.base_name.startswith(PREFIX):
            yield date.fromisoformat(each.base_name.removeprefix(PREFIX)), each.path


def _files(filesystem: fs.FileSystem, path: str) -> Iterator[fs.FileInfo]:
    for each in filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        # Spark, too, takes no notice of files whose names begin so.
        is_hidden = each.base_name.startswith("_")
        if each.type == fs.FileType.File and each.extension == "parquet" and not is_hidden:
            yield each
