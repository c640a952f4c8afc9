"""Ten minutes of a healthy stack: the health gate looks every minute and finds nothing."""

import json
import time
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.conftest import run_flead
from tests.system.conftest import Resumed

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1800)]

SECONDS = 600
LEAST_READINGS = 9
HEALTH_DAG = "monitor_training"
HEALING_DAGS = ["deploy_training", "deploy_stream_analysis"]


@dataclass(frozen=True)
class Watched:
    """A stack into which a fleet has streamed for a while, and when that began and ended."""

    stack: Resumed
    began: datetime
    ended: datetime


@pytest.fixture(scope="module")
def watched(streaming: Resumed) -> Watched:
    [(began,)] = streaming.query("SELECT now()")
    time.sleep(SECONDS)
    [(ended,)] = streaming.query("SELECT now()")
    return Watched(streaming, began, ended)


def test_every_reading_of_every_minute_is_healthy(watched: Watched) -> None:
    readings = watched.stack.query(
        "SELECT verdict, reasons FROM training_health WHERE created_at BETWEEN %s AND %s",
        watched.began,
        watched.ended,
    )

    assert [reading for reading in readings if reading != ("healthy", [])] == []
    assert len(readings) >= LEAST_READINGS


def test_no_run_of_the_health_gate_fails_and_nothing_is_deployed_again(watched: Watched) -> None:
    runs = dict(
        watched.stack.query_airflow(
            "SELECT state, count(*) FROM dag_run"
            " WHERE dag_id = %s AND start_date BETWEEN %s AND %s GROUP BY state",
            HEALTH_DAG,
            watched.began,
            watched.ended,
        )
    )
    healing = watched.stack.query_airflow(
        "SELECT dag_id, run_id FROM dag_run WHERE dag_id = ANY(%s) AND queued_at >= %s",
        HEALING_DAGS,
        watched.began,
    )

    assert runs.keys() <= {"success", "running"}
    assert runs["success"] >= LEAST_READINGS
    assert healing == []


def test_a_round_of_the_time_replays_to_the_bytes_that_it_made(watched: Watched) -> None:
    [(number, version)] = watched.stack.query(
        "SELECT round, version FROM aggregation_rounds"
        " WHERE version IS NOT NULL AND completed_at >= %s ORDER BY round DESC LIMIT 1",
        watched.began,
    )

    ran = run_flead(watched.stack.home, "rounds", "replay", str(number), "--json")

    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert (report["round"], report["version"]) == (number, version)
    assert report["identical"] is True
    assert report["sha256"] == report["stored_sha256"]
