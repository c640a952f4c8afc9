"""What a day is analysed with, decided before the job starts."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

from flead.contracts.analysis import BatchAnalysis
from flead.settings import Settings
from flead.storage.analysis_days import day_bounds, open_day
from flead.storage.batch_results import version_promoted_at
from flead.storage.connection import connect


def open_analysis(
    database_url: str, kafka: Mapping[str, str], settings: Settings, day: date, now: datetime
) -> BatchAnalysis:
    """Open the analysis of a UTC day, with the versions that its anomalies are counted by.

    Those are the version that was promoted at the day's end, or now while the day lasts, and the
    newest version at the day's first analysis, which stays its reference.

    Parameters
    ----------
    kafka
        Properties of the Java client.

    Raises
    ------
    ValueError
        The day has not begun.
    """
    start, end = day_bounds(day)
    if start > now:
        raise ValueError(f"{day} has not begun (it is {now:%Y-%m-%d %H:%M} UTC): choose a past day")
    with connect(database_url) as connection, connection.cursor() as cursor:
        opened = open_day(
            cursor,
            day,
            model_version=version_promoted_at(cursor, min(end, now)),
            newest_version=version_promoted_at(cursor, now),
            now=now,
            closing_lateness=timedelta(seconds=settings.closing_lateness_seconds),
        )
    return BatchAnalysis(
        analysis_date=day,
        archive_uri=settings.archive_uri,
        kafka=dict(kafka),
        model_version=opened.model_version,
        reference_model_version=opened.reference_model_version,
        closing_lateness_seconds=settings.closing_lateness_seconds,
        reference_days=settings.analysis_reference_days,
    )
