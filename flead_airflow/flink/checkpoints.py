"""Where a job left its state: its newest checkpoint or savepoint.

Flink knows it while it knows the job. A JobManager that was restarted has forgotten its jobs, but
not their files: `<checkpoints>/<job id>/chk-<number>` and
`<savepoints>/savepoint-<6 digits of the id>-<random>`, each with a file `_metadata` once it is
complete. They can be looked for on a file system that this machine shares with Flink.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

    def hold_state_of(self, job_id: str, path: str) -> bool:
        """Tell whether a path is that of a checkpoint or savepoint of a job, here and not a copy.

        Two jobs whose ids begin with the same 6 digits cannot be told apart by a savepoint.
        """
        folder, _, name = _location(path).rpartition("/")
        if CHECKPOINT.fullmatch(name):
            return folder == f"{_location(self.checkpoints)}/{job_id}"
        is_of_job = name.startswith(f"savepoint-{job_id[:6]}-")
        return is_of_job and folder == _location(self.savepoints)


def newest_state(hook: "FlinkRestHook", directories: StateDirectories, job_id: str) -> str | None:
    """Return what a job should continue from: its newest complete checkpoint or savepoint.

    Parameters
    ----------
    job_id : str
        32 hex digits.

    Returns
    -------
    str or None
        A URI of the cluster. That of another job's state when the job was started from it and left
        nothing itself, which Flink tells only while it knows the job; else None.

    Raises
    ------
    FlinkStateError
        When Flink has forgotten the job and its directories cannot be read on this machine.
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


def is_same_state(one: str | None, other: str | None) -> bool:
    """Tell whether two paths are those of the same state, as people or Flink write them."""
    if one is None or other is None:
        return one is other
    first, second = urlsplit(one), urlsplit(other)
    if first.netloc and second.netloc and first.netloc != second.netloc:
        return False  # where one has none, it is that of the cluster's default, which Flink adds
    folders = {_folder(each.path).removesuffix(f"/{METADATA}") for each in (first, second)}
    return len(folders) == 1


def newest_retained_state(directories: StateDirectories, job_id: str) -> str | None:
    """Return the same by looking at the files; a `file:` URI.

    Nothing found means that the job left nothing: so the directory of checkpoints must be there,
    which Flink or whoever sets the cluster up has made. That of savepoints comes with the first.

    Raises
    ------
    FlinkStateError
        When a directory is on another file system, or cannot be read on this machine.
    """
    savepoints_root = _path(SAVEPOINT_DIRECTORY, directories.savepoints, job_id)
    checkpoints = _checkpoints(directories, job_id)
    with _reading(SAVEPOINT_DIRECTORY, directories.savepoints, job_id):
        savepoints = [
            folder / METADATA
            for folder in _entries(savepoints_root)
            if folder.name.startswith(f"savepoint-{job_id[:6]}-") and (folder / METADATA).is_file()
        ]
        complete = [checkpoints[max(checkpoints)]] if checkpoints else []
        complete += savepoints
        newest = max(complete, key=lambda metadata: metadata.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent.as_uri()


def retained_checkpoints(directories: StateDirectories, job_id: str) -> list[str]:
    """Return every complete checkpoint of a job that has ended, `file:` URIs, by the files.

    Raises
    ------
    FlinkStateError
        When the directory is on another file system, or cannot be read on this machine.
    """
    return [metadata.parent.as_uri() for metadata in _checkpoints(directories, job_id).values()]


def _checkpoints(directories: StateDirectories, job_id: str) -> dict[int, Path]:
    """Find the metadata of each complete checkpoint of a job, by its number."""
    root = _path(CHECKPOINT_DIRECTORY, directories.checkpoints, job_id)
    with _reading(CHECKPOINT_DIRECTORY, directories.checkpoints, job_id):
        next(root.iterdir(), None)
        return {
            int(number[1]): folder / METADATA
            for folder in _entries(root / job_id)
            if (number := CHECKPOINT.fullmatch(folder.name)) and (folder / METADATA).is_file()
        }


def _location(uri: str) -> str:
    """Return a URI as it is compared: Flink writes `file:/a`, others `file:///a` or `/a`."""
    address = urlsplit(uri)
    return f"{address.netloc}{_folder(address.path)}"


def _folder(path: str) -> str:
    return unquote(path).rstrip("/")


def _path(setting: str, directory: str, job_id: str) -> Path:
    address = urlsplit(directory)
    if address.scheme not in {"", "file"}:
        raise FlinkStateError(
            f"Flink has forgotten job {job_id}, and its `{setting}` is {directory}, which cannot be"
            " looked through from here: deploy with `restore_from`, the path of its newest"
            " checkpoint or savepoint, or `fresh`; with high availability a JobManager remembers"
            " its jobs"
        )
    return Path(unquote(address.path))


def _entries(folder: Path) -> list[Path]:
    """List a folder that need not be there; unlike `glob`, say so when it may not be read."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


@contextmanager
def _reading(setting: str, directory: str, job_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FlinkStateError(
            f"Flink has forgotten job {job_id}, and its `{setting}`, {directory}, cannot be read"
            f" on this machine ({error.strerror}: {error.filename}): mount it where Airflow's tasks"
            " run, under the same path, and let them read it; only if no job of this cluster has"
            " ever run, create it; or deploy with `restore_from`, the path of its newest checkpoint"
            " or savepoint, or `fresh`"
        ) from error
