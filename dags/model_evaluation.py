"""Evaluate every global model on rows that it was not trained on.

Runs when a model is promoted and on a time leg, at most every `FLEAD_EVALUATION_INTERVAL_SECONDS`.
Plans the newest version of which enough labelled rows lie beyond its training, with the older ones
that await an evaluation and the parents of all these, on one window of offsets; Spark scores them
in one pass. Figures go to `model_evaluations`, a sample of predictions to `model_feedback`, and
what devices are told to the outbox, held until `evaluation_quality` releases it.

## Triage
* **Runs end as skipped.** The message of `plan` says why: the pause is not over, no version waits,
  or too few labelled rows have come. Without labels there is nothing to evaluate.
* **`plan` failed with TopicRewoundError.** The topic `edge-iiot-stream` ends before what a version
  was trained on: it was deleted, or its broker lost data. The message says what to do.
* **`evaluate` failed: "UnusableModelError".** The message names the version and what is wrong with
  its row of `federated_models`.
* **`evaluate` failed: "EmptyWindowError".** The rows were deleted, or the fleet sends other
  features now. The next run gives the plan up and makes another.
* **`evaluate` failed otherwise.** Its log ends with what Spark said. The plan stays: the next run
  resumes it, on the same offsets.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, DeltaTriggerTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import OutletEventAccessorsProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.assets import EVALUATION, GLOBAL_MODEL
from flead_airflow.defaults import task_defaults
from flead_airflow.spark import SparkJobOperator

SETTINGS = Settings.from_environment()


@task(multiple_outputs=False)
def plan(run_id: str) -> dict[str, Any]:
    """Choose versions and rows, or take up the plan that is unfinished."""
    import msgspec

    from flead.analysis.planning import NothingDueError, plan_or_resume
    from flead.contracts.analysis import ModelEvaluation
    from flead.storage.migrations import migrate

    servers = connections.servers()
    settings = Settings.from_environment()
    migrate(servers.database_url)
    try:
        run = plan_or_resume(servers.database_url, servers.kafka, settings, run_id)
    except NothingDueError as reason:
        raise AirflowSkipException(str(reason)) from None
    evaluation = ModelEvaluation(
        evaluation_run_id=run.evaluation_run_id,
        kafka=connections.spark_kafka(),
        feedback_rows=settings.feedback_rows,
    )
    return dict(msgspec.to_builtins(evaluation))


@task(outlets=[EVALUATION])
def announce(
    evaluation: dict[str, Any], outlet_events: OutletEventAccessorsProtocol
) -> dict[str, Any]:
    """Tell the DAGs that wait for an evaluation."""
    from flead.storage import evaluations
    from flead.storage.connection import connect

    with connect(connections.servers().database_url) as connection, connection.cursor() as cursor:
        run = evaluations.get(cursor, evaluation["evaluation_run_id"])
    made = {"evaluation_run_id": run.evaluation_run_id, "versions": run.versions}
    outlet_events[EVALUATION].extra = made
    return made


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=DeltaTriggerTimetable(
            timedelta(seconds=max(SETTINGS.evaluation_interval_seconds, 60.0))
        ),
        assets=[GLOBAL_MODEL],
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    tags=["flead", "analysis"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=1,
        retry_delay=timedelta(seconds=10),
        execution_timeout=timedelta(minutes=30),
    ),
)
def model_evaluation() -> None:
    """Plan, evaluate, announce."""
    evaluation = plan()
    evaluate = SparkJobOperator(
        task_id="evaluate", script=SETTINGS.evaluation_script, config=evaluation
    )
    evaluate >> announce(evaluation)


model_evaluation()
