"""Where a job left its state: its newest checkpoint or savepoint.

Flink knows it while it knows the job. A JobManager that was restarted has forgotten its jobs, but
not their files: `<checkpoints>/<job id>/chk-<number>` and
`<savepoints>/savepoint-<6 digits of the id>-<random>`, each with a file `_metadata` once it is
complete. They can be looked for on a file system that this machine shares with Flink.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from flead_airflow.flink.errors import FlinkJobNotFoundError, FlinkStateError

if TYPE_CHECKING:  # files are looked through without Airflow, too
    from flead_airflow.flink.hook import FlinkRestHook

CHECKPOINT_DIRECTORY: Final = "execution.checkpointing.dir"
SAVEPOINT_DIRECTORY: Final = "execution.checkpointing.savepoint-dir"
DEPRECATED: Final = {
    CHECKPOINT_DIRECTORY: "state.checkpoints.dir",
    SAVEPOINT_DIRECTORY: "state.savepoints.dir",
}
CHECKPOINT: Final = re.compile(r"chk-(\d+)")
METADATA: Final = "_metadata"


@dataclass(frozen=True, slots=True)
class StateDirectories:
    """Where a cluster keeps checkpoints and savepoints: paths or URIs of any file system."""

    checkpoints: str
    savepoints: str

    @classmethod
    def of(cls, configuration: Mapping[str, str]) -> "StateDirectories":
        """Read them from the configuration of a JobManager.

        Raises
        ------
        FlinkStateError
            Names the setting that is missing.
        """

        def directory(setting: str) -> str:
            found = configuration.get(setting) or configuration.get(DEPRECATED[setting])
            if not found:
                raise FlinkStateError(
                    f"the Flink cluster does not set `{setting}`, without which no job can continue"
                    " from the state of another: set it in Flink's configuration, to a directory"
                    " that all its processes share, and restart the cluster"
                )
            return found

        return cls(directory(CHECKPOINT_DIRECTORY), directory(SAVEPOINT_DIRECTORY))


def newest_state(hook: "FlinkRestHook", directories: StateDirectories, job_id: str) -> str | None:
    """Return what a job should continue from: its newest complete checkpoint or savepoint.

    Parameters
    ----------
    job_id : str
        32 hex digits.

    Returns
    -------
    str or None
        A URI of the cluster; None when the job left nothing.

    Raises
    ------
    FlinkStateError
        When Flink has forgotten the job and its directories are not on this machine.
    """
    try:
        latest = hook.settled_checkpoints(job_id).latest
    except FlinkJobNotFoundError:
        return newest_retained_state(directories, job_id)
    complete = [each for each in (latest.completed, latest.savepoint) if each]
    retained = [each for each in complete if not each.discarded]
    if retained:
        return max(retained, key=lambda each: each.trigger_timestamp).external_path
    # a JobManager that took over from another counts anew
    return latest.restored.external_path if latest.restored else None


def newest_retained_state(directories: StateDirectories, job_id: str) -> str | None:
    """Return the same by looking at the files; a `file:` URI.

    Raises
    ------
    FlinkStateError
        When a directory is on another file system.
    """
    checkpoints = {
        int(number[1]): metadata
        for metadata in _entries(
            CHECKPOINT_DIRECTORY, directories.checkpoints, job_id, f"{job_id}/chk-*/{METADATA}"
        )
        if (number := CHECKPOINT.fullmatch(metadata.parent.name))
    }
    complete = [checkpoints[max(checkpoints)]] if checkpoints else []
    complete += _entries(
        SAVEPOINT_DIRECTORY,
        directories.savepoints,
        job_id,
        f"savepoint-{job_id[:6]}-*/{METADATA}",
    )
    newest = max(complete, key=lambda metadata: metadata.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent.as_uri()


def _entries(setting: str, directory: str, job_id: str, pattern: str) -> list[Path]:
    address = urlsplit(directory)
    if address.scheme not in {"", "file"}:
        raise FlinkStateError(
            f"Flink has forgotten job {job_id}, and its `{setting}` is {directory}, which cannot be"
            " looked through from here: give the JobManager high availability, so that it remembers"
            " its jobs, or deploy `fresh`"
        )
    return list(Path(unquote(address.path)).glob(pattern))
