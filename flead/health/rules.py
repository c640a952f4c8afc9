"""The rules of the health gate: which limits a reading is beyond.

What may happen for a moment on a healthy system is judged over several readings, one a minute.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from flead.health.readings import JOB_ABSENT, JOB_RUNNING, STREAM_LOST, Breach, Part, Reading
from flead.settings import Settings

JOB_RULES: Final = {
    JOB_ABSENT: "job_absent",
    "FAILED": "job_failed",
    "CANCELED": "job_ended",
    "FINISHED": "job_ended",
}
"""What is broken when a job is in a state that it does not leave by itself."""
STREAM_STOPPED: Final = "stopped"
STREAM_RULES: Final = {
    STREAM_LOST: "stream_lost",
    "failed": "stream_failed",
    STREAM_STOPPED: "stream_ended",
}
STREAM_ACTIVE: Final = "active"
READINGS_IN_A_ROW: Final = 3
"""Readings that show a state that lasts: two minutes."""
READING_SECONDS: Final = 60.0
INTERVALS: Final = 3
"""Intervals of checkpoints or batches that a limit in seconds never is below."""


def looked_back(reading: Reading, settings: Settings) -> timedelta:
    """Return how far back `judge` looks from a reading."""
    stalled = settings.health_updates_stalled_seconds + (reading.window_seconds or 0.0)
    longest = max(settings.health_window_seconds, stalled + READING_SECONDS)
    return timedelta(seconds=longest)


def judge(reading: Reading, earlier: Sequence[Reading], settings: Settings) -> list[Breach]:
    """Return the rules that a reading breaks.

    Parameters
    ----------
    reading
        The newest.
    earlier
        Those before it, oldest first, over `looked_back` at least.
    """
    breaches: list[Breach] = []
    if reading.deployment_id is not None and Part.TRAINING not in reading.deploying:
        of_job = [
            each
            for each in earlier
            if each.job_id == reading.job_id and Part.TRAINING not in each.deploying
        ]
        breaches += _judge_training(reading, of_job, settings)
    if reading.kafka_error is not None:
        breaches.append(Breach("kafka_unreachable", reading.kafka_error, "an answer"))
    limit, letters = settings.health_dead_letters_per_minute, reading.dead_letters_per_minute
    if letters is not None and letters > limit:
        breaches.append(Breach("dead_letters_per_minute", letters, limit))
    if reading.stream_deployment_id is not None and Part.STREAM not in reading.deploying:
        of_stream = [
            each
            for each in earlier
            if each.stream_deployment_id == reading.stream_deployment_id
            and Part.STREAM not in each.deploying
        ]
        breaches += _judge_stream(reading, of_stream, settings)
    return breaches


def _judge_training(
    reading: Reading, earlier: Sequence[Reading], settings: Settings
) -> Iterator[Breach]:
    if reading.flink_error is not None:
        yield Breach("cluster_unreachable", reading.flink_error, "an answer")
    elif reading.job_state in JOB_RULES:
        yield Breach(JOB_RULES[reading.job_state], reading.job_state, JOB_RUNNING)
    else:
        yield from _judge_vertices(reading, earlier)
        yield from _judge_checkpoints(reading, earlier, settings)
        yield from _judge_progress(reading, earlier, settings)


def _judge_vertices(reading: Reading, earlier: Sequence[Reading]) -> Iterator[Breach]:
    """Judge the states; a job restarts within a minute when a TaskManager dies."""
    if not _runs(reading) and earlier and not _runs(earlier[-1]):
        running = f"{reading.job_state}, {reading.vertices_running} vertices of"
        yield Breach("job_not_running", f"{running} {reading.vertices_total}", JOB_RUNNING)


def _runs(reading: Reading) -> bool:
    return (
        reading.job_state == JOB_RUNNING and reading.vertices_running == reading.vertices_total
    ) or reading.job_state is None


def _judge_checkpoints(
    reading: Reading, earlier: Sequence[Reading], settings: Settings
) -> Iterator[Breach]:
    limit = max(
        settings.health_checkpoint_age_seconds,
        INTERVALS * (reading.checkpoint_interval_seconds or 0.0),
    )
    if (age := reading.checkpoint_age_seconds) is not None and age > limit:
        yield Breach("checkpoint_stalled_seconds", age, limit)
    since = reading.created_at - timedelta(seconds=settings.health_window_seconds)
    counted = [
        each.failed_checkpoints
        for each in earlier
        if each.failed_checkpoints is not None and each.created_at >= since
    ]
    if reading.failed_checkpoints is not None and counted:
        # a JobManager that took over counts anew
        failed = reading.failed_checkpoints - min(*counted, reading.failed_checkpoints)
        if failed > settings.health_failed_checkpoints:
            yield Breach("failed_checkpoints", failed, settings.health_failed_checkpoints)
    if reading.restarts is not None and reading.restarts > settings.health_restarts:
        yield Breach("restarts", reading.restarts, settings.health_restarts)


def _judge_progress(
    reading: Reading, earlier: Sequence[Reading], settings: Settings
) -> Iterator[Breach]:
    interval = reading.checkpoint_interval_seconds or 0.0
    yield from _judge_lag(
        "",
        [(each.lag_rows, each.lag_seconds) for each in (*earlier, reading)],
        # a job commits what it has read with its checkpoints
        settings.health_lag_growing_seconds + INTERVALS * interval,
        settings.health_lag_seconds + INTERVALS * interval,
    )
    last = (*earlier, reading)[-READINGS_IN_A_ROW:]
    ratios = [each.back_pressure_ratio for each in last if each.back_pressure_ratio is not None]
    waits = reading.lag_seconds is not None and (
        reading.lag_seconds > settings.health_lag_growing_seconds + INTERVALS * interval
    )
    # a job that keeps up may well be held back all the time
    if len(ratios) == READINGS_IN_A_ROW and waits:
        least = min(ratios)
        if least > settings.health_back_pressure_ratio:
            yield Breach("back_pressure_ratio", least, settings.health_back_pressure_ratio)
    yield from _judge_updates(reading, earlier, settings)


def _judge_updates(
    reading: Reading, earlier: Sequence[Reading], settings: Settings
) -> Iterator[Breach]:
    """Judge whether rows that are read become updates: every window closes by time."""
    limit = settings.health_updates_stalled_seconds + (reading.window_seconds or 0.0)
    since = reading.created_at
    for each in (reading, *reversed(earlier)):
        if not each.rows_per_second or each.updates_per_second != 0:
            break
        since = each.created_at
    stalled = (reading.created_at - since) / timedelta(seconds=1)
    if stalled > limit:
        yield Breach("updates_stalled_seconds", stalled, limit)


def _judge_stream(
    reading: Reading, earlier: Sequence[Reading], settings: Settings
) -> Iterator[Breach]:
    # `up` takes up the job first, and what it had stopped with it next.
    if reading.stream_state == STREAM_STOPPED and Part.TRAINING in reading.deploying:
        return
    if reading.stream_state in STREAM_RULES:
        yield Breach(STREAM_RULES[reading.stream_state], reading.stream_state, STREAM_ACTIVE)
        return
    trigger = reading.stream_trigger_seconds or 0.0
    limit = max(settings.health_batch_age_seconds, INTERVALS * trigger)
    age = reading.stream_batch_age_seconds
    # without new rows there is no batch
    if age is not None and age > limit and reading.stream_lag_rows:
        yield Breach("stream_stalled_seconds", age, limit)
    yield from _judge_lag(
        "stream_",
        [(each.stream_lag_rows, each.stream_lag_seconds) for each in (*earlier, reading)],
        settings.health_lag_growing_seconds + INTERVALS * trigger,
        settings.health_lag_seconds + INTERVALS * trigger,
    )


def _judge_lag(
    prefix: str,
    lags: Sequence[tuple[int | None, float | None]],
    growing_limit: float,
    limit: float,
) -> Iterator[Breach]:
    """Judge a lag that grows, or that is long and does not shrink.

    Two readings show a growth: that the oldest row has waited for so long says that it lasts.

    Parameters
    ----------
    lags
        Rows and seconds of each reading, the newest last.
    """
    rows, seconds = lags[-1]
    if rows is None or seconds is None:
        return
    known = [each for each, _ in lags[:-1] if each is not None]
    if not known:
        return
    if rows > known[-1] and seconds > growing_limit:
        yield Breach(f"{prefix}lag_growing_seconds", seconds, growing_limit)
    if rows >= known[-1] and seconds > limit:
        yield Breach(f"{prefix}lag_seconds", seconds, limit)
