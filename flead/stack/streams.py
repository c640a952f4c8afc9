"""The stream analysis of the embedded stack, across a stop and a start."""

from flead.settings import Settings
from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.training import PREPARING_SECONDS, Say
from flead.storage import stream_deployments
from flead.storage.connection import connect
from flead.storage.migrations import migrate

DEPLOY_DAG = "deploy_stream_analysis"


def resume(addresses: Addresses, say: Say) -> None:
    """Deploy again the stream analysis that ran when the stack went down, and wait until it runs.

    Raises
    ------
    AirflowError
        When the deployment failed.
    """
    migrate(addresses.database_url)
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        wanted = stream_deployments.wanted(cursor)
    if wanted is not None:
        deploy(addresses, {"resume": True}, say)


def deploy(addresses: Addresses, params: dict[str, object], say: Say) -> None:
    """Run `deploy_stream_analysis` with Params, and wait until its driver analyses.

    Raises
    ------
    AirflowError
        When the run failed.
    """
    with AirflowClient.of(addresses) as airflow:
        run_id = airflow.trigger(DEPLOY_DAG, params)
        seconds = PREPARING_SECONDS + Settings.from_environment().job_start_seconds
        airflow.wait(DEPLOY_DAG, run_id, seconds, on_progress=say)
