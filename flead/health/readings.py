"""What the health gate reads of the training job and of the stream analysis."""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

JOB_RUNNING: Final = "RUNNING"
JOB_ABSENT: Final = "ABSENT"
"""State of a job that Flink has lost, or that FLEAD itself has ended and that should run again."""
STREAM_LOST: Final = "lost"
"""State of a stream analysis whose driver has died without a word."""


class Part(StrEnum):
    """What is watched, deployed and healed on its own."""

    TRAINING = "training"
    STREAM = "stream"


class Positions(msgspec.Struct, frozen=True):
    """Offsets by partition that the next reading counts from.

    `committed` is how far the training job has read the telemetry, `ends` the last stable offsets
    of the topics whose messages are counted.
    """

    committed: dict[int, int] = {}
    ends: dict[str, dict[int, int]] = {}


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One reading; None is what could not be read, or has no meaning yet.

    Attributes
    ----------
    deployment_id, stream_deployment_id
        What should run; None when nothing of the kind should.
    job_state
        Flink's, or `JOB_ABSENT`.
    checkpoint_age_seconds
        Since the last checkpoint completed; before the first, since the job started.
    failed_checkpoints
        Since the job started.
    restarts
        Failures that Flink tells of, in the last `health_window_seconds`.
    back_pressure_ratio
        Largest share of its time, 0 to 1, that a subtask waits for those behind it.
    lag_rows, lag_seconds
        Telemetry beyond the offsets that the job has committed, and how long the oldest waits.
    rows_per_second, updates_per_second, dead_letters_per_minute
        Since the reading before; beyond 20,000 messages of a topic an estimate.
    stream_state
        That of its deployment, or `STREAM_LOST`.
    stream_batch_age_seconds
        Since its last batch was committed; before the first, since its driver was launched.
    flink_error, kafka_error
        Why the figures that come from there are None.
    deploying
        Parts with a deployment under way: they are read and not judged.
    """

    created_at: datetime
    deployment_id: str | None = None
    job_id: str | None = None
    job_state: str | None = None
    vertices_running: int | None = None
    vertices_total: int | None = None
    checkpoint_interval_seconds: float | None = None
    window_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    failed_checkpoints: int | None = None
    restarts: int | None = None
    back_pressure_ratio: float | None = None
    lag_rows: int | None = None
    lag_seconds: float | None = None
    rows_per_second: float | None = None
    updates_per_second: float | None = None
    dead_letters_per_minute: float | None = None
    stream_deployment_id: str | None = None
    stream_state: str | None = None
    stream_trigger_seconds: float | None = None
    stream_batch_age_seconds: float | None = None
    stream_lag_rows: int | None = None
    stream_lag_seconds: float | None = None
    flink_error: str | None = None
    kafka_error: str | None = None
    positions: Positions = Positions()
    deploying: list[Part] = []


class Breach(msgspec.Struct, frozen=True):
    """A rule that is broken: the value that was read, and the limit that it is beyond."""

    rule: str
    value: float | str
    limit: float | str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.rule}: {_text(self.value)} (limit: {_text(self.limit)})"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.4g}"


class Verdict(StrEnum):
    """What a reading amounts to.

    `healing`: what is dead was set going again; `exhausted`: that was done too often, and a person
    is needed.
    """

    HEALTHY = "healthy"
    DEPLOYING = "deploying"
    BREACHED = "breached"
    HEALING = "healing"
    EXHAUSTED = "exhausted"
