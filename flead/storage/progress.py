"""What has been made since a moment, for those who watch the system run."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from flead.storage.connection import Cursor


class MadeVersion(msgspec.Struct, frozen=True):
    """A global model version; accuracy and loss are null until updates have scored it."""

    version: int
    num_updates: int
    num_devices: int
    global_accuracy: float | None
    global_loss: float | None
    metrics_rows: int


def versions_after(cursor: Cursor, version: int) -> list[MadeVersion]:
    """Return the versions above `version` that were promoted, oldest first."""
    cursor.execute(
        "SELECT version, num_updates, num_devices, global_accuracy, global_loss, metrics_rows"
        " FROM federated_models WHERE version > %s AND promoted_at IS NOT NULL ORDER BY version",
        (version,),
    )
    return [MadeVersion(*row) for row in cursor]


class Collected(msgspec.Struct, frozen=True):
    """What rounds have read: updates, and how many devices sent one about rows of the period."""

    updates: int
    devices: int


def collected_since(
    cursor: Cursor, topic: str, start: Mapping[int, int], rows_start: Mapping[int, int]
) -> Collected:
    """Count the updates that rounds have read at or beyond an offset of each partition.

    Parameters
    ----------
    start
        Of the updates' own topic.
    rows_start
        Of the rows' topic: a device counts once a window of its has a row at or beyond. Windows
        that were open before may be of devices that send nothing any more.
    """
    cursor.execute(
        """
        SELECT
            count(*),
            count(DISTINCT u.device_id) FILTER (
                WHERE u.last_offset >= coalesce(r.first_offset, 0)
            )
        FROM local_models AS u
        INNER JOIN
            unnest(%s::int [], %s::bigint []) AS s (kafka_partition, first_offset)
            ON u.kafka_partition = s.kafka_partition AND u.kafka_offset >= s.first_offset
        LEFT JOIN
            unnest(%s::int [], %s::bigint []) AS r (input_partition, first_offset)
            ON u.input_partition = r.input_partition
        WHERE u.kafka_topic = %s
        """,
        (
            list(start.keys()),
            list(start.values()),
            list(rows_start.keys()),
            list(rows_start.values()),
            topic,
        ),
    )
    [counts] = cursor.fetchall()
    return Collected(*counts)


class Analysed(msgspec.Struct, frozen=True):
    """What the analysis has written.

    `evaluations` counts versions with figures of the fleet, `feedback_rows` sampled predictions,
    `stream_windows` windows of a device, and `batch_rows` results of a device and day.
    """

    evaluations: int
    feedback_rows: int
    stream_windows: int
    batch_rows: int


def analysed_since(cursor: Cursor, since: datetime) -> Analysed:
    """Count what the jobs of the analysis have written from a time on."""
    cursor.execute(
        """
        SELECT
            (
                SELECT count(DISTINCT model_version) FROM model_evaluations
                WHERE device_id = '*' AND status = 'evaluated' AND evaluation_timestamp >= %(since)s
            ),
            (SELECT count(*) FROM model_feedback WHERE created_at >= %(since)s),
            (SELECT count(*) FROM stream_analysis_results WHERE created_at >= %(since)s),
            (SELECT count(*) FROM batch_analysis_results WHERE created_at >= %(since)s)
        """,
        {"since": since},
    )
    [counts] = cursor.fetchall()
    return Analysed(*counts)


class Decided(msgspec.Struct, frozen=True):
    """What decisions rest on and were.

    `quality_results` counts results of quality checks, `checked_evaluations` evaluations that were
    released or quarantined, `tuning_decisions` decisions that were taken, `decisions_on_trials`
    those of them that ended trials, and `trial_updates` updates of devices that tried something.
    """

    quality_results: int
    checked_evaluations: int
    tuning_decisions: int
    decisions_on_trials: int
    trial_updates: int


def decided_since(cursor: Cursor, since: datetime) -> Decided:
    """Count decisions from a time on, and the updates of devices that tried something.

    What is proposed, tried or to be approved is no decision yet, and what has expired is none.
    """
    cursor.execute(
        """
        WITH taken AS (
            SELECT trial_started_at FROM tuning_decisions
            WHERE decided_at >= %(since)s AND status <> 'expired'
        )

        SELECT
            (SELECT count(*) FROM data_quality_results WHERE created_at >= %(since)s),
            (SELECT count(*) FROM evaluation_runs WHERE quality_checked_at >= %(since)s),
            (SELECT count(*) FROM taken),
            (SELECT count(trial_started_at) FROM taken),
            (
                SELECT count(*) FROM local_models
                WHERE kafka_timestamp >= %(since)s AND trial IS NOT NULL
            )
        """,
        {"since": since},
    )
    [counts] = cursor.fetchall()
    return Decided(*counts)


def database_time(cursor: Cursor) -> datetime:
    """Return the database's time, by which it dates what is written."""
    cursor.execute("SELECT now()")
    [(now,)] = cursor.fetchall()
    return datetime.fromisoformat(now.isoformat())
