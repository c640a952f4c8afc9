"""Tests that need Airflow, whose settings must be there before its first import.

The tools environment has no Airflow: this folder is run by Airflow's own.
"""

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from flead.messaging.reading import end_offsets
from flead.messaging.topics import create_topics
from flead.rounds.opening import CONSUMER, TOPIC
from flead.stack.home import CHECKOUT, Home
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.offsets import store_next_offsets

if importlib.util.find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    AIRFLOW_HOME = tempfile.mkdtemp(prefix="flead-airflow-test-")
    os.environ |= {
        "AIRFLOW_HOME": AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }


@pytest.fixture(scope="session")
def tiny_job() -> str:
    """Return the path of a PyFlink script that starts in seconds."""
    return str(Path(__file__).with_name("tiny_job.py"))


@pytest.fixture(scope="session")
def flink_connection(flink: str, stack_home: Home) -> Iterator[str]:
    """Return the id of an Airflow connection to a real session cluster."""
    host, _, port = flink.removeprefix("http://").partition(":")
    (python_jar,) = (stack_home.config / "flink" / "opt").glob("flink-python-*.jar")
    connection = {
        "conn_type": "http",
        "schema": "http",
        "host": host,
        "port": int(port),
        "extra": {"python_jar": str(python_jar)},
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_FLEAD_FLINK", json.dumps(connection))
        yield "flead_flink"


@pytest.fixture(scope="session")
def run_dag(checkout: Path) -> Callable[..., Any]:
    """Return the function that runs a DAG to its end: run(dag_id, prepare, **conf).

    `prepare` is called with the DAG before it runs.
    """
    from airflow.dag_processing.bundles.manager import (  # noqa: PLC0415 - after its settings
        DagBundlesManager,
    )
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - the same
    from airflow.utils import db  # noqa: PLC0415 - the same

    db.initdb()
    DagBundlesManager().sync_bundles_to_db()

    def run(dag_id: str, prepare: Callable[[Any], None] = lambda _: None, **conf: Any) -> Any:
        # Airflow keeps the Params of a test run in the DAG object: each run has one of its own.
        dag = DagBag(str(checkout / "dags" / f"{dag_id}.py")).dags[dag_id]
        prepare(dag)
        return dag.test(run_conf=conf)

    return run


@pytest.fixture
def clean_flink(flink_connection: str) -> Iterator[None]:
    """Cancel the jobs that the test has started, and leave those that ran before."""
    from flead_airflow.flink.hook import FlinkRestHook  # noqa: PLC0415 - after Airflow's settings

    def running() -> set[str]:
        return {job.jid for job in hook.jobs() if not job.state.ended}

    with FlinkRestHook(flink_connection) as hook:
        before = running()
        yield
        for job_id in running() - before:
            hook.cancel(job_id)


@pytest.fixture
def kafka_connection(kafka: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of an Airflow connection to a real broker."""
    connection = {"conn_type": "kafka", "extra": {"bootstrap.servers": kafka}}
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_KAFKA", json.dumps(connection))
    return "flead_kafka"


@pytest.fixture
def send_updates(producer: Producer) -> Callable[..., None]:
    """Return the function that writes messages, given as (key, value), as updates of devices."""

    def send(*messages: tuple[bytes, bytes]) -> None:
        for key, value in messages:
            producer.produce(TOPIC, value, key)
        assert producer.flush(30) == 0

    return send


@pytest.fixture
def database_connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the id of an Airflow connection to an empty database of this test."""
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", database_url)
    return "flead_db"


@pytest.fixture
def no_updates_to_read(database_connection: str, database_url: str, kafka: str) -> None:
    """Prepare database and topics as if rounds had read all that other tests have written."""
    properties = {"bootstrap.servers": kafka}
    migrate(database_url)
    create_topics(properties)
    ends = end_offsets(properties, TOPIC)
    with connect(database_url) as connection, connection.cursor() as cursor:
        store_next_offsets(cursor, CONSUMER, TOPIC, ends)
