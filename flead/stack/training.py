"""The training job of the embedded stack: across a stop and a start, and for given features."""

import time
from collections.abc import Callable

from flead.contracts.deployment import TRAINING_GROUP
from flead.contracts.topics import Topic
from flead.messaging.lag import consumer_lag
from flead.settings import Settings
from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.flink_rest import FlinkClient
from flead.stack.service import StackError
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.deployments import Attempt
from flead.storage.migrations import is_migrated, migrate

DEPLOY_DAG = "deploy_training"
PREPARING_SECONDS = 300.0
"""Of a deployment, for all but what has to start."""
READING_SECONDS = 20.0
"""How long a job may get no nearer to the end of its topic before it is replaced all the same."""
READING_POLL_SECONDS = 0.5
RUNNING = "RUNNING"

Say = Callable[[str], None]


def deploy_seconds() -> float:
    """Return how long a run of `deploy_training` is waited for.

    A job that does not start has its time, and the one before it, which is restored.
    """
    return PREPARING_SECONDS + 2 * Settings.from_environment().job_start_seconds


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


def train_on(addresses: Addresses, features: list[str], say: Say) -> Attempt:
    """Deploy a training job of these features, unless one runs, and return what runs then.

    A job of other features is replaced; without one, a suspended job of these is resumed.

    Raises
    ------
    StackError, httpx.HTTPError, psycopg2.Error
        The deployment failed, or a server does not answer.
    """
    migrate(addresses.database_url)
    if running := replace_other(addresses, features, say):
        return running
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        suspended = deployments.resumable(cursor)
    again = suspended is not None and suspended.configuration.features == features
    params: dict[str, object] = {"resume": True} if again else {"features": features}
    return finish_deployment(addresses, start_deployment(addresses, params), say)


def replace_other(addresses: Addresses, features: list[str], say: Say) -> Attempt | None:
    """Replace the training job that runs if it is not of these features.

    The one before is stopped with a savepoint, and the new one starts fresh.

    Returns
    -------
    Attempt or None
        What runs then; None when no job ran.

    Raises
    ------
    StackError, httpx.HTTPError, psycopg2.Error
        The deployment failed, or a server does not answer.
    """
    running = running_deployment(addresses)
    if running is None or running.configuration.features == features:
        return running
    make_way(addresses, running, features, say)
    return finish_deployment(addresses, start_deployment(addresses, {"features": features}), say)


def make_way(addresses: Addresses, running: Attempt, features: list[str], say: Say) -> None:
    """Say what becomes of a job that is about to be replaced by one of these features.

    A job of other features first reads what was sent to it, for its successor could not.
    """
    before = f"deployment {running.deployment_id} was active before: its job"
    if running.configuration.features == features:
        say(f"{before} is stopped with a savepoint, from which the new one goes on")
        return
    say(
        f"{before}, on {running.configuration.features}, is stopped with a savepoint, which stays, "
        f"and one on {features} starts fresh"
    )
    if unread := _await_reader(addresses):
        say(
            f"{unread:,} rows were sent that its job has not read; those without the new features "
            "become dead letters"
        )


def _await_reader(addresses: Addresses) -> int:
    """Wait while the job that runs gets nearer to the end of the topic; return what is unread."""
    kafka = {"bootstrap.servers": addresses.kafka_bootstrap}
    least, nearer_at = None, time.monotonic()
    while unread := sum(consumer_lag(kafka, TRAINING_GROUP, Topic.TELEMETRY).values()):
        if least is None or unread < least:
            least, nearer_at = unread, time.monotonic()
        elif time.monotonic() - nearer_at > READING_SECONDS:
            break
        time.sleep(READING_POLL_SECONDS)
    return unread


def start_deployment(addresses: Addresses, params: dict[str, object]) -> str:
    """Start a run of `deploy_training` with Params; its id is that of a new deployment."""
    with AirflowClient.of(addresses) as airflow:
        return airflow.trigger(DEPLOY_DAG, params)


def finish_deployment(addresses: Addresses, run_id: str, say: Say) -> Attempt:
    """Wait for the end of a run of `deploy_training`, and return what it made active.

    Raises
    ------
    AirflowError
        When the run failed.
    StackError
        When no job is active after it.
    """
    with AirflowClient.of(addresses) as airflow:
        airflow.wait(DEPLOY_DAG, run_id, deploy_seconds(), on_progress=say)
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.active(cursor)
    if attempt is None:
        raise StackError(f"{DEPLOY_DAG} run {run_id} succeeded, but no deployment is active")
    return attempt


def settle_deployment(addresses: Addresses, run_id: str, say: Say) -> None:
    """Wait until a run of `deploy_training` has ended either way: a job is then known, or none is.

    Raises
    ------
    AirflowError
        When the run failed.
    httpx.HTTPError
        When Airflow does not answer.
    """
    with AirflowClient.of(addresses) as airflow:
        if airflow.has_ended(DEPLOY_DAG, run_id):
            return
        say(f"waiting for the end of {DEPLOY_DAG}, to stop its job")
        airflow.wait(DEPLOY_DAG, run_id, deploy_seconds())
