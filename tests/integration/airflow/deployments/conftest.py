"""Deployments against a real database and cluster."""

import json
import os
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead_airflow.connections import Servers
from flead_airflow.deployments import open_new
from flead_airflow.flink.hook import FlinkRestHook
from tests.integration.airflow.deployments.attempts import CONFIGURATION, PARAMS
from tests.integration.airflow.waiting import wait_for


@pytest.fixture
def servers(database_url):
    migrate(database_url)
    return Servers(database_url, {"bootstrap.servers": "broker:9092"})


@pytest.fixture
def flink_hook(flink_connection, clean_flink, monkeypatch):
    name = f"AIRFLOW_CONN_{flink_connection.upper()}"
    connection = json.loads(os.environ[name])
    connection["extra"]["kafka"] = {"security.protocol": "PLAINTEXT"}
    monkeypatch.setenv(name, json.dumps(connection))
    with FlinkRestHook(flink_connection) as hook:
        yield hook


@pytest.fixture
def deploy(servers, flink_hook):
    """Open attempts whose ids no other test has used in the cluster that they share."""
    unused = uuid.uuid4().hex

    def open_attempt(name, stopped_job=None, savepoint=None, suffix=unused, **params):
        return open_new(
            servers,
            flink_hook,
            deployment_id=f"{name}-{suffix}",
            params=PARAMS | params,
            stopped_job=stopped_job,
            savepoint=savepoint,
        )

    return open_attempt


@pytest.fixture
def retain(flink_hook):
    """Lay out files as Flink does for a job whose checkpoints are retained."""

    def lay_out(job_id, number):
        directory = urlsplit(flink_hook.configuration()["execution.checkpointing.dir"]).path
        path = Path(directory) / job_id / f"chk-{number}"
        path.mkdir(parents=True)
        (path / "_metadata").touch()
        return path.as_uri()

    return lay_out


@pytest.fixture(scope="class")
def running_deployment(flink_connection, make_database, tiny_job):
    """Run the job of a deployment `a-SUFFIX`, with a completed checkpoint; return the suffix.

    The job's id follows from the deployment's, so that each test can record it in its own
    database.
    """
    suffix, database_url = uuid.uuid4().hex, make_database()
    migrate(database_url)
    with connect(database_url) as connection, connection.cursor() as cursor:
        job_id = deployments.open_attempt(cursor, f"a-{suffix}", CONFIGURATION).job_id
    with FlinkRestHook(flink_connection) as hook:
        hook.run_python_job(job_id, tiny_job)
        wait_for(lambda: hook.checkpoints(job_id).latest.completed)
        yield suffix
        hook.cancel(job_id)
