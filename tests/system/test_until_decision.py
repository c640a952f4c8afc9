"""The demonstration until a decision, from nothing, with the settings that it brings itself."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from flead.settings import Settings
from flead.stack.addresses import Addresses
from flead.stack.decision import TUNING_DAG
from flead.stack.home import Home
from tests.conftest import run_flead, start

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1200)]

DEVICES = 200
SECONDS = 480
"""From the moment that the servers answer to the decision, on two cores."""

OF_OTHER_TESTS = ("FLEAD_TUNING_", "FLEAD_ROUND_", "FLEAD_GATE_", "FLEAD_EVALUATION_")


@dataclass(frozen=True)
class Decided:
    """What the command printed, and the database that it left."""

    report: dict[str, Any]
    said: str
    addresses: Addresses


@pytest.fixture(scope="module")
def decided(make_home: Callable[[], Home]) -> Decided:
    home = make_home()
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(OF_OTHER_TESTS)]:
            environment.delenv(name)
        environment.setenv("FLEAD_EVALUATION_MIN_ROWS", str(Settings().evaluation_min_rows))
        ran = run_flead(
            home, "demo", "--devices", str(DEVICES), "--until-decision",
            "--timeout", str(SECONDS), "--json",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return Decided(json.loads(ran.stdout), ran.stderr, start(home, "postgres"))


def test_it_reports_what_was_checked_tried_and_decided(decided: Decided) -> None:
    report = decided.report

    counted = ("quality_results", "checked_evaluations", "trial_updates", "decisions_on_trials")
    assert {name: report[name] > 0 for name in counted} == dict.fromkeys(counted, True)
    assert report["tuning_decisions"] >= report["decisions_on_trials"]
    assert report["devices"] == DEVICES
    assert len(report["versions"]) >= 3


def test_the_decision_was_taken_on_trials_that_could_be_compared(decided: Decided) -> None:
    decisions = query(
        decided.addresses.database_url, "SELECT * FROM tuning_decisions ORDER BY revision"
    )

    [decision] = [each for each in decisions if each["status"] in {"adopted", "rejected"}]
    assert decision["decided_at"] > decision["trial_started_at"]
    arms = decision["evidence"]["judgement"]["arms"]
    assert len(arms) == 2
    assert any(arm["p_holm"] is not None for arm in arms)


def test_it_says_on_its_way_how_far_the_decision_has_come(decided: Decided) -> None:
    [(revision, status)] = [
        (each["revision"], each["status"])
        for each in query(
            decided.addresses.database_url,
            "SELECT revision, status FROM tuning_decisions ORDER BY revision DESC LIMIT 1",
        )
    ]

    assert f"· decision {revision}: trying, 2 trials of 60 s\n" in decided.said
    assert f"· decision {revision}: {status}: " in decided.said


def test_each_step_was_a_task_in_airflow(decided: Decided) -> None:
    # The command ends with the decision, which may be before its task does.
    begun = query(
        decided.addresses.airflow_database_url,
        "SELECT DISTINCT task_id FROM task_instance WHERE dag_id = %s"
        " AND state IN ('running', 'success')",
        TUNING_DAG,
    )

    assert {each["task_id"] for each in begun} >= {"decide", "begin_trials", "judge"}


def query(url: str, statement: str, *values: object) -> list[dict[str, Any]]:
    connection = psycopg2.connect(url, cursor_factory=psycopg2.extras.RealDictCursor)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()]
    finally:
        connection.close()
