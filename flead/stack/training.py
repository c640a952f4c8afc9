"""The training job across a stop and a start of the embedded stack."""

from collections.abc import Callable

import httpx
import psycopg2

from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.flink_rest import FlinkClient
from flead.stack.service import StackError
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.migrations import is_migrated

DEPLOY_DAG = "deploy_training"
DEPLOY_SECONDS = 600.0
RUNNING = "RUNNING"

Say = Callable[[str], None]


class JobNotSuspendedError(StackError):
    """The running job could not be stopped with a savepoint."""


def suspend(addresses: Addresses, say: Say) -> None:
    """Stop the active job with a savepoint that the next start resumes from.

    A job that does not run, or a server that does not answer, is left as it is: the next start
    takes the job up from its newest checkpoint, which loses nothing.

    Raises
    ------
    JobNotSuspendedError
        When the job runs and Flink refused or failed the savepoint.
    """
    try:
        with connect(addresses.database_url) as connection, connection.cursor() as cursor:
            attempt = deployments.active(cursor) if is_migrated(cursor) else None
        flink = FlinkClient(addresses.flink_url)
        if attempt is None or flink.job_state(attempt.job_id) != RUNNING:
            return
    except (psycopg2.OperationalError, httpx.HTTPError):
        return
    say("stopping the training job with a savepoint")
    try:
        savepoint = flink.stop_with_savepoint(attempt.job_id)
    except (StackError, httpx.HTTPError) as error:
        raise JobNotSuspendedError(
            f"the training job {attempt.job_id} was not stopped: {error}"
        ) from error
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        deployments.mark_suspended(cursor, attempt.job_id, "the stack went down", savepoint)


def resume(addresses: Addresses, say: Say) -> None:
    """Deploy again what was in training when the stack went down, and wait until it trains.

    Raises
    ------
    AirflowError
        When the deployment failed.
    """
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.resumable(cursor) if is_migrated(cursor) else None
    if attempt is None:
        return
    if FlinkClient(addresses.flink_url).job_state(attempt.job_id) == RUNNING:
        return
    deploy(addresses, {"resume": True}, say)


def deploy(addresses: Addresses, params: dict[str, object], say: Say) -> str:
    """Run `deploy_training` with Params, wait for its end, and return the id of the Flink job.

    Raises
    ------
    AirflowError
        When the run failed, or no job is active after it.
    """
    with AirflowClient(
        addresses.airflow_url, addresses.airflow_user, addresses.airflow_password
    ) as airflow:
        run_id = airflow.trigger(DEPLOY_DAG, params)
        airflow.wait(
            DEPLOY_DAG,
            run_id,
            DEPLOY_SECONDS,
            on_progress=lambda task: say(f"{DEPLOY_DAG}: {task}"),
        )
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.active(cursor)
    if attempt is None:
        raise StackError(f"{DEPLOY_DAG} run {run_id} succeeded, but no deployment is active")
    return attempt.job_id
