"""Check evaluations, release those that pass, and keep the others in quarantine.

Runs after each evaluation, and checks every run of `evaluation_runs` that was not checked yet. The
suites of `expectations/` judge the rows of the run: evaluations, feedback, versions, the updates
that made them, and what stream and daily analysis have written since the evaluation before. Every
result goes to `data_quality_results`, with examples of what breaks a rule; the link *Data Docs* of
the task `check` shows the same as pages (the files are in `FLEAD_DATA_DOCS_DIR`).

A critical failure quarantines the whole run: its rows stay, readers of `passed_evaluations` and
`passed_feedback` do not see them, and devices are told nothing. Warnings are told and nothing more.

When what has passed shows the head worse than its parent, by the rule and the margins of a round
(`FLEAD_ROLLBACK_MARGIN`, `FLEAD_ROLLBACK_RELATIVE_MARGIN`), `roll_back` triggers `rollback_model`:
the next round may be long in coming.

## Triage
* **`tell` failed: an evaluation is in quarantine.** The message names each rule with an example.
  Find the cause and repair it, then trigger this DAG with `evaluation_run_id`: the run is checked
  again, and released if it passes. Later evaluations are not held up by it.
* **`check` failed with CheckError.** A rule does not fit its query: the message names both. Nothing
  was decided; correct `expectations/` or `sql/quality/` and clear the task.
* **`check` failed with SuiteError.** A file of `expectations/` cannot be read.
* **`release` failed.** What passed is ready in the table `outbox`: clear the task, or let the next
  round publish it.
* **A run of `rollback_model` was triggered.** Its Params say which version was worse, and by what.
* **Runs end as skipped.** Nothing awaited its check.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.types import OutletEventAccessorsProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.assets import EVALUATION, FEEDBACK
from flead_airflow.defaults import task_defaults
from flead_airflow.quality import CheckEvaluationsOperator


@task
def find(params: dict[str, Any]) -> list[str]:
    """Find the evaluations to check: all that were not checked yet, or the one that is named."""
    from flead.storage import quality
    from flead.storage.connection import connect
    from flead.storage.migrations import migrate

    servers = connections.servers()
    migrate(servers.database_url)
    if params["evaluation_run_id"] is not None:
        return [params["evaluation_run_id"]]
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        # An event only wakes us up: what is stored tells what to do.
        found = quality.unchecked_runs(cursor)
    if not found:
        raise AirflowSkipException("every evaluation was checked")
    return found


@task(outlets=[FEEDBACK])
def release(
    verdicts: list[dict[str, Any]], outlet_events: OutletEventAccessorsProtocol
) -> list[str]:
    """Send what has passed to the devices, and tell the DAGs that wait for feedback."""
    from flead.rounds.publishing import publish

    servers = connections.servers()
    publish(servers.database_url, servers.kafka)
    released = [
        verdict["evaluation_run_id"]
        for verdict in verdicts
        if verdict["status"] == "passed" and verdict["messages"]
    ]
    if not released:
        raise AirflowSkipException("no feedback was released")
    outlet_events[FEEDBACK].extra = {
        "evaluation_run_id": released[-1],
        "evaluation_run_ids": released,
    }
    return released


@task
def tell(verdicts: list[dict[str, Any]]) -> None:
    """Fail when an evaluation is in quarantine, so that somebody looks."""
    quarantined = [
        f"evaluation {verdict['evaluation_run_id']} is in quarantine: "
        + "; ".join(verdict["failed"])
        for verdict in verdicts
        if verdict["status"] == "quarantined"
    ]
    if quarantined:
        raise AirflowFailException("\n".join(quarantined))


@task.short_circuit(multiple_outputs=False)
def judge_head(verdicts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the Params of a rollback when what has passed shows the head worse than its parent."""
    from flead.rounds.rollback import worse_by_evaluation

    if all(verdict["status"] != "passed" for verdict in verdicts):
        return None
    worse = worse_by_evaluation(connections.servers().database_url, Settings.from_environment())
    if worse is None:
        return None
    return {"version": worse.good, "head": worse.head, "reason": worse.reason}


@dag(
    schedule=[EVALUATION],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    params={
        "evaluation_run_id": Param(
            None,
            type=["null", "string"],
            minLength=1,
            description="The evaluation to check again; without one, all that await their check.",
        )
    },
    tags=["flead", "analysis"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=2,
        retry_delay=timedelta(seconds=10),
        execution_timeout=timedelta(minutes=20),
    ),
)
def evaluation_quality() -> None:
    """Find, check, release, tell, take back."""
    check = CheckEvaluationsOperator(task_id="check", evaluation_run_ids=find())
    release(check.output)
    tell(check.output)
    TriggerDagRunOperator(
        task_id="roll_back",
        trigger_dag_id="rollback_model",
        # The same each time that the task runs, and so is what it triggers.
        trigger_run_id="evaluation_quality__{{ run_id }}",
        skip_when_already_exists=True,
        logical_date=None,
        conf=judge_head(check.output),
    )


evaluation_quality()
