"""Daily results of each device, and what they start from (`batch_analysis_results`)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from flead.storage.connection import Cursor
from flead.storage.copying import copy_rows

COLUMNS: Final = (
    "device_id",
    "row_count",
    "rows_labelled",
    "first_event_time",
    "last_event_time",
    "scored_rows",
    "anomaly_count",
    "reference_anomaly_count",
    "zscore_anomaly_count",
    "feature_statistics",
    "drift",
    "feature_drift",
)
"""What the analysis of a day finds for each device."""


def version_promoted_at(cursor: Cursor, instant: datetime) -> int | None:
    """Return the version that devices had at an instant, also when it was rolled back since."""
    cursor.execute("SELECT max(version) FROM federated_models WHERE promoted_at <= %s", (instant,))
    (version,) = cursor.fetchall()[0]
    return None if version is None else int(version)


def count(cursor: Cursor, day: date) -> int:
    """Return how many results a day has: one a device."""
    cursor.execute("SELECT count(*) FROM batch_analysis_results WHERE analysis_date = %s", (day,))
    [(results,)] = cursor.fetchall()
    return int(results)


def moments_before(
    cursor: Cursor,
    feature_schema: str,
    first_offsets: Iterable[tuple[str, int, int]],
    version: int,
) -> dict[str, str]:
    """Return the moments, as JSON, of each device's newest update before a position of its input.

    Of the accepted ones in rounds up to the one that made `version` only: whenever it is asked, and
    whatever rounds have read since, the answer is the same.

    Parameters
    ----------
    first_offsets
        Device, partition, and the offset that the update's rows must lie before.
    """
    cursor.execute(
        "CREATE TEMPORARY TABLE wanted ("
        " device_id TEXT, input_partition INTEGER, first_offset BIGINT) ON COMMIT DROP"
    )
    copy_rows(cursor, "wanted", ("device_id", "input_partition", "first_offset"), first_offsets)
    cursor.execute(
        """
        SELECT wanted.device_id, newest.moments::text
        FROM wanted CROSS JOIN LATERAL (
            SELECT stored.moments FROM local_models AS stored
            WHERE stored.device_id = wanted.device_id
                AND stored.input_partition = wanted.input_partition
                AND stored.last_offset < wanted.first_offset
                AND stored.feature_schema = %s
                AND stored.status = 'accepted'
                AND stored.aggregation_round <= (
                    SELECT max(made.aggregation_round) FROM federated_models AS made
                    WHERE made.version <= %s
                )
            ORDER BY stored.last_offset DESC LIMIT 1
        ) AS newest
        ORDER BY wanted.input_partition
        """,
        (feature_schema, version),
    )
    found = dict(cursor.fetchall())
    cursor.execute("DROP TABLE wanted")
    return found


def statistics_before(cursor: Cursor, day: date, days: int) -> dict[str, list[str]]:
    """Return each device's `feature_statistics`, as JSON, of up to `days` dates before a day."""
    cursor.execute(
        """
        SELECT device_id, feature_statistics::text FROM batch_analysis_results
        WHERE analysis_date >= %s AND analysis_date < %s ORDER BY device_id, analysis_date
        """,
        (day - timedelta(days=days), day),
    )
    found: dict[str, list[str]] = {}
    for device, text in cursor:
        found.setdefault(device, []).append(text)
    return found


def replace_day(
    cursor: Cursor, day: date, shared: Mapping[str, object], results: Iterable[Sequence[object]]
) -> int:
    """Write the results of a day in place of those that it had.

    Parameters
    ----------
    shared
        Columns that are the same for all devices.
    results
        Values in the order of `COLUMNS`.

    Returns
    -------
    int
        How many rows were written.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"flead.batch.{day}",))
    cursor.execute("DELETE FROM batch_analysis_results WHERE analysis_date = %s", (day,))
    return copy_rows(
        cursor,
        "batch_analysis_results",
        ("analysis_date", *shared, *COLUMNS),
        ((day.isoformat(), *shared.values(), *row) for row in results),
    )
