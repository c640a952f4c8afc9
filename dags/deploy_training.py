"""Deploy the training job: a new configuration, or the one that ran before.

Migrates the database, creates the topics, checks the Params and Flink's configuration, stops the
running job with a savepoint, opens an attempt (its row, with the job id, is written before anything
is posted), sends its hyperparameters to the fleet under the next revision, submits the job from the
newest savepoint or retained checkpoint, and waits until every vertex runs and a checkpoint has
completed.
When that fails, or takes longer than `FLEAD_JOB_START_SECONDS`, the job is cancelled, and what was
stopped for it, or was down, runs again with its own parameters: from the newest checkpoint of the
job that failed if that one made any, so that no row is trained twice or left out, else from its own
state. The run has failed all the same, and its last task, `tell`, says why and what runs now.
What is left empty stays as it is: the features, the hyperparameters that the fleet has now, tuned
ones included, and the rest of the last deployment; only the time between checkpoints is chosen
anew.
Another feature list, or `fresh`, starts from nothing; the newest model of its features, if there is
one, is sent to the devices again. `resume` takes up what ran when the stack went down, with its
stored configuration; the other Params are then ignored.

## Triage
* **`tell` failed.** Its message says why the deployment failed and what runs now; the other tasks
  that failed show the same in detail. When a job runs "as before" there is no hurry.
* **`find_running_job` failed.** Something would have refused the new job, and the running one was
  left alone. The message names the Param, the setting of Flink, or the property of the connection.
* **`submit` failed: "was not accepted", with a Python traceback.** The job's script raised. Correct
  the Params (or the script) and trigger a new run: it continues where the restored job is.
* **"was not accepted", the script is not found.** `FLEAD_TRAINING_SCRIPT` is its path on the
  JobManager's machine, where `flead` must be installed too.
* **"Flink has forgotten job ..."**: a restart of the JobManager has, and its folder of checkpoints
  is not to be seen from Airflow. Mount it, or look for the newest `chk-...` or `savepoint-...` of
  that job yourself and trigger a new run with `restore_from`, its path.
* **"was not accepted: ... Cannot find checkpoint or savepoint".** The files are gone. Trigger a new
  run with `fresh`: devices start anew, global models stay.
* **"has not started".** The message names the vertices that wait and the newest failure of the job.
  `NoResourceAvailableException`: too few task slots; lower `parallelism`, or start a TaskManager.
  No checkpoint: look at the job's checkpoints in Flink's page, then at the log of the TaskManager.
* **`stop_running_job` warns that no savepoint was taken.** The job could not take one and was
  cancelled. Nothing is lost: the new job continues from its newest retained checkpoint.
* **Flink, Kafka or PostgreSQL do not answer.** `bin/flead status`, then `bin/flead logs SERVICE`.
  The task is tried again; clearing it later does no harm, because each task may run twice.
* **`restore` failed.** What ran before did not start either, so no device trains: rows wait in
  Kafka and are trained afterwards. `monitor_training` tries again, further and further apart.
* **A person marked `submit` as failed, or cleared it.** The job is cancelled in Flink (the log of
  the trigger says so), and what ran before is restored.
* **The run was marked as failed, or took longer than it may.** Airflow skips the tasks that
  restore. Within minutes `monitor_training` finds the job that was cancelled with it absent and
  takes up what was to be deployed; when that does not start either, what it replaced comes back,
  and at once if the failure had been recorded. If the run ended before `open_attempt` had, the job
  that it had stopped counts as ended by a person: trigger a new run, which continues from there.
* **`submit` refuses a job that is over, or that Flink has lost.** It was cleared after another
  deployment had taken its place. Or Flink has lost the job since it started, and posting it again
  would train rows twice. Trigger a new run.
* **`open_attempt` refuses because a job runs.** A task was cleared after this deployment had ended
  and what runs now had started. Nothing was changed: trigger a new run.
* **What happened when.** Every attempt and stop, with its reason, is in `training_deployments`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import msgspec
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.types import RuntimeTaskInstanceProtocol

from flead.contracts.deployment import MAX_PARALLELISM, TrainingDeployment
from flead.contracts.simulation import FEATURES
from flead.health.healing import deployment_limit
from flead.settings import Settings, TrainingCluster
from flead_airflow import connections
from flead_airflow.defaults import task_defaults
from flead_airflow.flink.operators import (
    FlinkCancelOperator,
    FlinkStopWithSavepointOperator,
    FlinkSubmitPythonJobOperator,
    failure_of,
)
from flead_airflow.preparing import create_topics, migrate

SETTINGS = Settings.from_environment()
DEFAULT = TrainingDeployment(features=list(FEATURES), bootstrap_servers="")
HYPERPARAMETERS = DEFAULT.hyperparameters
NO_REASON = (
    "see the first task that failed; a submission that a person ended, or that took too long,"
    " leaves no other reason, and its job was cancelled"
)
NO_JOB = "see the first task that failed; no new job was submitted"
ON_KUBERNETES: dict[str, Any] = {}
OF_DEPLOYMENT: dict[str, Any] = {}
if SETTINGS.training_cluster is TrainingCluster.KUBERNETES:
    from flead_airflow.kubernetes import KUBERNETES, template

    METADATA = template()["metadata"]
    ON_KUBERNETES = {"kubernetes_conn_id": KUBERNETES, "namespace": METADATA.get("namespace")}
    OF_DEPLOYMENT = {"deployment_name": METADATA["name"], **ON_KUBERNETES}


def kept(kind: str, at_first: float, description: str, **limits: object) -> Param:
    """Return a Param that changes nothing when it is left empty."""
    described = f"{description} Empty: as it is; at first {at_first:g}."
    return Param(default=None, type=["null", kind], description=described, **limits)


PARAMS = {
    "features": Param(
        default=None,
        type=["null", "array"],
        items={"type": "string", "minLength": 1},
        minItems=1,
        uniqueItems=True,
        description="Features of a row, in order. A list that differs from the last starts fresh,"
        " and what is left empty with it is as at first. Empty: as it is; at first those of the"
        " simulated fleet.",
    ),
    "learning_rate": kept(
        "number",
        HYPERPARAMETERS.learning_rate,
        "Step of the devices' SGD (eta0).",
        exclusiveMinimum=0,
        maximum=10,
    ),
    "alpha": kept(
        "number", HYPERPARAMETERS.alpha, "Strength of the L2 penalty.", minimum=0, maximum=1
    ),
    "window_rows": kept(
        "integer",
        HYPERPARAMETERS.window_rows,
        "Rows that close a device's window.",
        minimum=1,
        maximum=10_000,
    ),
    "window_seconds": kept(
        "number",
        HYPERPARAMETERS.window_seconds,
        "Seconds that the oldest row of a window waits before the window closes.",
        exclusiveMinimum=0,
        maximum=86_400,
    ),
    "local_epochs": kept(
        "integer",
        HYPERPARAMETERS.local_epochs,
        "Passes over each window.",
        minimum=1,
        maximum=100,
    ),
    "ditto_pull": kept(
        "number",
        HYPERPARAMETERS.ditto_pull,
        "How strongly personalized models are pulled to the global one; 0 is not.",
        minimum=0,
        maximum=1,
    ),
    "parallelism": kept(
        "integer",
        DEFAULT.parallelism,
        "Task slots of Flink that the job takes.",
        minimum=1,
        maximum=MAX_PARALLELISM,
    ),
    "checkpoint_interval_seconds": Param(
        default=None,
        type=["null", "number"],
        minimum=0.5,
        description="Seconds between checkpoints: updates become visible with them. Empty: 5, more"
        " for a fleet of more than 20,000 devices.",
    ),
    "devices": Param(
        default=None,
        type=["null", "integer"],
        minimum=1,
        description="Devices that the fleet will have, for the time between checkpoints. Empty:"
        " those that an update counted of in the last day.",
    ),
    "device_ttl_days": kept(
        "number",
        DEFAULT.device_ttl_days,
        "Days without a row after which a device is forgotten, with its models.",
        exclusiveMinimum=0,
    ),
    "fresh": Param(
        default=False,
        type="boolean",
        description="Start from nothing: devices lose their personalized models and open windows.",
    ),
    "restore_from": Param(
        default=None,
        type=["null", "string"],
        description="Savepoint or retained checkpoint to continue from, a path of Flink's such as"
        " s3://bucket/checkpoints/JOB/chk-7: the newest, or its rows are trained twice. Empty: the"
        " newest that is found.",
    ),
    "resume": Param(
        default=False,
        type="boolean",
        description="Take up the deployment that ran when the stack went down, as it was.",
    ),
}


@task
def find_running_job(params: dict[str, Any]) -> str:
    """Find the job to replace, "" when there is none; a resumed deployment replaces none."""
    from flead_airflow import deployments

    deployments.check_params(params)
    if params["resume"]:
        return ""
    with connections.flink() as flink:
        return deployments.find_running_job(connections.servers(), flink, params) or ""


@task
def open_attempt(
    stopped: dict[str, str | None], params: dict[str, Any], run_id: str
) -> dict[str, Any]:
    """Write the attempt, with its job id and the state that it continues from."""
    from flead_airflow import deployments

    servers = connections.servers()
    with connections.flink() as flink:
        if params["resume"]:
            submission = deployments.open_resumed(servers, flink)
        else:
            submission = deployments.open_new(
                servers,
                flink,
                deployment_id=run_id,
                params=params,
                stopped_job=stopped["job_id"],
                savepoint=stopped["savepoint_path"],
            )
    if submission is None:
        raise AirflowSkipException("no deployment was active: nothing to resume")
    return msgspec.to_builtins(submission)


@task
def send_hyperparameters() -> None:
    """Publish what the attempt has queued, so that the job finds it when it starts."""
    from flead.rounds.publishing import publish

    servers = connections.servers()
    publish(servers.database_url, servers.kafka)


@task
def record_active(job_id: str) -> None:
    """Make the attempt the active one."""
    from flead_airflow.deployments import record_active as record

    record(connections.servers().database_url, job_id)


@task(trigger_rule="one_failed")
def find_failed_job(ti: RuntimeTaskInstanceProtocol) -> str:
    """Find the job that has not started, "" when there is none; one that runs is left alone.

    The attempt may be that of an earlier try of this run, all of which was cleared.
    """
    from flead_airflow.deployments import failed_job

    opened: str | None = ti.xcom_pull(task_ids="open_attempt", key="job_id")
    with connections.flink() as flink:
        return failed_job(connections.servers().database_url, flink, opened)


@task
def record_failure(job_id: str, ti: RuntimeTaskInstanceProtocol) -> None:
    """Write down why the job did not start, and the state that it left."""
    from flead_airflow.deployments import record_failure as record

    if job_id:
        reason = failure_of(ti, "submit", job_id) or NO_REASON
        with connections.flink() as flink:
            record(connections.servers().database_url, flink, job_id, reason)


@task
def open_restored(stopped: dict[str, str | None], failed_job: str, run_id: str) -> dict[str, Any]:
    """Write an attempt of what was stopped for the deployment that failed, with its own Params."""
    from flead_airflow import deployments

    with connections.flink() as flink:
        submission = deployments.open_restored(
            connections.servers(),
            flink,
            deployment_id=run_id,
            failed_job=failed_job,
            stopped_job=stopped["job_id"],
            savepoint=stopped["savepoint_path"],
        )
    if submission is None:
        raise AirflowSkipException("no job was stopped for this deployment: nothing to restore")
    return msgspec.to_builtins(submission)


@task
def tell(job_id: str, ti: RuntimeTaskInstanceProtocol, run_id: str) -> None:
    """Fail with why the deployment has failed and what runs now."""
    from flead_airflow import deployments

    database_url = connections.servers().database_url
    reason = failure_of(ti, "submit", job_id) or (NO_REASON if job_id else NO_JOB)
    restored_job = ti.xcom_pull(task_ids="open_restored", key="job_id")
    with connections.flink() as flink:
        if restored_job:
            not_restored = failure_of(ti, "restore", restored_job) or NO_REASON
            deployments.record_failure(database_url, flink, restored_job, not_restored)
        told = deployments.outcome_of_failure(database_url, flink, run_id, reason)
    raise AirflowFailException(told)


@contextmanager
def only_while_open(job_id: str) -> Iterator[None]:
    """Guard of a submission: under the lock of submissions, and for an open attempt only."""
    from flead_airflow.deployments import submitting

    database_url = connections.servers().database_url
    with connections.flink() as flink, submitting(database_url, flink, job_id):
        yield


@task
def manifest(attempt: dict[str, Any]) -> str:
    """Fill in the FlinkDeployment of an attempt."""
    from flead_airflow.kubernetes import manifest_of

    with only_while_open(attempt["job_id"]):
        return manifest_of(attempt)


def submission(task_id: str, attempt: Any, after: Any) -> Any:
    """Submit the job of an attempt after a task, and wait until it has started."""
    awaited = {
        "task_id": task_id,
        "job_id": attempt["job_id"],
        "start_timeout_seconds": SETTINGS.job_start_seconds,
        "flink_conn_id": connections.FLINK,
    }
    if SETTINGS.training_cluster is TrainingCluster.KUBERNETES:
        from flead_airflow.flink.kubernetes import FlinkAwaitJobOperator, FlinkDeploymentOperator

        filled = manifest.override(task_id=f"{task_id}_manifest")(attempt)
        created = FlinkDeploymentOperator(
            task_id=f"{task_id}_cluster",
            application_file=filled,
            guard=only_while_open,
            flink_conn_id=connections.FLINK,
            **ON_KUBERNETES,
        )
        started = FlinkAwaitJobOperator(**awaited)
        after >> filled >> created >> started
        return started
    submitted = FlinkSubmitPythonJobOperator(
        script=SETTINGS.training_script,
        arguments=attempt["arguments"],
        parallelism=attempt["parallelism"],
        savepoint_path=attempt["savepoint_path"],
        guard=only_while_open,
        **awaited,
    )
    after >> submitted
    return submitted


def stop(task_id: str, job_id: Any) -> Any:
    """Stop a job with a savepoint."""
    stopped = {"task_id": task_id, "job_id": job_id, "flink_conn_id": connections.FLINK}
    if SETTINGS.training_cluster is TrainingCluster.KUBERNETES:
        from flead_airflow.flink.kubernetes import FlinkDeploymentStopOperator

        return FlinkDeploymentStopOperator(**stopped, **OF_DEPLOYMENT)
    return FlinkStopWithSavepointOperator(**stopped)


def cancel_failed_job(job_id: Any) -> Any:
    """End the job that has not started."""
    cancelled = {
        "task_id": "cancel_failed_job",
        "job_id": job_id,
        "flink_conn_id": connections.FLINK,
    }
    if SETTINGS.training_cluster is TrainingCluster.KUBERNETES:
        from flead_airflow.flink.kubernetes import FlinkDeploymentCancelOperator

        return FlinkDeploymentCancelOperator(**cancelled, **OF_DEPLOYMENT)
    return FlinkCancelOperator(**cancelled)


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=deployment_limit(SETTINGS),
    params=PARAMS,
    tags=["flead", "training"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=2,
        retry_delay=timedelta(seconds=5),
        execution_timeout=timedelta(minutes=10),
    ),
)
def deploy_training() -> None:
    """Prepare, stop, open, send, submit, record; when that fails, restore what was stopped."""
    running = find_running_job()
    attempt = open_attempt(stop("stop_running_job", running).output)
    sent = send_hyperparameters()
    submit = submission("submit", attempt, after=sent)
    [migrate(), create_topics()] >> running
    attempt >> sent
    record_active(submit.output)

    failed = find_failed_job()
    cancel = cancel_failed_job(failed)
    recorded = record_failure(failed)
    # Found stopped, unless the stop itself was cut short.
    stopped = stop("find_stopped_job", "{{ ti.xcom_pull(task_ids='find_running_job') or '' }}")
    before = open_restored(stopped.output, failed)
    sent_back = send_hyperparameters.override(task_id="send_hyperparameters_back")()
    restore = submission("restore", before, after=sent_back)
    restored = record_active.override(task_id="record_restored")(restore.output)
    # `tell` waits for it and for the job that failed: it is skipped when none was looked for.
    settled = EmptyOperator(task_id="settled", trigger_rule="all_done")
    [attempt, sent, submit] >> failed
    cancel >> recorded >> stopped
    before >> sent_back
    [recorded, restored] >> settled >> tell(failed)


deploy_training()
