"""Aggregate a round of local updates into a new global model, again and again.

Each run is one round. It waits until enough updates can be read beyond the stored offsets and
enough time has passed since the last round, or resumes a round that a crash left unfinished. Then
it moves the updates into the database, judges the candidate of the round before by what devices
measured on the same rows, averages the plausible updates into the next candidate, and publishes
both to the devices: the promoted version to be used, the candidate to be scored. A run that waits
in vain ends as skipped.

## Triage
* **Runs end as skipped.** No round was due for `FLEAD_MAX_WAIT_SECONDS`: fewer than
  `FLEAD_ROUND_MIN_UPDATES` updates came. Does the training job run (`bin/flead status`, Flink's
  page)? If not, trigger `deploy_training`. Does the fleet send rows (topic `edge-iiot-stream`)?
* **`wait_for_updates` failed with TopicRewoundError.** The topic `local-model-updates` ends before
  what was read: it was deleted, or its broker lost data. The message says what to remove.
* **`aggregate` failed.** Its round stays open and is resumed by the next run, with a growing pause;
  nothing is averaged twice. `HeadMovedError`: another promotion came between, a retry settles it.
* **`aggregate` failed: "is not averaged and stays open".** The round's updates break a critical
  rule of `expectations/local_models.json`; the message names it with an example, and
  `data_quality_results` has all. Repair the rows of `local_models`, and the next run goes on;
  `FLEAD_ROUND_QUALITY_CHECK=false` lets rounds go on unchecked.
* **`aggregate` failed with NothingDeployedError.** Trigger `deploy_training`: without a deployment
  there is no feature list to aggregate for.
* **`publish` is skipped: nothing was promoted.** The table `promotion_decisions` says what became
  of each candidate and on what evidence; a candidate is undecided until `FLEAD_GATE_MIN_ROWS`
  labelled rows of `FLEAD_GATE_MIN_DEVICES` devices have scored it. Or every update was rejected:
  `aggregation_rounds.rejected` counts the reasons, `local_models.reject_reason` has each.
  `stale_base`: devices do not adopt new versions, so look at the topic `global-model-updates` and
  at the training job.
* **`publish` failed.** The version is stored and waits in the table `outbox`: clear the task, or
  let the next round publish it.
* **A version was rolled back.** It turned out worse than its parent: `promotion_decisions` has the
  figures. To go back by hand, trigger `rollback_model`.
* **Kafka or PostgreSQL do not answer.** `bin/flead status`, then `bin/flead logs SERVICE`.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.types import OutletEventAccessorsProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.assets import GLOBAL_MODEL
from flead_airflow.defaults import task_defaults
from flead_airflow.rounds import WaitForUpdatesOperator


@task
def open_round(run_id: str) -> int:
    """Move the updates of the round from Kafka into the database."""
    from flead.rounds.opening import open_or_resume

    servers = connections.servers()
    opened = open_or_resume(
        servers.database_url, servers.kafka, Settings.from_environment(), run_id
    )
    if opened is None:
        raise AirflowSkipException("nothing could be read: there is no round to aggregate")
    return opened.number


@task
def aggregate(number: int, run_id: str) -> int | None:
    """Judge candidate and updates, make the next version; return the one that was promoted."""
    from flead.quality.rounds import BadRoundError, check_round
    from flead.rounds.aggregation import aggregate as make

    servers = connections.servers()
    settings = Settings.from_environment()
    if settings.round_quality_check:
        try:
            check_round(servers.database_url, number, run_id)
        except BadRoundError as reason:
            # A retry would find the same rows.
            raise AirflowFailException(str(reason)) from None
    return make(servers.database_url, settings, number).promoted_version


@task(outlets=[GLOBAL_MODEL])
def publish(version: int | None, outlet_events: OutletEventAccessorsProtocol) -> None:
    """Send models to the devices, and tell the DAGs that wait for a promoted version."""
    from flead.rounds.publishing import publish as send

    servers = connections.servers()
    send(servers.database_url, servers.kafka)
    if version is None:
        raise AirflowSkipException("nothing was promoted: see the Triage of this DAG")
    outlet_events[GLOBAL_MODEL].extra = {"version": version}


@dag(
    schedule="@continuous",
    # Without one, the interval of each run would begin where the first began, and be refused.
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    tags=["flead", "federation"],
    doc_md=__doc__,
    default_args=task_defaults(
        retries=3, retry_delay=timedelta(seconds=2), execution_timeout=timedelta(minutes=10)
    ),
)
def aggregation_round() -> None:
    """Wait, open, aggregate, publish."""
    number = open_round()
    WaitForUpdatesOperator(task_id="wait_for_updates") >> number
    publish(aggregate(number))


aggregation_round()
