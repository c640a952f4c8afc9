"""Decide about the fleet's hyperparameters, on evidence, every few promoted models.

Runs when feedback was released and every quarter of an hour; resumes the decision in flight, or
takes the next when `FLEAD_TUNING_VERSIONS` models were promoted since the last. It compares their
log loss with that of as many models before, on the same evaluation windows: while it falls,
nothing is changed. When it does not, parts of the fleet try other hyperparameters for
`FLEAD_TUNING_HORIZON_SECONDS`, without a say in the global model. What beats the control cohort is
adopted, after an approval if the step is large, and taken back if devices become worse. Every
decision is a row of `tuning_decisions` with its evidence.

## Triage
* **Runs end as skipped.** The log of `decide` says why: too few models since the last decision, no
  evaluation that passed the quality checks, or a fleet without labels, which is never tuned.
* **`approve` waits.** Answer in *Required Actions*, with Approve or Reject. Without an answer in
  `FLEAD_TUNING_APPROVAL_SECONDS` it is rejected. The trials are over by then: the fleet trains with
  what it had before.
* **A decision is `expired`.** Its `reason` says why: another deployment has set hyperparameters, or
  too few devices sent enough labelled rows. Raise `FLEAD_TUNING_FRACTION` or the horizon for a
  small fleet.
* **A decision is `reverted`.** Devices became worse after an adoption; its evidence says by how
  much. Nothing is to be done: the fleet trains with the hyperparameters of before.
* **A task failed, or the run was lost.** The row says how far the change came: clear the task, or
  let the next run go on from there. To stop a trial at once, trigger `deploy_training`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import AssetOrTimeSchedule, DeltaTriggerTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import DagRunProtocol, RuntimeTaskInstanceProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.assets import FEEDBACK
from flead_airflow.defaults import task_defaults
from flead_airflow.tuning import ANSWER_KEY, RecordedApprovalOperator, WaitForOutcomeOperator

SETTINGS = Settings.from_environment()
WAIT_SECONDS = SETTINGS.tuning_horizon_seconds + SETTINGS.max_wait_seconds


@task.short_circuit
def decide(params: dict[str, Any], dag_run: DagRunProtocol) -> int | None:
    """Take up the decision in flight or make the next; None when nothing is to be changed."""
    from flead.storage.migrations import migrate
    from flead.tuning.opening import NothingToDecideError, decide_or_resume

    servers = connections.servers()
    migrate(servers.database_url)
    by = (getattr(dag_run, "triggering_user_name", None) or "a person") if params["force"] else None
    try:
        decision = decide_or_resume(servers.database_url, Settings.from_environment(), forced_by=by)
    except NothingToDecideError as reason:
        raise AirflowSkipException(str(reason)) from None
    return None if decision.settled_at is not None else decision.revision


@task
def begin_trials(revision: int) -> None:
    """Publish the trials to the devices; the trial period begins."""
    from flead.rounds.publishing import publish
    from flead.tuning.changing import begin_trials as begin

    servers = connections.servers()
    publish(servers.database_url, servers.kafka)
    begin(servers.database_url, revision, datetime.now(UTC))


@task(multiple_outputs=False)
def judge(revision: int) -> dict[str, str]:
    """Compare the cohorts; publish what the fleet trains with from now on."""
    from flead.rounds.publishing import publish
    from flead.tuning.changing import describe, judge_trials

    servers = connections.servers()
    settings = Settings.from_environment()
    decision = judge_trials(servers.database_url, settings, revision, datetime.now(UTC))
    publish(servers.database_url, servers.kafka)
    return describe(decision)


@task.short_circuit(ignore_downstream_trigger_rules=False)
def needs_approval(judged: dict[str, str]) -> bool:
    """Whether a person has to answer."""
    return judged["status"] == "awaiting_approval"


@task(trigger_rule="none_failed_min_one_success")
def record_answer(revision: int, judged: dict[str, str], ti: RuntimeTaskInstanceProtocol) -> None:
    """Write down what was answered, if anything was asked, and publish what was approved."""
    import msgspec

    from flead.rounds.publishing import publish
    from flead.tuning.changing import answer
    from flead.tuning.evidence import Answer

    if judged["status"] != "awaiting_approval":
        return
    given = msgspec.convert(ti.xcom_pull(task_ids="approve", key=ANSWER_KEY), Answer)
    servers = connections.servers()
    answer(servers.database_url, revision, given, datetime.now(UTC))
    publish(servers.database_url, servers.kafka)


@task(multiple_outputs=False)
def settle(revision: int) -> dict[str, str]:
    """Keep what was adopted, or publish what was before when devices became worse."""
    from flead.rounds.publishing import publish
    from flead.tuning.changing import describe
    from flead.tuning.changing import settle as end_watch

    servers = connections.servers()
    settings = Settings.from_environment()
    settled = end_watch(servers.database_url, settings, revision, datetime.now(UTC))
    publish(servers.database_url, servers.kafka)
    return describe(settled)


@dag(
    schedule=AssetOrTimeSchedule(
        timetable=DeltaTriggerTimetable(timedelta(minutes=15)), assets=[FEEDBACK]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(seconds=4 * WAIT_SECONDS + SETTINGS.tuning_approval_seconds, hours=1),
    params={
        "force": Param(
            default=False,
            type="boolean",
            description="Try other hyperparameters now, whatever the evaluations say.",
        )
    },
    tags=["flead", "tuning"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=3, retry_delay=timedelta(seconds=5), execution_timeout=timedelta(minutes=10)
    ),
)
def hyperparameter_tuning() -> None:
    """Decide, try, judge, ask, adopt, watch."""
    revision = decide()
    wait_for_trials = WaitForOutcomeOperator(task_id="wait_for_trials", revision=revision)
    watch = WaitForOutcomeOperator(task_id="watch", revision=revision)
    judged = judge(revision)
    approve = RecordedApprovalOperator(
        task_id="approve",
        subject="{{ ti.xcom_pull(task_ids='judge')['subject'] }}",
        body="{{ ti.xcom_pull(task_ids='judge')['body'] }}",
        defaults=RecordedApprovalOperator.REJECT,
        response_timeout=timedelta(seconds=SETTINGS.tuning_approval_seconds),
    )
    # A rejection skips what comes right after it, and it must be recorded.
    approved = EmptyOperator(task_id="approved")
    answered = record_answer(revision, judged)
    begin_trials(revision) >> wait_for_trials >> judged
    needs_approval(judged) >> approve >> approved >> answered
    answered >> watch >> settle(revision)


hyperparameter_tuning()
