"""Readings of the DAG `monitor_training`, and what is done about what they show.

Each function may run twice. `training_health` holds what was read, and what was set going again.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
import msgspec
from confluent_kafka import KafkaException

from flead.contracts.topics import DEAD_LETTERS, Topic
from flead.health.healing import (
    ATTEMPTS_WINDOW,
    LONGEST_GAP,
    Step,
    dead_parts,
    deployment_limit,
    next_step,
    overdue_parts,
    verdict_of,
)
from flead.health.readings import (
    JOB_ABSENT,
    STREAM_LOST,
    Breach,
    Part,
    Positions,
    Reading,
    Verdict,
)
from flead.health.rules import judge, looked_back
from flead.messaging.client import Properties
from flead.messaging.lag import backlog, committed_offsets
from flead.messaging.reading import TopicRewoundError, count_to_end, end_offsets
from flead.settings import Settings
from flead.storage import deployments, health, stream_deployments
from flead.storage.connection import connect
from flead.storage.deployments import Attempt, AttemptStatus
from flead.storage.migrations import is_migrated, migrate
from flead.storage.offsets import next_offsets
from flead.storage.progress import database_time
from flead.storage.stream_batches import CONSUMER
from flead.storage.stream_deployments import RUNNING, StreamDeployment
from flead_airflow.connections import Servers
from flead_airflow.flink.errors import FlinkRestError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.stream_deployments import is_alive

RATE_WINDOW: Final = timedelta(minutes=5)
"""A reading that is older is none to count from."""
COUNTED_MESSAGES: Final = 20_000
"""Messages of a topic that one reading counts one by one; the number of more is an estimate."""
MILLISECONDS: Final = 1_000

logger = logging.getLogger(__name__)


class Finding(msgspec.Struct, frozen=True):
    """What a reading amounts to, the rules that it breaks, what is done about each dead part.

    `overdue` are parts with a deployment under way that is waited for no more, after `limit`.
    """

    verdict: Verdict
    breaches: list[Breach]
    steps: dict[Part, Step]
    overdue: list[Part]
    limit: timedelta

    @property
    def healing(self) -> list[Part]:
        """Parts that are to be deployed again now."""
        return [part for part, step in self.steps.items() if step is Step.DEPLOY]

    @property
    def message(self) -> str:
        """Why it is not healthy and what is done about it, "" when it is."""
        said = {
            Step.DEPLOY: "is deployed again",
            Step.WAIT: "is deployed again after a pause",
            Step.ASK: "was deployed again too often within an hour: it needs a person",
        }
        done = [f"{part} {said[step]}" for part, step in self.steps.items()]
        if self.breaches:
            done += [
                f"its deployment is under way for longer than {self.limit}: {part} may wait"
                " for a paused DAG"
                for part in self.overdue
            ]
        return "; ".join([*map(str, self.breaches), *done])


class _Watched(msgspec.Struct, frozen=True):
    """What the database says of what should run."""

    now: datetime
    attempt: Attempt | None
    stream: StreamDeployment | None
    stream_is_alive: bool
    stream_offsets: dict[int, int]
    previous: Reading | None


def check(
    servers: Servers,
    flink: FlinkRestHook,
    settings: Settings,
    *,
    dag_run_id: str,
    deploying: Sequence[Part],
) -> Finding | None:
    """Take a reading, judge it and store both; None when nothing is deployed.

    A database from before the health gate is migrated; one without FLEAD's tables is left empty.

    Parameters
    ----------
    dag_run_id
        A repetition for the same run replaces its reading, and its attempt to heal is the same.
    deploying
        Parts with a deployment under way.
    """
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        if not is_migrated(cursor):
            return None
    migrate(servers.database_url)
    reading = take_reading(servers, flink, settings, dag_run_id=dag_run_id, deploying=deploying)
    if reading is None:
        return None
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        back = looked_back(reading, settings)
        limit = deployment_limit(settings)
        if deploying:
            back = max(back, limit + LONGEST_GAP)
        earlier = health.readings_since(cursor, reading.created_at - back, dag_run_id)
        overdue = overdue_parts(reading, earlier, settings)
        awaited = [part for part in deploying if part not in overdue]
        breaches = judge(msgspec.structs.replace(reading, deploying=awaited), earlier, settings)
        steps = {}
        for part in dead_parts(breaches):
            since = reading.created_at - ATTEMPTS_WINDOW
            attempts = health.healings_since(cursor, part, since, dag_run_id)
            steps[part] = next_step(attempts, reading.created_at, settings)
        verdict = verdict_of(breaches, steps, awaited)
        finding = Finding(verdict, breaches, steps, overdue, limit)
        health.replace_reading(
            cursor, dag_run_id, reading, finding.verdict, breaches, finding.healing
        )
    logger.info("The reading is %s: %s", finding.verdict, finding.message or "no rule is broken")
    return finding


def take_back(database_url: str, dag_run_id: str, part: Part) -> None:
    """Let the attempt of a run to heal a part, which could not be triggered, not count."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        health.take_back_healing(cursor, dag_run_id, part)
    logger.warning("The deployment of %s was not triggered: the next reading tries again", part)


def take_reading(
    servers: Servers,
    flink: FlinkRestHook,
    settings: Settings,
    *,
    dag_run_id: str,
    deploying: Sequence[Part],
) -> Reading | None:
    """Read Flink, Kafka and the database; None when nothing is deployed.

    A server that does not answer leaves its figures None and is named; without the database
    nothing is known.

    Raises
    ------
    psycopg2.OperationalError
        The database does not answer.
    """
    watched = _watched(servers.database_url, dag_run_id)
    if watched.attempt is None and watched.stream is None:
        return None
    figures: dict[str, Any] = {}
    if watched.attempt is not None:
        figures |= _of_training(watched.attempt, flink, settings)
    if watched.stream is not None:
        figures |= _of_stream(watched.stream, watched.now, is_alive=watched.stream_is_alive)
    try:
        figures |= _of_kafka(watched, servers.kafka)
    except (KafkaException, TimeoutError, TopicRewoundError) as error:
        figures["kafka_error"] = f"{type(error).__name__}: {error}"
    return Reading(created_at=watched.now, deploying=list(deploying), **figures)


