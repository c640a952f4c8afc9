"""Retained checkpoints on a file system that this machine shares with Flink."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

NAME: Final = re.compile(r"chk-(\d+)")


def newest_retained_checkpoint(directory: str, job_id: str) -> str | None:
    """Return the newest complete checkpoint of a job, None when there is none.

    A JobManager that was restarted has forgotten its jobs, but not their files:
    `<directory>/<job_id>/chk-<N>`, of which a complete one holds `_metadata`.

    Parameters
    ----------
    directory : str
        `execution.checkpointing.dir` of the cluster: a path or a `file:` URI.
    job_id : str
        32 hex digits.

    Raises
    ------
    ValueError
        When the directory is on another file system.
    """
    address = urlsplit(directory)
    if address.scheme not in {"", "file"}:
        raise ValueError(
            f"cannot look for checkpoints in {directory}: it is not on this machine's file system"
        )
    folder = Path(unquote(address.path)) / job_id
    complete = [metadata.parent for metadata in folder.glob("chk-*/_metadata")]
    numbered = {int(match[1]): path for path in complete if (match := NAME.fullmatch(path.name))}
    return numbered[max(numbered)].as_uri() if numbered else None
