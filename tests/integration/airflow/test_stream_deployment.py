"""The DAG of the stream analysis against a real broker, database and Spark."""

import json
import time

import msgspec
import psutil
import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag
from airflow.utils import db

from flead.contracts.topics import Topic
from flead.messaging.topics import create_topics
from flead.stack.spark import prepare_spark, spark_configuration, spark_environment, spark_submit
from flead.storage import stream_deployments
from flead.storage.connection import connect
from flead.storage.stream_deployments import StreamState
from flead_airflow.streams import StreamStartedTrigger

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]


@pytest.fixture
def run_dag(checkout, stack_home, tmp_path, monkeypatch, database_connection, kafka_connection):
    """Return the function that runs the DAG; drivers that are left end with the test."""
    prepare_spark(stack_home)
    spark = {
        "conn_type": "spark",
        "host": "local[2]",
        "extra": {
            "spark_submit": str(spark_submit(stack_home)),
            "environment": spark_environment(stack_home),
            "stream_environment": {"FLEAD_TEST_STREAM": "1"},
            "conf": spark_configuration(stack_home),
        },
    }
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_SPARK", json.dumps(spark))
    monkeypatch.setenv("FLEAD_ARCHIVE_URI", (tmp_path / "archive").as_uri())
    monkeypatch.setenv("FLEAD_STREAM_URI", (tmp_path / "stream").as_uri())
    monkeypatch.setenv("FLEAD_STREAM_LOG", str(tmp_path / "stream.log"))
    db.initdb()
    DagBundlesManager().sync_bundles_to_db()

    def run(**conf):
        path = checkout / "dags" / "deploy_stream_analysis.py"
        return DagBag(str(path)).dags["deploy_stream_analysis"].test(run_conf=conf)

    yield run
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLEAD_TEST_STREAM") == "1":
                process.kill()
        except psutil.Error:
            continue


def deployment(database_url, run_id):
    with connect(database_url) as connection, connection.cursor() as cursor:
        return stream_deployments.get(cursor, run_id)


def test_a_second_deployment_replaces_the_first_and_goes_on_from_it(
    run_dag, database_url, kafka, producer
):
    create_topics({"bootstrap.servers": kafka})
    row = {"device_id": "a", "event_time": time.time_ns() // 1_000_000, "features": {"x": 1.0}}
    producer.produce(Topic.TELEMETRY.value, msgspec.json.encode(row), b"a")
    assert producer.flush(30) == 0

    first = run_dag(trigger_seconds=0.5)
    second = run_dag(trigger_seconds=0.5, watermark_seconds=5)

    assert (first.state, second.state) == ("success", "success")
    before, after = (deployment(database_url, run.run_id) for run in (first, second))
    assert (before.state, before.is_wanted) == (StreamState.STOPPED, False)
    assert (after.state, after.is_wanted) == (StreamState.ACTIVE, True)
    assert after.configuration.watermark_seconds == 5
    assert after.configuration.checkpoint_uri == before.configuration.checkpoint_uri
    assert after.query_id == before.query_id


def test_the_trigger_survives_a_restart_of_the_triggerer():
    trigger = StreamStartedTrigger(deployment_id="run", deadline=12.5, poll_seconds=0.1)

    assert trigger.serialize() == (
        "flead_airflow.streams.StreamStartedTrigger",
        {"deployment_id": "run", "deadline": 12.5, "poll_seconds": 0.1},
    )
