"""Take the global model back to an earlier version.

The good weights are published as a new version, which devices adopt within a checkpoint; all
versions after the good one are marked `rolled_back`, and updates that are based on them are
rejected. Personalized models go back to what they were before. Rounds roll back by themselves when
a head turns out worse than its parent; this DAG is for people, for `evaluation_quality` where no
round comes, and for other programs.

## Triage
* **`roll_back` failed with RollbackError.** The message says what is wrong with the version;
  `bin/flead models list` shows which were promoted.
* **`roll_back` is skipped.** The version `head` that was to be taken back is the head no longer.
* **`publish` failed.** The rollback is stored and waits in the table `outbox`: clear the task, or
  let the next round publish it.
* **The devices still use the bad version.** Does the training job run (`bin/flead status`)? Updates
  of it are rejected as `rolled_back_base` until it adopts the new one.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.types import OutletEventAccessorsProtocol

from flead.settings import Settings
from flead_airflow import connections
from flead_airflow.assets import GLOBAL_MODEL
from flead_airflow.defaults import task_defaults


@task
def roll_back(params: dict[str, Any], run_id: str) -> int:
    """Store the version that carries the good weights."""
    from flead.rounds.rollback import HeadReplacedError
    from flead.rounds.rollback import roll_back as restore

    try:
        return restore(
            connections.servers().database_url,
            Settings.from_environment(),
            params["version"],
            params["reason"],
            f"rollback_model/{run_id}",
            head=params["head"],
        )
    except HeadReplacedError as reason:
        raise AirflowSkipException(str(reason)) from None


@task(outlets=[GLOBAL_MODEL])
def publish(version: int, outlet_events: OutletEventAccessorsProtocol) -> None:
    """Send the version to the devices, and tell the DAGs that wait for one."""
    from flead.rounds.publishing import publish as send

    servers = connections.servers()
    send(servers.database_url, servers.kafka)
    outlet_events[GLOBAL_MODEL].extra = {"version": version}


@dag(
    schedule=None,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    tags=["flead", "federation"],
    doc_md=__doc__,
    params={
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="Promoted version to go back to; the parent of the head when empty",
        ),
        "head": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="Version to take back; nothing is done when it is the head no longer",
        ),
        "reason": Param("asked for", type="string", minLength=1, description="Why; it is stored"),
    },
    default_args=task_defaults(
        retries=3, retry_delay=timedelta(seconds=2), execution_timeout=timedelta(minutes=10)
    ),
)
def rollback_model() -> None:
    """Roll back, publish."""
    publish(roll_back())


rollback_model()
