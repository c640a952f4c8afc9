"""Delete what is old and nobody needs any more: rows, artifacts, states, logs, Airflow's metadata.

Runs once a day. Each step is a task that says in its log what it has deleted, and does not depend
on the others: what one of them leaves for another goes the day after. How long things are kept is
set by `FLEAD_RETENTION_...` (`flead/settings.py`); `docs/retention.md` says what stays whatever its
age: the active deployment, heads and what they were made from, unpublished messages, open rounds,
offsets.

## Triage
* **A scheduled run ends as skipped.** Nothing was deployed by the end of the day before: there is
  nothing old yet.
* **A step of the database failed.** What it had deleted stays deleted, and the next run goes on.
  `deadlock detected` or a lost connection: clear the task. A foreign key that is violated is a
  defect: the message names the table that refers to what should go.
* **`states` failed.** The message names each job whose savepoint or checkpoints could not be
  deleted, and why: Flink does not answer, or its JobManager may not write there. The next run tries
  again. A job that "is RUNNING, though other attempts have followed it" is a second one: cancel it.
* **`airflow_metadata` is skipped.** There is no connection `flead_airflow_db`: define one to
  Airflow's own database, which tasks cannot reach otherwise, or run `airflow db clean` yourself.
* **`airflow_metadata` failed.** The message has what `airflow db clean` said. Its login must own
  Airflow's tables.
* **The disk fills all the same.** The log of each task has counts: which table or folder does not
  shrink? Lower its setting. PostgreSQL reuses the room of deleted rows but does not give it back;
  TimescaleDB drops whole chunks.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable, TriggerRule, conf, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import DagRunProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.defaults import task_defaults

SCHEDULED = "scheduled"
TABLES = ("timed", "updates", "models", "rounds", "outbox", "deployments", "analyses")
"""Steps of the database, as `flead.storage.retention` names them."""
WRITTEN_LATELY = timedelta(days=1)
"""An artifact so young may belong to a round that has not committed."""


@task
def prepare(dag_run: DagRunProtocol) -> None:
    """Bring the tables up to date, and see whether anything can be old."""
    from flead.storage.analysis_days import may_have_rows
    from flead.storage.connection import connect
    from flead.storage.migrations import migrate

    database_url = connections.servers().database_url
    migrate(database_url)
    if dag_run.run_type != SCHEDULED:
        return
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    with connect(database_url) as connection, connection.cursor() as cursor:
        if not may_have_rows(cursor, yesterday):
            raise AirflowSkipException(f"nothing was deployed by the end of {yesterday}")


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def delete_rows(step: str) -> dict[str, int]:
    """Delete old rows of the tables of a step; return how many each has lost."""
    from flead.storage import retention

    expire = getattr(retention, f"expire_{step}")
    url = connections.servers().database_url
    return dict(expire(url, Settings.from_environment(), datetime.now(UTC)))


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def artifacts() -> int:
    """Delete artifacts of global models that no stored version names."""
    from flead.rounds.artifacts import remove_artifacts
    from flead.storage import models
    from flead.storage.connection import connect

    settings = Settings.from_environment()
    before = datetime.now(UTC) - WRITTEN_LATELY
    with connect(connections.servers().database_url) as connection, connection.cursor() as cursor:
        named = models.artifact_paths(cursor)
    return remove_artifacts(settings.global_models_dir, named, before)


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def states() -> int:
    """Delete savepoints and retained checkpoints of old attempts of the training job."""
    from flead_airflow.states import delete_old_states

    url = connections.servers().database_url
    with connections.flink() as flink:
        return delete_old_states(url, flink, Settings.from_environment().retention_states)


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def task_logs() -> int:
    """Delete old logs of Airflow's tasks and DAG processor."""
    from pathlib import Path

    from flead_airflow.maintenance import remove_files

    keep = timedelta(days=Settings.from_environment().retention_logs_days)
    folder = Path(conf.get("logging", "base_log_folder"))
    return remove_files(folder, datetime.now(UTC) - keep)


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def spark_logs() -> int:
    """Delete old event logs of Spark, where they are files of this machine."""
    from pathlib import Path
    from urllib.parse import unquote, urlsplit

    from flead_airflow.maintenance import remove_applications

    where = urlsplit(connections.spark_event_logs() or "")
    if where.scheme not in {"", "file"} or not where.path:
        raise AirflowSkipException(f"event logs are no files of this machine: {where.geturl()!r}")
    keep = timedelta(days=Settings.from_environment().retention_logs_days)
    return remove_applications(Path(unquote(where.path)), datetime.now(UTC) - keep)


@task(trigger_rule=TriggerRule.NONE_SKIPPED)
def airflow_metadata() -> dict[str, int]:
    """Delete old rows of Airflow's own database; return how many each table has lost."""
    from flead_airflow.maintenance import clean_metadata

    url = connections.metadata_url()
    if url is None:
        raise AirflowSkipException(f"there is no connection {connections.METADATA}")
    keep = timedelta(days=Settings.from_environment().retention_airflow_days)
    return clean_metadata(url, datetime.now(UTC) - keep)


@dag(
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # On a small machine rounds and analyses go first.
    max_active_tasks=1,
    dagrun_timeout=timedelta(hours=12),
    tags=["flead", "maintenance"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=1, retry_delay=timedelta(seconds=5), execution_timeout=timedelta(hours=3)
    ),
)
def maintenance() -> None:
    """Prepare, then delete each kind of old things on its own."""
    steps = [delete_rows.override(task_id=step)(step) for step in TABLES]
    prepare() >> [*steps, artifacts(), states(), task_logs(), spark_logs(), airflow_metadata()]


maintenance()
