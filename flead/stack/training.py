"""The training job across a stop and a start of the embedded stack."""

from collections.abc import Callable

from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.flink_rest import FlinkClient
from flead.stack.service import StackError
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.deployments import Attempt
from flead.storage.migrations import is_migrated, migrate

DEPLOY_DAG = "deploy_training"
DEPLOY_SECONDS = 600.0
RUNNING = "RUNNING"

Say = Callable[[str], None]


def suspend(addresses: Addresses, say: Say, reason: str, deployment_id: str | None = None) -> None:
    """Stop a job with a savepoint that the next start resumes from.

    A job that does not run is left as it is: the next start takes it up from its newest checkpoint,
    which loses nothing.

    Parameters
    ----------
    deployment_id : str, optional
        The deployment whose job is stopped; without one, the active deployment.

    Raises
    ------
    StackError, httpx.HTTPError, psycopg2.Error, deployments.AttemptStateError
        The savepoint was refused or failed, or a server does not answer.
    """
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        if not is_migrated(cursor):
            return
        if deployment_id is None:
            attempt = deployments.active(cursor)
        else:
            newest = deployments.newest_attempts(cursor)
            attempt = next((each for each in newest if each.deployment_id == deployment_id), None)
    flink = FlinkClient(addresses.flink_url)
    if attempt is None or flink.job_state(attempt.job_id) != RUNNING:
        return
    say("stopping the training job with a savepoint")
    savepoint = flink.stop_with_savepoint(attempt.job_id)
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        deployments.mark_suspended(cursor, attempt.job_id, reason, savepoint)


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
    finish_deployment(addresses, start_deployment(addresses, {"resume": True}), say)


def running_deployment(addresses: Addresses) -> Attempt | None:
    """Return the active deployment if its job runs."""
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.active(cursor) if is_migrated(cursor) else None
    if attempt is None or FlinkClient(addresses.flink_url).job_state(attempt.job_id) != RUNNING:
        return None
    return attempt


def train_on(addresses: Addresses, features: list[str], say: Say, *, start: bool = True) -> None:
    """Deploy a training job of these features, unless one runs.

    A job of another feature list is replaced: it is stopped with a savepoint, and the new one
    starts fresh.

    Parameters
    ----------
    start : bool
        Whether to deploy one where none runs.

    Raises
    ------
    StackError, httpx.HTTPError, psycopg2.Error
        The deployment failed, or a server does not answer.
    """
    if start:
        migrate(addresses.database_url)
    running = running_deployment(addresses)
    if running is None and not start:
        return
    if running is not None:
        if list(running.configuration.features) == features:
            return
        say(
            f"deployment {running.deployment_id} trains on {running.configuration.features}: its "
            "job is stopped with a savepoint, and one with the features of these rows starts fresh"
        )
    run_id = start_deployment(addresses, {"features": features})
    finish_deployment(addresses, run_id, say)


def start_deployment(addresses: Addresses, params: dict[str, object]) -> str:
    """Start a run of `deploy_training` with Params; its id is that of a new deployment."""
    with _airflow(addresses) as airflow:
        return airflow.trigger(DEPLOY_DAG, params)


def finish_deployment(addresses: Addresses, run_id: str, say: Say) -> str:
    """Wait for the end of a run of `deploy_training`, and return the id of the Flink job.

    Raises
    ------
    AirflowError
        When the run failed.
    StackError
        When no job is active after it.
    """
    with _airflow(addresses) as airflow:
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


def settle_deployment(addresses: Addresses, run_id: str, say: Say) -> None:
    """Wait until a run of `deploy_training` has ended either way: a job is then known, or none is.

    Raises
    ------
    AirflowError
        When the run failed.
    httpx.HTTPError
        When Airflow does not answer.
    """
    with _airflow(addresses) as airflow:
        if airflow.has_ended(DEPLOY_DAG, run_id):
            return
        say(f"waiting for the end of {DEPLOY_DAG}, to stop its job")
        airflow.wait(DEPLOY_DAG, run_id, DEPLOY_SECONDS)


def _airflow(addresses: Addresses) -> AirflowClient:
    return AirflowClient(addresses.airflow_url, addresses.airflow_user, addresses.airflow_password)
