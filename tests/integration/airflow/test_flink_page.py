"""The example of docs/flink_operators.md does what the page says."""

import os
import re
import time

import pytest
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from sqlalchemy import select

from flead_airflow.flink.hook import FlinkRestHook

pytestmark = [pytest.mark.servers, pytest.mark.lengthy]

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
ITS_OWN = {
    '"/opt/jobs/orders.py"': "{script!r}",
    '["--orders-rate", "{{ params.rate }}"]': "[]",
}


@pytest.mark.usefixtures("run_dag", "clean_flink")
def test_its_dag_replaces_the_job_of_the_run_before_from_its_savepoint_or_its_checkpoint(
    checkout, flink_connection, tiny_job, tmp_path, monkeypatch
):
    monkeypatch.setenv(
        "AIRFLOW_CONN_FLINK_DEFAULT", os.environ[f"AIRFLOW_CONN_{flink_connection.upper()}"]
    )
    [source] = EXAMPLE.findall((checkout / "docs" / "flink_operators.md").read_text())
    for written, used in ITS_OWN.items():
        assert source.count(written) == 1
        source = source.replace(written, used.format(script=tiny_job))
    file = tmp_path / "deploy_orders.py"
    file.write_text(source)
    bag = DagBag(str(file))
    sync_bag_to_db(bag, "dags-folder", None)

    def run():
        assert bag.dags["deploy_orders"].test().state == "success"
        with create_session() as session:
            return session.scalars(select(Variable).where(Variable.key == "orders_job")).one().val

    first, second = run(), run()

    with FlinkRestHook(flink_connection) as hook:
        assert hook.job(first).state == "FINISHED"
        assert hook.job(second).runs_every_vertex
        assert hook.checkpoints(second).latest.restored.is_savepoint
        hook.cancel(second)
        while not hook.job(second).state.ended:
            time.sleep(0.2)

        third = run()

        restored = hook.checkpoints(third).latest.restored
        assert f"/{second}/chk-" in restored.external_path
