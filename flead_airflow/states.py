"""Old savepoints and retained checkpoints of the training job: `dags/maintenance.py` deletes them.

Flink keeps what it was asked to keep for ever. Its JobManager deletes, since Airflow may not be
allowed to write where Flink does.
"""

import logging
from typing import Final

import httpx

from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.locks import Lock, hold
from flead_airflow.flink.checkpoints import StateDirectories, retained_checkpoints
from flead_airflow.flink.errors import FlinkRestError, FlinkStateError
from flead_airflow.flink.hook import FlinkRestHook

SHOWN_FAILURES: Final = 20

logger = logging.getLogger(__name__)


class StatesNotDeletedError(Exception):
    """Some states could not be deleted; the message says which and why."""


def delete_old_states(database_url: str, flink: FlinkRestHook, kept: int) -> int:
    """Delete the states of attempts that nothing is restored from any more.

    Of a job that Flink has forgotten, on a file system that this machine does not share, only those
    are known that `training_deployments` names. One that is gone is left so.

    Parameters
    ----------
    kept
        How many of the newest attempts keep theirs; see `deployments.jobs_with_old_states` for what
        else does.

    Returns
    -------
    int
        How many savepoints and checkpoints were deleted.

    Raises
    ------
    StatesNotDeletedError
        Once every job was tried.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        jobs = deployments.jobs_with_old_states(cursor, kept)
    if not jobs:
        return 0
    directories = StateDirectories.of(flink.configuration())
    deleted, failures = 0, []
    for job in jobs:
        try:
            # nothing must begin to continue from a state while it goes
            with hold(database_url, Lock.SUBMISSIONS):
                deleted += _delete_states_of(database_url, flink, directories, job, kept)
        except (httpx.TransportError, FlinkRestError, FlinkStateError) as error:
            failures.append(f"job {job}: {error}")
    logger.info("Deleted %s states of %s jobs", deleted, len(jobs) - len(failures))
    if failures:
        raise StatesNotDeletedError("\n".join(failures[:SHOWN_FAILURES]))
    return deleted


def _delete_states_of(
    database_url: str, flink: FlinkRestHook, directories: StateDirectories, job: str, kept: int
) -> int:
    with connect(database_url) as connection, connection.cursor() as cursor:
        if job not in deployments.jobs_with_old_states(cursor, kept):
            return 0
        named = deployments.named_states(cursor)
    running = flink.find_job(job)
    if running and not running.state.ended:
        raise FlinkStateError(f"it is {running.state}, though other attempts have followed it")
    states = {path for path in named if directories.hold_state_of(job, path)}
    try:
        states |= set(retained_checkpoints(directories, job))
    except FlinkStateError as error:
        logger.warning("Only the states that rows name are deleted: %s", error)
    gone = [path for path in sorted(states) if not flink.delete_state(path)]
    if gone:
        logger.info("Gone before: %s", ", ".join(gone))
    with connect(database_url) as connection, connection.cursor() as cursor:
        deployments.mark_states_deleted(cursor, job)
    return len(states) - len(gone)
