"""Which UTC days were analysed, with what, and what has come in since (`analysis_days`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from flead.storage.connection import Cursor


class DayState(StrEnum):
    """How far the analysis of a day is; `empty` is done, with no row on that day."""

    RUNNING = "running"
    DONE = "done"
    EMPTY = "empty"


class Source(StrEnum):
    """Where the rows of a day were read from."""

    ARCHIVE = "archive"
    KAFKA = "kafka"


@dataclass(frozen=True, slots=True)
class AnalysedDay:
    """A day; the counts and `read_from` are None until its first analysis has ended.

    `late_rows` were archived after the last analysis had begun, though the day was closed; because
    of them it `needs_rerun`.
    """

    analysis_date: date
    state: DayState
    read_from: Source | None
    model_version: int | None
    reference_model_version: int | None
    rows: int | None
    devices: int | None
    late_rows: int
    needs_rerun: bool
    closed: bool
    first_run_at: datetime
    analysed_at: datetime | None


_COLUMNS: Final = (
    "analysis_date",
    "state",
    "read_from",
    "model_version",
    "reference_model_version",
    "rows",
    "devices",
    "late_rows",
    "needs_rerun",
    "closed",
    "first_run_at",
    "analysed_at",
)
_SELECTED: Final = ", ".join(_COLUMNS)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return the first instant of a UTC day and that of the next."""
    start = datetime.combine(day, time(), UTC)
    return start, start + timedelta(days=1)


def may_have_rows(cursor: Cursor, day: date) -> bool:
    """Tell whether anything that takes rows was deployed by the end of a day."""
    _, end = day_bounds(day)
    cursor.execute(
        "SELECT EXISTS (SELECT FROM training_deployments WHERE created_at < %(end)s)"
        " OR EXISTS (SELECT FROM stream_analysis_batches WHERE opened_at < %(end)s)",
        {"end": end},
    )
    [(may,)] = cursor.fetchall()
    return bool(may)


def get(cursor: Cursor, day: date) -> AnalysedDay | None:
    """Return what is known of a day, None when it was never analysed."""
    cursor.execute(
        f"SELECT {_SELECTED} FROM analysis_days WHERE analysis_date = %s",  # noqa: S608 - constants
        (day,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    value = dict(zip(_COLUMNS, row, strict=True))
    value["state"] = DayState(value["state"])
    value["read_from"] = None if value["read_from"] is None else Source(value["read_from"])
    return AnalysedDay(**value)


def open_day(
    cursor: Cursor,
    day: date,
    *,
    model_version: int | None,
    newest_version: int | None,
    now: datetime,
    closing_lateness: timedelta,
) -> AnalysedDay:
    """Begin an analysis of a day, the first or another one.

    Parameters
    ----------
    model_version
        The version that was promoted at the day's end.
    newest_version
        The version that becomes the day's reference, unless it has one from an earlier run.
    closing_lateness
        How long after the day's end its rows may still come in without being late.
    """
    _, end = day_bounds(day)
    cursor.execute(
        """
        INSERT INTO analysis_days AS known (
            analysis_date, state, model_version, reference_model_version, closed, first_run_at
        ) VALUES (%s, 'running', %s, %s, %s, %s)
        ON CONFLICT (analysis_date) DO UPDATE SET
            state = 'running',
            model_version = excluded.model_version,
            reference_model_version = coalesce(
                known.reference_model_version, excluded.reference_model_version
            ),
            closed = excluded.closed
        """,
        (day, model_version, newest_version, now >= end + closing_lateness, now),
    )
    opened = get(cursor, day)
    if opened is None:
        raise LookupError(f"the row of {day} was removed from analysis_days meanwhile")
    return opened


def close_day(
    cursor: Cursor, day: date, *, read_from: Source, rows: int, devices: int, late_rows: int
) -> None:
    """Record the end of an analysis, in the transaction that writes its results.

    Parameters
    ----------
    late_rows
        Late rows that had been counted before the analysis read anything: it has them.
    """
    cursor.execute(
        """
        UPDATE analysis_days
        SET state = %s, read_from = %s, rows = %s, devices = %s,
            late_rows = greatest(late_rows - %s, 0), analysed_at = now()
        WHERE analysis_date = %s
        """,
        (DayState.DONE if rows else DayState.EMPTY, read_from, rows, devices, late_rows, day),
    )
    if cursor.rowcount != 1:
        raise LookupError(f"{day} has no row in analysis_days: its analysis was never opened")


def add_late_rows(cursor: Cursor, counts: Mapping[date, int]) -> list[date]:
    """Count rows that were archived for days whose analysis has begun after their closing.

    Such a day needs a rerun. Other days are left out: their analysis, or the next one, reads the
    rows anyway.

    Parameters
    ----------
    counts
        Rows of each UTC day of `event_time`, of one batch.

    Returns
    -------
    list of date
        The days that need a rerun because of these rows.
    """
    cursor.execute(
        """
        UPDATE analysis_days AS known SET late_rows = known.late_rows + late.rows
        FROM unnest(%s::date [], %s::bigint []) AS late (analysis_date, rows)
        WHERE known.analysis_date = late.analysis_date AND known.closed AND late.rows > 0
        RETURNING known.analysis_date
        """,
        (list(counts), list(counts.values())),
    )
    return sorted(day for (day,) in cursor.fetchall())
