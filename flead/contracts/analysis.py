"""What the analyses on Spark are started with, each passed to its job as one JSON argument."""

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

DAY_SECONDS = 86_400
Seconds = Annotated[int, Meta(ge=1)]


class BatchAnalysis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the daily analysis of one UTC day is started with.

    `kafka` holds properties of the Java client, read from only when the archive lacks the day. The
    versions are those of `analysis_days`; without one, its anomalies are not counted.
    """

    analysis_date: date
    archive_uri: str
    kafka: dict[str, str]
    model_version: int | None
    reference_model_version: int | None
    closing_lateness_seconds: Annotated[float, Meta(ge=0)]
    reference_days: Annotated[int, Meta(ge=0)]


class StreamAnalysis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of one deployment of the stream analysis.

    `windows_seconds` are lengths that divide a day. A batch has at most `max_rows` messages. A row
    is late for windows when its time lies more than `watermark_seconds` before the newest of its
    device in earlier batches. `buckets` groups of devices are analysed side by side, and leave a
    file each in the archive. A device that has sent nothing for `device_ttl_days` is forgotten.
    With `allow_lost_history`, devices whose history is no longer found begin with none. With
    `until_end` the job ends when it has read what the topic held at its start.

    Raises
    ------
    ValueError
        A window does not divide a day.
    """

    deployment_id: str
    kafka: dict[str, str]
    checkpoint_uri: str
    state_uri: str
    archive_uri: str
    windows_seconds: Annotated[list[Seconds], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: [30, 300]
    )
    trigger_seconds: Annotated[float, Meta(gt=0)] = 30.0
    max_rows: Annotated[int, Meta(ge=1)] = 200_000
    watermark_seconds: Annotated[float, Meta(ge=0)] = 60.0
    buckets: Annotated[int, Meta(ge=1, le=1_024)] = 2
    device_ttl_days: Annotated[float, Meta(gt=0)] = 30.0
    archive_keep_days: Annotated[float, Meta(gt=0)] = 30.0
    allow_lost_history: bool = False
    until_end: bool = False

    def __post_init__(self) -> None:
        """Check what a type cannot say."""
        if odd := [each for each in self.windows_seconds if DAY_SECONDS % each]:
            raise ValueError(f"windows of {odd} seconds do not divide a day")


class ModelEvaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an evaluation is started with; its versions and offsets are in `evaluation_runs`.

    `kafka` holds properties of the Java client. `feedback_rows` predictions of each device are
    kept. `buckets` groups of devices are scored side by side.
    """

    evaluation_run_id: str
    kafka: dict[str, str]
    feedback_rows: Annotated[int, Meta(ge=0)] = 5
    buckets: Annotated[int, Meta(ge=1, le=1_024)] = 8
