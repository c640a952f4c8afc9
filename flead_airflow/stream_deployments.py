"""Decisions of the DAG `deploy_stream_analysis`: what to stop, what to launch, and whether it runs.

Each function may run twice. `stream_deployments` holds the progress; whether a driver lives is told
by the lock that it holds, or by its age while it starts.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from flead.contracts.analysis import StreamAnalysis
from flead.settings import Settings
from flead.storage import stream_deployments
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, is_held
from flead.storage.stream_deployments import StreamDeployment, StreamState
from flead_airflow.connections import SPARK, servers, spark_kafka
from flead_airflow.spark import Cluster, launch_detached

SILENT_SECONDS: Final = 60.0
"""How long a launched driver may take for its first words."""
SHOWN_CHARACTERS: Final = 3_000

logger = logging.getLogger(__name__)


class StreamStartError(AirflowException):
    """A driver has not started, or the one before it has not ended."""


def configuration_of(params: Mapping[str, Any], deployment_id: str) -> StreamAnalysis:
    """Make the configuration of a new deployment out of the Params of a run.

    It goes on from the checkpoint of the deployment before it unless `fresh` is set: then it has
    one of its own, and begins at the position in the database.

    Raises
    ------
    msgspec.ValidationError
        Names the Param that is out of range.
    """
    settings = Settings.from_environment()
    with connect(servers().database_url) as connection, connection.cursor() as cursor:
        before = stream_deployments.newest(cursor)
    same = before is not None and not params["fresh"]
    checkpoint = f"{settings.stream_uri}/checkpoints/{deployment_id}"
    return msgspec.convert(
        {
            "deployment_id": deployment_id,
            "kafka": spark_kafka(),
            "checkpoint_uri": before.configuration.checkpoint_uri
            if before and same
            else checkpoint,
            "state_uri": f"{settings.stream_uri}/state",
            "archive_uri": settings.archive_uri,
            "archive_keep_days": settings.archive_days,
            "windows_seconds": params["windows_seconds"],
            "trigger_seconds": params["trigger_seconds"],
            "max_rows": params["max_rows"],
            "watermark_seconds": params["watermark_seconds"],
            "allow_lost_history": params["fresh"],
        },
        StreamAnalysis,
    )


def configuration_to_resume() -> StreamAnalysis | None:
    """Return the stored configuration of the deployment that should run, None without one.

    With the addresses of today; None, too, when its driver is alive.
    """
    with connect(servers().database_url) as connection, connection.cursor() as cursor:
        expected = stream_deployments.expected(cursor)
        if expected is None or is_alive(cursor, expected):
            return None
    return msgspec.structs.replace(expected.configuration, kafka=spark_kafka())


def is_alive(cursor: Cursor, deployment: StreamDeployment) -> bool:
    """Tell whether a driver runs, or was launched so recently that it may be about to.

    A driver holds the lock of the stream for life, so that one which was killed is known at once.
    """
    if deployment.state is StreamState.SUBMITTING:
        age = datetime.now(UTC) - deployment.submitted_at
        return age < timedelta(seconds=SILENT_SECONDS)
    return deployment.state in stream_deployments.RUNNING and is_held(cursor, Lock.STREAM)


def stop_running(timeout_seconds: float) -> None:
    """Ask the drivers that run to end after their batch, and wait until they have.

    Raises
    ------
    StreamStartError
        One has not ended in time.
    """
    database_url = servers().database_url
    deadline = time.monotonic() + timeout_seconds
    while True:
        with connect(database_url) as connection, connection.cursor() as cursor:
            alive = [each for each in stream_deployments.running(cursor) if is_alive(cursor, each)]
            for each in alive:
                stream_deployments.request_stop(cursor, each.deployment_id)
        if not alive:
            return
        if time.monotonic() > deadline:
            raise StreamStartError(
                f"deployment {alive[0].deployment_id} (process {alive[0].pid} on"
                f" {alive[0].hostname}) has not ended in {timeout_seconds:.0f} s; a batch that"
                " takes longer is a reason to wait, and to lower `max_rows`"
            )
        time.sleep(1.0)


def submit(configuration: StreamAnalysis) -> None:
    """Write the row of a deployment and launch its driver, unless it has been launched before.

    Raises
    ------
    OSError
        The driver cannot be launched.
    """
    settings, database_url = Settings.from_environment(), servers().database_url
    cluster = Cluster.of(BaseHook.get_connection(SPARK))
    name = configuration.deployment_id
    with connect(database_url) as connection, connection.cursor() as cursor:
        known = stream_deployments.get(cursor, name)
        if known is not None and is_alive(cursor, known):
            return
        stream_deployments.submit(cursor, configuration)
    command = cluster.command(
        settings.stream_script,
        msgspec.json.encode(configuration).decode(),
        name=f"stream_analysis {name}",
        # That of an application without an end would grow without one.
        conf={"spark.eventLog.enabled": "false"},
    )
    environment = cluster.variables(database_url) | cluster.stream_environment
    try:
        group = launch_detached(command, environment, Path(settings.stream_log))
    except OSError as error:
        with connect(database_url) as connection, connection.cursor() as cursor:
            stream_deployments.end(cursor, name, StreamState.FAILED, str(error))
        raise
    logger.info("Launched the driver as process group %s, log %s", group, settings.stream_log)


def look(deployment_id: str) -> str | None:
    """Return why a driver has failed, "" once it has begun to analyse, None until then."""
    with connect(servers().database_url) as connection, connection.cursor() as cursor:
        found = stream_deployments.get(cursor, deployment_id)
    if found is None:
        return "its row was removed from stream_deployments"
    if found.state in (StreamState.FAILED, StreamState.STOPPED):
        return found.reason or "it has ended"
    # A topic without new rows has no batch.
    is_current = found.lag_rows == 0
    has_begun = found.state is StreamState.ACTIVE and (found.last_batch_at or is_current)
    return "" if has_begun else None


def end_of_log() -> str:
    """Return the last of what drivers have said, "" where their log is on another machine."""
    path = Path(Settings.from_environment().stream_log)
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")[-SHOWN_CHARACTERS:]
