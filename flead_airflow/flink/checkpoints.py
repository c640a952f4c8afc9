"""Checkpoints and savepoints on a file system that this machine shares with Flink.

A JobManager that was restarted has forgotten its jobs, but not their files:
`<checkpoints>/<job id>/chk-<number>` and `<savepoints>/savepoint-<6 digits of the id>-<random>`,
each with a file `_metadata` once it is complete.
"""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

CHECKPOINT: Final = re.compile(r"chk-(\d+)")
METADATA: Final = "_metadata"


def newest_retained_state(
    checkpoint_directory: str, savepoint_directory: str | None, job_id: str
) -> str | None:
    """Return what a job should continue from: the newest complete checkpoint or savepoint of it.

    Parameters
    ----------
    checkpoint_directory, savepoint_directory : str
        `execution.checkpointing.dir` and `.savepoint-dir` of the cluster: paths or `file:` URIs.
    job_id : str
        32 hex digits.

    Returns
    -------
    str or None
        A `file:` URI; None when nothing is retained.

    Raises
    ------
    ValueError
        When a directory is on another file system.
    """
    checkpoints = {
        int(number[1]): metadata
        for metadata in (_local(checkpoint_directory) / job_id).glob(f"chk-*/{METADATA}")
        if (number := CHECKPOINT.fullmatch(metadata.parent.name))
    }
    complete = [checkpoints[max(checkpoints)]] if checkpoints else []
    if savepoint_directory is not None:
        complete += _local(savepoint_directory).glob(f"savepoint-{job_id[:6]}-*/{METADATA}")
    newest = max(complete, key=lambda metadata: metadata.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent.as_uri()


def _local(directory: str) -> Path:
    address = urlsplit(directory)
    if address.scheme not in {"", "file"}:
        raise ValueError(
            f"cannot look for checkpoints in {directory}: it is not on this machine's file system"
        )
    return Path(unquote(address.path))