def _watched(database_url: str, dag_run_id: str) -> _Watched:
    with connect(database_url) as connection, connection.cursor() as cursor:
        now = database_time(cursor)
        stream = stream_deployments.expected(cursor)
        earlier = health.readings_since(cursor, now - RATE_WINDOW, dag_run_id)
        return _Watched(
            now=now,
            attempt=deployments.expected(cursor),
            stream=stream,
            stream_is_alive=stream is not None and is_alive(cursor, stream),
            stream_offsets=next_offsets(cursor, CONSUMER, Topic.TELEMETRY),
            previous=earlier[-1] if earlier else None,
        )


def _of_training(attempt: Attempt, flink: FlinkRestHook, settings: Settings) -> dict[str, Any]:
    configuration = attempt.configuration
    figures: dict[str, Any] = {
        "deployment_id": attempt.deployment_id,
        "job_id": attempt.job_id,
        "checkpoint_interval_seconds": configuration.checkpoint_interval_seconds,
        "window_seconds": configuration.hyperparameters.window_seconds,
    }
    try:
        return figures | _of_job(attempt, flink, settings)
    except (httpx.TransportError, FlinkRestError) as error:
        return figures | {"flink_error": f"{type(error).__name__}: {error}"}


def _of_job(attempt: Attempt, flink: FlinkRestHook, settings: Settings) -> dict[str, Any]:
    job_id = attempt.job_id
    job = flink.find_job(job_id)
    # Flink remembers for an hour what FLEAD itself has ended: a job that it stopped, or one whose
    # deployment was cut off before it could write so
    has_started = attempt.status is AttemptStatus.ACTIVE
    if job is None or (job.state.ended and not has_started):
        return {"job_state": JOB_ABSENT}
    checkpoints = flink.checkpoints(job_id)
    completed = checkpoints.latest.completed
    since = completed.latest_ack_timestamp if completed else job.start_time
    window_start = job.now - settings.health_window_seconds * MILLISECONDS
    failures = flink.exceptions(job_id).exception_history.entries
    return {
        "job_state": job.state.value,
        "vertices_running": len(job.vertices) - len(job.waiting_vertices),
        "vertices_total": len(job.vertices),
        "checkpoint_age_seconds": max(job.now - since, 0) / MILLISECONDS,
        "failed_checkpoints": checkpoints.counts.failed,
        "restarts": sum(1 for each in failures if each.timestamp >= window_start),
        "back_pressure_ratio": None if job.state.ended else flink.back_pressure(job),
    }


def _of_stream(stream: StreamDeployment, now: datetime, *, is_alive: bool) -> dict[str, Any]:
    is_lost = stream.state in RUNNING and not is_alive
    age = now - (stream.last_batch_at or stream.submitted_at)
    return {
        "stream_deployment_id": stream.deployment_id,
        "stream_state": STREAM_LOST if is_lost else stream.state.value,
        "stream_trigger_seconds": stream.configuration.trigger_seconds,
        "stream_batch_age_seconds": max(age / timedelta(seconds=1), 0.0),
    }


def _of_kafka(watched: _Watched, kafka: Properties) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    committed: dict[int, int] = {}
    if watched.attempt is not None:
        group = watched.attempt.configuration.consumer_group
        committed = committed_offsets(kafka, group, Topic.TELEMETRY)
        waiting = backlog(kafka, Topic.TELEMETRY, committed)
        figures |= {"lag_rows": waiting.rows, "lag_seconds": waiting.seconds}
    if watched.stream is not None:
        waiting = backlog(kafka, Topic.TELEMETRY, watched.stream_offsets)
        figures |= {"stream_lag_rows": waiting.rows, "stream_lag_seconds": waiting.seconds}
    previous = watched.previous
    counted = previous.positions.ends if previous else {}
    counts: dict[str, int] = {}
    ends: dict[str, dict[int, int]] = {}
    for topic in (Topic.LOCAL_UPDATES, *DEAD_LETTERS):
        if topic.value not in counted:
            ends[topic.value] = end_offsets(kafka, topic)
            continue
        read = count_to_end(kafka, topic, counted[topic.value], COUNTED_MESSAGES)
        counts[topic.value], ends[topic.value] = read.messages, read.next_offsets
    figures["positions"] = Positions(committed, ends)
    if previous and counts:
        seconds = (watched.now - previous.created_at) / timedelta(seconds=1)
        figures |= _rates(counts, _advance(previous.positions.committed, committed), seconds)
    return figures


def _advance(before: Mapping[int, int], after: Mapping[int, int]) -> int | None:
    """Return how many offsets were committed between two readings, None before there are two."""
    if not before or not after:
        return None
    return sum(max(offset - before.get(partition, 0), 0) for partition, offset in after.items())


def _rates(counts: Mapping[str, int], rows: int | None, seconds: float) -> dict[str, float | None]:
    letters = sum(counts.get(topic.value, 0) for topic in DEAD_LETTERS)
    return {
        "rows_per_second": None if rows is None else rows / seconds,
        "updates_per_second": counts[Topic.LOCAL_UPDATES.value] / seconds,
        "dead_letters_per_minute": 60.0 * letters / seconds,
    }
