"""Deploy the stream analysis: a new configuration, or the one that ran before.

Migrates the database, creates the topics, asks the driver that runs to end after its batch, writes
the row of the new deployment, launches its driver, and waits until that has committed a batch (or
has nothing to read). The driver outlives the run; `stream_deployments` tells its state, heartbeat,
lag and last batch. A deployment goes on where the one before it ended, in Kafka and in the history
of the devices. `resume` takes up what ran when the stack went down; the other Params are ignored.

## Triage
* **`stop_running` failed.** The message names the process that has not ended. A batch may take as
  long as `max_rows` makes it; clear the task to wait on.
* **`wait` failed.** The message ends with the driver's log. "another driver ... runs": one that has
  no row here holds the lock; end its process. "cannot be read": a file with the history of devices
  is lost; deploy with `fresh`.
* **Data loss.** Kafka has deleted messages that were never read. Deploy with `fresh` and say so in
  the log of the operator: those rows are in no window and no archive.
* **The driver ended later.** Its row has state `failed` and the reason. Trigger a run: nothing is
  lost or counted twice.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from flead.health.healing import deployment_limit
from flead.settings import Settings
from flead_airflow.defaults import task_defaults
from flead_airflow.preparing import create_topics, migrate
from flead_airflow.streams import WaitForStreamOperator

STOP_SECONDS = 300.0

PARAMS = {
    "windows_seconds": Param(
        [30, 300],
        type="array",
        items={"type": "integer", "minimum": 1, "maximum": 86_400},
        minItems=1,
        uniqueItems=True,
        description="Lengths of the windows in seconds; each divides a day.",
    ),
    "trigger_seconds": Param(
        30, type="number", exclusiveMinimum=0, description="Seconds between two batches."
    ),
    "max_rows": Param(
        200_000, type="integer", minimum=1, description="Messages of a batch at most."
    ),
    "watermark_seconds": Param(
        60,
        type="number",
        minimum=0,
        description="How far a row may lie behind the newest of its device and still be counted.",
    ),
    "fresh": Param(
        default=False,
        type="boolean",
        description="A new checkpoint, at the stored position; lost history is done without.",
    ),
    "resume": Param(
        default=False,
        type="boolean",
        description="Take up the deployment that ran when the stack went down, as it was.",
    ),
}


@task
def configure(params: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Make the configuration, before anything that runs is stopped."""
    import msgspec

    from flead_airflow import stream_deployments

    if params["resume"]:
        configuration = stream_deployments.configuration_to_resume()
    else:
        configuration = stream_deployments.configuration_of(params, run_id)
    if configuration is None:
        raise AirflowSkipException("no stream analysis is to be resumed")
    return dict(msgspec.to_builtins(configuration))


@task
def stop_running(configuration: dict[str, Any]) -> dict[str, Any]:
    """Let the driver that runs end after its batch."""
    from flead_airflow import stream_deployments

    stream_deployments.stop_running(STOP_SECONDS)
    return configuration


@task
def submit(configuration: dict[str, Any]) -> str:
    """Write the row of the deployment, and launch its driver."""
    import msgspec

    from flead.contracts.analysis import StreamAnalysis
    from flead_airflow import stream_deployments

    given = msgspec.convert(configuration, StreamAnalysis)
    stream_deployments.submit(given)
    return given.deployment_id


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=deployment_limit(Settings.from_environment()),
    params=PARAMS,
    tags=["flead", "analysis"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=2,
        retry_delay=timedelta(seconds=5),
        execution_timeout=timedelta(minutes=10),
    ),
)
def deploy_stream_analysis() -> None:
    """Prepare, configure, stop, submit, wait."""
    configuration = configure()
    [migrate(), create_topics()] >> configuration
    deployment = submit(stop_running(configuration))
    WaitForStreamOperator(task_id="wait", deployment_id=deployment, retries=1)


deploy_stream_analysis()
