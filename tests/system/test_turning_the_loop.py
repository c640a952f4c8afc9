"""Evaluations, quality results and a decision on hyperparameters that the running fleet tried."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from flead.stack.airflow_rest import AirflowClient
from flead.stack.decision import TUNING_DAG
from tests.system.conftest import DEVICES, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1800)]

CHECK_SECONDS = 300
"""Tasks that the stack's stop has cut short are tried again."""

ROWS_SECONDS = 300
"""The fleet may have to wait until a job of its own features is deployed again."""

DECISION_SECONDS = 420
"""Trials, the watch of what they led to, and the steps between."""

MIN_DEVICES = 5


@dataclass(frozen=True)
class Decided:
    """The row of a decision on trials, the run of the DAG that took it, and what it has led to."""

    run: str
    row: dict[str, Any]
    fleet_revision: int
    """With which the whole fleet trains in the end, also when what was adopted was taken back."""

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """What each trial trained with."""
        return {trial["trial"]: trial["hyperparameters"] for trial in self.row["trials"]}


@pytest.fixture(scope="module")
def decided(streaming: Resumed) -> Decided:
    """Ask for a decision once devices have a period before it, and wait until it was taken."""
    began = datetime.now(UTC)
    wait_until(lambda: devices_with_rows_since(streaming, began) >= DEVICES, ROWS_SECONDS)
    with AirflowClient.of(streaming.addresses) as airflow:
        run = airflow.trigger(TUNING_DAG, {"force": True})
        wait_until(lambda: airflow.has_ended(TUNING_DAG, run), DECISION_SECONDS)
    [(row,)] = streaming.query(
        "SELECT to_jsonb(decision) FROM tuning_decisions AS decision"
        " WHERE trial_started_at IS NOT NULL ORDER BY revision DESC LIMIT 1"
    )
    [(fleet_revision,)] = streaming.query(
        "SELECT fleet_revision FROM tuning_decisions ORDER BY revision DESC LIMIT 1"
    )
    return Decided(run, row, fleet_revision)


def devices_with_rows_since(stack: Resumed, began: datetime) -> int:
    """Count the devices of which as many labelled rows were trained as a decision asks for."""
    [(devices,)] = stack.query(
        "SELECT count(*) FROM (SELECT FROM local_models WHERE kafka_timestamp > %s"
        " GROUP BY device_id HAVING sum(rows_labelled) >= 60) AS ready",
        began,
    )
    return int(devices)


def test_evaluations_were_checked_before_they_led_to_anything(streaming: Resumed) -> None:
    def checked() -> set[str]:
        return {
            table for (table,) in streaming.query("SELECT table_name FROM data_quality_results")
        }

    tables = {"model_evaluations", "model_feedback"}
    wait_until(lambda: tables <= checked(), CHECK_SECONDS)
    assert tables <= checked()


def test_the_decision_is_a_row_with_its_evidence(decided: Decided) -> None:
    # A large step waits for an answer, which nobody gives.
    assert decided.row["status"] in {"adopted", "rejected"}
    assert decided.row["decided_at"] is not None
    assert len(decided.trials) == 2
    assert decided.row["incumbent"] not in decided.trials.values()
    arms = decided.row["evidence"]["judgement"]["arms"]
    assert {arm["trial"] for arm in arms} == set(decided.trials)
    # A hash puts a quarter of the fleet into each, more or less.
    compared = [arm for arm in arms if arm["p_holm"] is not None]
    assert compared == [arm for arm in arms if arm["devices"] >= MIN_DEVICES] != []


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
            " ORDER BY kafka_timestamp DESC LIMIT %s",
            DEVICES,
        )

    wait_until(lambda: set(newest()) == {(decided.fleet_revision, None)})

    assert len(newest()) == DEVICES
