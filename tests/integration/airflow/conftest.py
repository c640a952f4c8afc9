"""Tests that need Airflow: the environment is set before its first import."""

import importlib.util
import json
import os
import tempfile
import uuid
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
HAS_AIRFLOW = importlib.util.find_spec("airflow.sdk") is not None if (
    importlib.util.find_spec("airflow")
) else False

collect_ignore_glob = [] if HAS_AIRFLOW else ["test_*.py"]
"""The tools environment has no Airflow: `make test` runs this folder in Airflow's own."""

if HAS_AIRFLOW:
    HOME = tempfile.mkdtemp(prefix="flead-airflow-test-")
    os.environ |= {
        "AIRFLOW_HOME": HOME,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(Path(HOME) / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }

FLINK_CONNECTION = "flink_of_the_test"


@pytest.fixture(scope="session")
def flink_port():
    return 28181


@pytest.fixture(scope="session")
def python_jar():
    return str(
        REPOSITORY
        / ".flead/envs/flink/lib/python3.11/site-packages/pyflink/opt/flink-python-2.3.0.jar"
    )


@pytest.fixture
def flink(flink_port, python_jar, monkeypatch):
    """A hook on a real session cluster; what a test leaves running is cancelled."""
    from flead_airflow.flink.hook import FlinkRestHook

    connection = {
        "conn_type": "http",
        "host": "127.0.0.1",
        "port": flink_port,
        "schema": "http",
        "extra": {"python_jar": python_jar},
    }
    monkeypatch.setenv(f"AIRFLOW_CONN_{FLINK_CONNECTION.upper()}", json.dumps(connection))
    with FlinkRestHook(FLINK_CONNECTION) as hook:
        yield hook
        for job in hook.jobs():
            if not job.state.ended:
                hook.cancel(job.jid)


@pytest.fixture
def job_id():
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def tiny_job():
    """Path of a PyFlink script that starts in seconds."""
    return str(Path(__file__).with_name("tiny_job.py"))
