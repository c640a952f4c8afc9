"""Three days of rows: by Airflow's backfill, by another one, and one of them by `flead batch`."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets
from flead.stack.batch import BATCH_DAG
from flead.storage.stream_batches import CONSUMER
from tests.conftest import run_flead
from tests.system.conftest import DEVICES, FLEET, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(600)]

DAYS = [date(2026, 3, 2), date(2026, 3, 3), date(2026, 3, 4)]
ROWS = 60 * DEVICES
BACKFILL_SECONDS = 300


@dataclass(frozen=True)
class Backfilled:
    """What a backfill left: its runs by day, and the days in the order of their analysis."""

    runs: list[tuple[date, str]]
    order: list[date]
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def archived(resumed: Resumed) -> None:
    """Send rows of three days that are long over, and wait until the stream has archived them."""
    for number, day in enumerate(DAYS):
        # The fleet has a daily rhythm: another hour, other values.
        start = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=6 * number)
        ran = run_flead(
            resumed.home, "simulate", *FLEET, "--rows", str(ROWS),
            "--start-ms", str(int(start.timestamp()) * 1000), "--speed", "max",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    ends = end_offsets(resumed.kafka, Topic.TELEMETRY)

    def is_read() -> bool:
        read = resumed.query(
            "SELECT partition, next_offset FROM stream_offsets WHERE consumer = %s AND topic = %s",
            CONSUMER,
            Topic.TELEMETRY,
        )
        return dict(read) == ends

    wait_until(is_read)


@pytest.fixture(scope="module")
def first(resumed: Resumed, archived: None) -> Backfilled:
    return backfill(resumed)


@pytest.fixture(scope="module")
def second(resumed: Resumed, first: Backfilled) -> Backfilled:
    return backfill(resumed)


def test_a_backfill_of_three_days_gives_three_days(first: Backfilled) -> None:
    assert first.runs == [(day, "success") for day in DAYS]
    counted = {
        day: [each["row_count"] for each in first.results if each["analysis_date"] == str(day)]
        for day in DAYS
    }
    assert {day: len(rows) for day, rows in counted.items()} == dict.fromkeys(DAYS, DEVICES)
    assert {day: sum(rows) for day, rows in counted.items()} == dict.fromkeys(DAYS, ROWS)


def test_days_are_analysed_in_their_order_each_against_those_before_it(first: Backfilled) -> None:
    assert first.order == DAYS
    assert {(each["analysis_date"], each["drift"] is None) for each in first.results} == {
        (str(DAYS[0]), True),
        (str(DAYS[1]), False),
        (str(DAYS[2]), False),
    }


def test_a_second_backfill_gives_the_same_rows(first: Backfilled, second: Backfilled) -> None:
    assert second.runs == first.runs
    assert second.results == first.results


def test_the_command_analyses_one_of_the_days_to_the_same_rows(
    resumed: Resumed, second: Backfilled
) -> None:
    ran = run_flead(resumed.home, "batch", "--date", str(DAYS[1]), "--json")

    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    [(state,)] = resumed.query_airflow(
        "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s",
        BATCH_DAG,
        report.pop("dag_run_id"),
    )
    [(reference,)] = resumed.query(
        "SELECT reference_model_version FROM analysis_days WHERE analysis_date = %s", DAYS[1]
    )
    assert state == "success"
    assert 0 < report.pop("seconds") < BACKFILL_SECONDS
    assert report == {
        "date": str(DAYS[1]),
        "state": "done",
        "rows": ROWS,
        "devices": DEVICES,
        "batch_rows": DEVICES,
        "model_version": None,
        "reference_model_version": reference,
        "needs_rerun": False,
    }
    assert f"· {BATCH_DAG}: analyse\n" in ran.stderr
    assert results(resumed) == second.results


def backfill(resumed: Resumed) -> Backfilled:
    """Have Airflow analyse the days, once more if it has, and wait until it has."""
    # Airflow takes one backfill of a DAG at a time, and looks now and then whether it is over.
    wait_until(
        lambda: (
            not resumed.query_airflow(
                "SELECT FROM backfill WHERE dag_id = %s AND completed_at IS NULL", BATCH_DAG
            )
        )
    )
    with httpx.Client(base_url=resumed.addresses.airflow_url, timeout=30) as airflow:
        account = {
            "username": resumed.addresses.airflow_user,
            "password": resumed.addresses.airflow_password,
        }
        token = airflow.post("/auth/token", json=account).json()["access_token"]
        created = airflow.post(
            "/api/v2/backfills",
            headers={"Authorization": f"Bearer {token}"},
            json={
                "dag_id": BATCH_DAG,
                "from_date": f"{DAYS[0]}T00:00:00Z",
                "to_date": f"{DAYS[-1] + timedelta(days=1)}T00:00:00Z",
                "reprocess_behavior": "completed",
            },
        )
    assert created.status_code == httpx.codes.OK, created.text

    def runs() -> list[tuple[date, str]]:
        return resumed.query_airflow(
            "SELECT (data_interval_start AT TIME ZONE 'UTC')::date, state FROM dag_run"
            " WHERE backfill_id = %s ORDER BY 1",
            created.json()["id"],
        )

    wait_until(lambda: {state for _, state in runs()} <= {"success", "failed"}, BACKFILL_SECONDS)
    order = resumed.query(
        "SELECT analysis_date FROM analysis_days WHERE analysis_date = ANY(%s)"
        " ORDER BY analysed_at",
        DAYS,
    )
    return Backfilled(runs(), [day for (day,) in order], results(resumed))


def results(resumed: Resumed) -> list[dict[str, Any]]:
    """Return all columns but the time of writing."""
    rows = resumed.query(
        "SELECT to_jsonb(result) - 'created_at' FROM batch_analysis_results AS result"
        " WHERE analysis_date = ANY(%s) ORDER BY analysis_date, device_id",
        DAYS,
    )
    return [row for (row,) in rows]
