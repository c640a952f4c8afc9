"""Files of global models, each written whole or not at all."""

import logging
import os
import tempfile
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Final

NAME: Final = "global-model-"

logger = logging.getLogger(__name__)


def artifact_path(folder: str | Path, version: int) -> Path:
    """Return where the model of a version is kept."""
    return Path(folder).resolve() / f"{NAME}{version:08d}.json"


def write_artifact(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, and survives power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Others read models: the dashboards, and jobs of other accounts.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_artifacts(folder: str | Path, named: Collection[str], before: datetime) -> int:
    """Remove artifacts that no stored version names, and what crashes have left half written.

    Parameters
    ----------
    named
        Paths of the stored versions.
    before
        Files that were written later stay: an artifact is written before its version is committed.

    Returns
    -------
    int
        How many files were removed.
    """
    found = [*Path(folder).resolve().glob(f"{NAME}*.json"), *Path(folder).glob(f".{NAME}*")]
    removed = 0
    for path in found:
        if str(path) not in named and path.stat().st_mtime < before.timestamp():
            path.unlink(missing_ok=True)
            removed += 1
    logger.info("Removed %s artifacts in %s", removed, folder)
    return removed
