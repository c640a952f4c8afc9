"""Analyse a UTC day of rows: each device's statistics, anomalies and drift.

Runs at 01:00 UTC for the day before; the Param `date` (`bin/flead batch --date D`) runs it for any
day, and Airflow's backfill for a range of days. Rows come from the archive that the stream analysis
writes, or from Kafka for a day without one. A run replaces what `batch_analysis_results` has of the
day, in one transaction; an empty day is cleared.

A backfill takes the days from `--from-date` up to, and without, `--to-date`, for a run belongs to
01:00 of its day: the three days from the 2nd on are `--from-date 2026-03-02 --to-date 2026-03-05`.
Days are analysed one after the other, the oldest first, since a day's drift is measured against
those before it that were analysed.

## Triage
* **A scheduled run ends as skipped.** Nothing was deployed by the end of its day, as on the first
  day of an installation.
* **`plan` failed: "has not begun".** The day lies in the future: choose another `date`.
* **`analyse` failed and names a file.** That file of the archive is damaged. Move it away and clear
  the task: the day is analysed without its rows.
* **`analyse` failed: Kafka has no such rows.** A day without an archive is read from Kafka, which
  keeps rows for its retention only: deploy `deploy_stream_analysis`, which writes the archive.
* **A day has `needs_rerun` in `analysis_days`.** Rows came after it was analysed: trigger a run
  with its date.
* **Anomalies are null.** No model was promoted by the day's end, or it is of other features.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import DagRunProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.defaults import task_defaults
from flead_airflow.spark import SparkJobOperator

SETTINGS = Settings.from_environment()
SCHEDULED = "scheduled"


@task(multiple_outputs=False)
def plan(params: dict[str, Any], dag_run: DagRunProtocol) -> dict[str, Any]:
    """Choose the day, and fix the versions that it is analysed with."""
    from datetime import date

    import msgspec

    from flead.analysis.day_plan import open_analysis
    from flead.storage.analysis_days import may_have_rows
    from flead.storage.connection import connect
    from flead.storage.migrations import migrate

    servers = connections.servers()
    migrate(servers.database_url)
    now = datetime.now(UTC)
    if params["date"] is not None:
        day = date.fromisoformat(params["date"])
    else:
        start = dag_run.data_interval_start
        day = (now - timedelta(days=1) if start is None else start.astimezone(UTC)).date()
    if dag_run.run_type == SCHEDULED:
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            if not may_have_rows(cursor, day):
                raise AirflowSkipException(f"nothing was deployed by the end of {day}")
    analysis = open_analysis(
        servers.database_url, connections.spark_kafka(), Settings.from_environment(), day, now
    )
    return dict(msgspec.to_builtins(analysis))


@task
def report(analysis: dict[str, Any]) -> dict[str, Any]:
    """Tell what the day has come to."""
    from datetime import date

    import msgspec

    from flead.storage import analysis_days
    from flead.storage.connection import connect

    day = date.fromisoformat(analysis["analysis_date"])
    with connect(connections.servers().database_url) as connection, connection.cursor() as cursor:
        analysed = analysis_days.get(cursor, day)
    return dict(msgspec.to_builtins(analysed))


@dag(
    schedule=CronDataIntervalTimetable("0 1 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    params={
        "date": Param(
            None,
            type=["null", "string"],
            format="date",
            description="The UTC day, as YYYY-MM-DD; without one, that of the run's interval.",
        )
    },
    tags=["flead", "analysis"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=1,
        retry_delay=timedelta(seconds=10),
        execution_timeout=timedelta(hours=3),
    )
    # A backfill begins many runs at once, whatever `max_active_runs` is.
    | {"max_active_tis_per_dag": 1},
)
def daily_batch_analysis() -> None:
    """Plan, analyse, report."""
    analysis = plan()
    analyse = SparkJobOperator(task_id="analyse", script=SETTINGS.batch_script, config=analysis)
    analyse >> report(analysis)


daily_batch_analysis()
