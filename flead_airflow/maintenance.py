"""Old logs and old metadata of Airflow: what `dags/maintenance.py` removes besides the tables."""

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

CHECKED: Final = re.compile(r"^Checking table (\S+)\nFound (\d+) rows", re.MULTILINE)
SHOWN_LINES: Final = 20

logger = logging.getLogger(__name__)


class CleanError(Exception):
    """`airflow db clean` has failed; the message has the end of what it said."""


def clean_metadata(database_url: str, before: datetime) -> dict[str, int]:
    """Delete old rows of Airflow's metadata by `airflow db clean`, in a process of its own.

    Airflow takes its database away from task processes, so the command is given the address of one.
    It keeps the last scheduled run of each DAG, and what a row that stays refers to.

    Parameters
    ----------
    database_url
        Of Airflow's database: `postgresql://...`.

    Returns
    -------
    dict
        Rows that were deleted, by table; tables without any are left out.

    Raises
    ------
    CleanError
        When a table could not be cleaned.
    """
    ended = subprocess.run(
        [
            sys.executable, "-m", "airflow", "db", "clean",
            "--skip-archive", "--yes", "--error-on-cleanup-failure",
            "--clean-before-timestamp", before.isoformat(),
        ],
        env={
            # What marks a process as one of a task would refuse it the database.
            **{
                name: value
                for name, value in os.environ.items()
                if name != "_AIRFLOW_PROCESS_CONTEXT"
                and not name.startswith("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_")
            },
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace(
                "postgresql://", "postgresql+psycopg2://", 1
            ),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if ended.returncode:
        said = [*ended.stdout.splitlines(), *ended.stderr.splitlines()]
        raise CleanError(
            f"airflow db clean ended with {ended.returncode}:\n" + "\n".join(said[-SHOWN_LINES:])
        )
    found = {table: int(rows) for table, rows in CHECKED.findall(ended.stdout)}
    deleted = {table: rows for table, rows in found.items() if rows}
    logger.info("Deleted rows of Airflow's metadata before %s: %s", before, deleted)
    return deleted


def remove_files(folder: Path, before: datetime) -> int:
    """Remove the files below a folder that were written before, and folders that this leaves empty.

    Returns
    -------
    int
        How many files were removed.
    """
    limit = before.timestamp()
    # Their times are read first, for they change with each file that goes; a young one may be that
    # of a task which is about to write into it.
    old_folders = [
        Path(path)
        for path, _, _ in os.walk(folder)
        if Path(path) != folder and _written_at(Path(path)) < limit
    ]
    removed = 0
    for path, _, names in os.walk(folder):
        for file in (Path(path) / name for name in names):
            if _written_at(file) < limit:
                file.unlink(missing_ok=True)
                removed += 1
    for each in reversed(old_folders):
        # Not empty: something in it is young.
        with contextlib.suppress(OSError):
            each.rmdir()
    logger.info("Removed %s files below %s", removed, folder)
    return removed


def remove_applications(folder: Path, before: datetime) -> int:
    """Remove event logs of Spark of which no file was written since; returns how many.

    An application's log is a file or a folder of files; that of a running one is still written.
    """
    removed = 0
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if max(map(_written_at, _files(entry)), default=_written_at(entry)) < before.timestamp():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
            removed += 1
    logger.info("Removed event logs of %s applications in %s", removed, folder)
    return removed


def _files(entry: Path) -> Iterator[Path]:
    return entry.rglob("*") if entry.is_dir() else iter((entry,))


def _written_at(path: Path) -> float:
    """Return when a file was written, in seconds since the epoch; that of a link is its own."""
    return path.lstat().st_mtime
