"""Evaluations, quality results and a decision on hyperparameters that the running fleet tried."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from flead.stack.airflow_rest import AirflowClient
from flead.stack.decision import TUNING_DAG
from tests.system.conftest import DEVICES, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(900)]

DECISION_SECONDS = 300


@dataclass(frozen=True)
class Decided:
    """The row of a decision, and the run of the DAG that took it."""

    run: str
    row: dict[str, Any]

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """What each trial trained with."""
        return {trial["trial"]: trial["hyperparameters"] for trial in self.row["trials"]}


@pytest.fixture(scope="module")
def decided(streaming: Resumed) -> Decided:
    """Ask for a decision once devices have a period before it, and wait until it was taken."""
    began = datetime.now(UTC)
    wait_until(lambda: devices_with_rows_since(streaming, began) == DEVICES, DECISION_SECONDS)
    with AirflowClient.of(streaming.addresses) as airflow:
        run = airflow.trigger(TUNING_DAG, {"force": True})
        wait_until(lambda: airflow.has_ended(TUNING_DAG, run), DECISION_SECONDS)
    [(row,)] = streaming.query(
        "SELECT to_jsonb(decision) FROM tuning_decisions AS decision ORDER BY revision DESC LIMIT 1"
    )
    return Decided(run, row)


def devices_with_rows_since(stack: Resumed, began: datetime) -> int:
    """Count the devices of which as many labelled rows were trained as a decision asks for."""
    [(devices,)] = stack.query(
        "SELECT count(*) FROM (SELECT FROM local_models WHERE kafka_timestamp > %s"
        " GROUP BY device_id HAVING sum(rows_labelled) >= 60) AS ready",
        began,
    )
    return int(devices)


def test_evaluations_were_checked_before_they_led_to_anything(streaming: Resumed) -> None:
    results = dict(
        streaming.query("SELECT table_name, count(*) FROM data_quality_results GROUP BY table_name")
    )

    assert results["model_evaluations"] > 0
    assert results["model_feedback"] > 0


def test_the_decision_is_a_row_with_its_evidence(decided: Decided) -> None:
    # A large step waits for an answer, which nobody gives.
    assert decided.row["status"] in {"kept", "adopted", "rejected"}
    assert decided.row["decided_at"] is not None
    assert len(decided.trials) == 2
    assert decided.row["incumbent"] not in decided.trials.values()
    arms = decided.row["evidence"]["judgement"]["arms"]
    assert {arm["trial"] for arm in arms} == set(decided.trials)
    assert all(arm["devices"] >= 5 for arm in arms)


def test_updates_of_trials_are_kept_and_not_averaged(streaming: Resumed, decided: Decided) -> None:
    updates = streaming.query(
        "SELECT DISTINCT trial, status, aggregation_weight FROM local_models"
        " WHERE trial IS NOT NULL AND status <> 'pending'"
    )

    assert {trial for trial, _, _ in updates} == set(decided.trials)
    assert {weight for _, _, weight in updates} == {None}
    assert "accepted" not in {status for _, status, _ in updates}


def test_each_step_is_a_task_in_airflow(streaming: Resumed, decided: Decided) -> None:
    tasks = dict(
        streaming.query_airflow(
            "SELECT task_id, state FROM task_instance WHERE dag_id = %s AND run_id = %s",
            TUNING_DAG,
            decided.run,
        )
    )

    assert {tasks[each] for each in ("decide", "begin_trials", "judge")} == {"success"}


def test_the_fleet_trains_with_what_was_decided(streaming: Resumed, decided: Decided) -> None:
    def newest() -> list[tuple[int, str | None]]:
        return streaming.query(
            "SELECT hyperparameters_revision, trial FROM local_models"
            " ORDER BY kafka_timestamp DESC LIMIT 40"
        )

    revision = decided.row["fleet_revision"]
    wait_until(lambda: newest() and {trial for _, trial in newest()} == {None})
    if revision is not None:
        wait_until(lambda: {each for each, _ in newest()} == {revision})
    assert len(newest()) == 40
