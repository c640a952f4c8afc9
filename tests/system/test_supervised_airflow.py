"""Airflow's four processes on the embedded PostgreSQL."""

import json
import os
import signal
import time

import httpx
import psutil
import pytest

from flead.stack import processes
from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.home import Home
from tests.conftest import run_flead
from tests.system.conftest import Resumed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

PROCESSES = (
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)


@pytest.fixture(scope="module")
def home(resumed: Resumed) -> Home:
    return resumed.home


@pytest.fixture(scope="module")
def airflow(resumed: Resumed) -> Addresses:
    return resumed.addresses


def login(url: str, user: str, password: str) -> int:
    return httpx.post(
        f"{url}/auth/token", json={"username": user, "password": password}, timeout=60
    ).status_code


def test_up_returns_when_every_process_reports_healthy(resumed: Resumed) -> None:
    report = resumed.airflow_health

    assert {component: found["status"] for component, found in report.items()} == {
        "metadatabase": "healthy",
        "scheduler": "healthy",
        "triggerer": "healthy",
        "dag_processor": "healthy",
    }


def test_only_the_generated_passwords_open_it(home: Home, airflow: Addresses) -> None:
    credentials = Credentials.of(home)

    assert login(airflow.airflow_url, "admin", credentials.airflow_admin) == 201
    assert login(airflow.airflow_url, "viewer", credentials.airflow_viewer) == 201
    assert login(airflow.airflow_url, "viewer", credentials.airflow_admin) == 401
    assert httpx.get(f"{airflow.airflow_url}/api/v2/dags", timeout=60).status_code == 401


def test_its_processes_listen_on_loopback_only(home: Home) -> None:
    listeners = {
        connection.laddr.ip
        for service in PROCESSES
        for process in processes.belonging_to(home, service)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }

    assert listeners == {"127.0.0.1"}


def test_a_killed_scheduler_leaves_no_task_worker(home: Home) -> None:
    record = processes.Record.read(home, "airflow-scheduler")
    assert record is not None
    leader = record.pid
    workers = [process.pid for process in psutil.Process(leader).children(recursive=True)]
    assert len(workers) >= 4

    os.kill(leader, signal.SIGKILL)

    deadline = time.monotonic() + 60
    while (successor := processes.Record.read(home, "airflow-scheduler")) is None or (
        successor.pid == leader
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [pid for pid in workers if processes.start_ticks(pid) is not None] == []
    assert run_flead(home, "up", "airflow").returncode == 0


def test_connections_name_the_servers_of_this_home(home: Home, airflow: Addresses) -> None:
    plan = json.loads(home.plan_file("airflow-scheduler").read_text())
    variables = plan["environment"]

    assert variables["AIRFLOW_CONN_FLEAD_DB"] == airflow.database_url
    kafka = json.loads(variables["AIRFLOW_CONN_FLEAD_KAFKA"])
    assert kafka["extra"]["bootstrap.servers"] == airflow.kafka_bootstrap
    flink = json.loads(variables["AIRFLOW_CONN_FLEAD_FLINK"])
    assert f"http://{flink['host']}:{flink['port']}" == airflow.flink_url
