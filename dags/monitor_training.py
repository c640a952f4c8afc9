"""Watch the training job and the stream analysis, every minute, and heal what is dead.

`read` asks Flink, Kafka and the database, writes a row to `training_health`, and says what follows:
`judge` fails with the rules that the reading breaks, and a part that is dead (Flink says FAILED or
does not know the job, or FLEAD has ended it and it should run again; the driver of the stream has
failed or died) is deployed again from where it was: `heal_training` and `heal_stream` trigger a run
of the DAG that deploys it, with `resume`. That is done `FLEAD_HEALING_ATTEMPTS_PER_HOUR` times at
most, further and further apart; an attempt that could not be triggered is taken back and does not
count. While a deployment is under way, for as long as its run may take, its part is read and not
judged. Each failed task is told to the notifier that `FLEAD_HEALTH_NOTIFIER` names; the limits are
the settings `FLEAD_HEALTH_...`.

## Triage
* **Runs end as skipped.** Nothing is deployed, or a deployment is under way: `training_health` has
  the verdict `deploying`. One that stays queued, because its DAG is paused, is waited for as long.
* **`heal_training`, `heal_stream` failed: the DAG is paused.** Unpause it; the next run heals.
* **`job_absent`, `job_failed`.** Look at the run of `deploy_training` that `heal_training` has
  triggered. Why the job failed is on its page in Flink, and in the log of the TaskManager.
* **"it needs a person".** It was deployed again as often as the settings allow and died each time.
  Find the reason in the newest failed run of `deploy_training` (`deploy_stream_analysis`), mend it,
  and trigger that DAG with `resume`; attempts older than an hour are forgotten.
* **`job_ended`, `stream_ended`.** Somebody has ended it outside of Airflow, so it is left alone.
  Trigger `deploy_training` (`deploy_stream_analysis`) with `resume` to go on.
* **`job_not_running`, `restarts`.** The job fails again and again. Its newest exception is on its
  page in Flink; without free slots, start a TaskManager.
* **`checkpoint_stalled_seconds`, `failed_checkpoints`.** Updates reach nobody until a checkpoint
  completes. Its page in Flink names the subtask that does not acknowledge it; a full disk, a broker
  that does not answer, and back-pressure are the usual reasons.
* **`lag_growing_seconds`, `lag_seconds`, `back_pressure_ratio`.** The job is slower than the fleet.
  Trigger `deploy_training` with more `parallelism`, and give it slots.
* **`updates_stalled_seconds`.** Rows are read and no window closes: look for an exception in the
  log of the TaskManager.
* **`dead_letters_per_minute`.** The topics `*-dlq` hold each with its reason.
* **`stream_lost`, `stream_failed`.** As for the job: `deploy_stream_analysis`, and the reason in
  `stream_deployments`.
* **`stream_stalled_seconds`, `stream_lag_growing_seconds`, `stream_lag_seconds`.** Its log is
  `FLEAD_STREAM_LOG`. Batches that take longer than their trigger need a larger machine.
* **`cluster_unreachable`, `kafka_unreachable`.** `bin/flead status`, then `bin/flead logs SERVICE`.
  A JobManager that comes back without its jobs gets them again.
* **`read` failed.** PostgreSQL does not answer, so that nothing is known.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.types import RuntimeTaskInstanceProtocol

from flead.health.readings import Part
from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.defaults import task_defaults
from flead_airflow.notifying import health_notifier

SETTINGS = Settings.from_environment()
DEPLOYED_BY = {Part.TRAINING: "deploy_training", Part.STREAM: "deploy_stream_analysis"}
UNFINISHED = ["queued", "running"]
MESSAGE_KEY = "message"


@task.branch
def read(ti: RuntimeTaskInstanceProtocol, run_id: str) -> list[str]:
    """Take and store a reading; return the tasks that it calls for."""
    from flead_airflow.health import check

    deploying = [
        part
        for part, dag_id in DEPLOYED_BY.items()
        if ti.get_dr_count(dag_id=dag_id, states=UNFINISHED)
    ]
    with connections.flink() as flink:
        finding = check(
            connections.servers(), flink, SETTINGS, dag_run_id=run_id, deploying=deploying
        )
    if finding is None:
        raise AirflowSkipException("nothing is deployed: there is nothing to watch")
    if finding.verdict == "deploying":
        return []
    ti.xcom_push(MESSAGE_KEY, finding.message)
    return ["judge", *(f"heal_{part}" for part in finding.healing)]


@task
def judge(ti: RuntimeTaskInstanceProtocol) -> None:
    """Fail with the rules that the reading breaks, so that somebody is told."""
    if message := ti.xcom_pull(task_ids="read", key=MESSAGE_KEY):
        raise AirflowFailException(message)


@task(trigger_rule="one_failed", on_failure_callback=None)
def take_back(part: str, run_id: str) -> None:
    """Let an attempt to heal that could not be triggered not count; its failure is told already."""
    from flead_airflow.health import take_back as take

    take(connections.servers().database_url, run_id, Part(part))


@dag(
    schedule="* * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=10),
    tags=["flead", "training", "analysis"],
    doc_md=__doc__,
    default_args={
        **task_defaults(
            retries=1,
            retry_delay=timedelta(seconds=5),
            execution_timeout=timedelta(minutes=3),
        ),
        "on_failure_callback": health_notifier(SETTINGS),
    },
)
def monitor_training() -> None:
    """Read, then judge and heal."""
    heal = {
        part: TriggerDagRunOperator(
            task_id=f"heal_{part}",
            trigger_dag_id=dag_id,
            # The same each time that the task runs, and so is what it triggers.
            trigger_run_id=f"heal_{part}__{{{{ run_id }}}}",
            skip_when_already_exists=True,
            # A run that nothing starts would be waited for.
            fail_when_dag_is_paused=True,
            logical_date=None,
            conf={"resume": True},
        )
        for part, dag_id in DEPLOYED_BY.items()
    }
    read() >> [judge(), *heal.values()]
    for part, triggered in heal.items():
        triggered >> take_back.override(task_id=f"take_back_{part}")(part.value)


monitor_training()
