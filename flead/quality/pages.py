"""Where the Data Docs of runs lie: a folder for each below one directory."""

import re
import shutil
from pathlib import Path
from typing import Final

KEPT_RUNS: Final = 100
"""Pages of older runs are removed; their results stay in the database."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def folder_of(directory: Path, run: str) -> Path:
    """Return the folder of a run's pages.

    Raises
    ------
    ValueError
        The name of the run is no name of a folder.
    """
    if not _NAME.fullmatch(run):
        raise ValueError(f"{run!r} is no name for a folder")
    return directory / run


def runs(directory: Path) -> list[str]:
    """Return the runs whose pages are whole, those written last first."""
    if not directory.is_dir():
        return []
    folders = [
        path
        for path in directory.iterdir()
        if _NAME.fullmatch(path.name) and (path / "index.html").is_file()
    ]
    folders.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [path.name for path in folders]


def remove_old(directory: Path) -> None:
    """Remove the pages of all but the newest runs."""
    for run in runs(directory)[KEPT_RUNS:]:
        shutil.rmtree(directory / run, ignore_errors=True)
