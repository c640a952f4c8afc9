"""The wait for the end of a trial, against a real database."""

from datetime import UTC, datetime, timedelta

import pytest

from flead.contracts.messages import Hyperparameters
from flead.storage.migrations import migrate
from flead_airflow.tuning import TuningDueTrigger
from tests.integration.airflow.triggerer import events_of
from tests.integration.tuned_fleet import Fleet

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("database_connection")]


@pytest.fixture
def fleet(database_url, monkeypatch, kafka_connection):
    monkeypatch.setenv("FLEAD_MAX_WAIT_SECONDS", "1")
    migrate(database_url)
    made = Fleet(database_url)
    made.deploy()
    made.promote(1)
    made.ask_for(Hyperparameters(learning_rate=0.4))
    return made


def outcome(seconds):
    """Run a trigger for so many seconds at most."""
    return events_of(TuningDueTrigger(revision=2, poll_seconds=0.1), seconds)


def begin(fleet, at):
    fleet.query(
        "UPDATE tuning_decisions SET status = 'trying', fleet_revision = 3, trial_started_at = %s"
        " RETURNING revision",
        at,
    )


def test_the_trigger_is_rebuilt_from_its_class_path_and_all_its_arguments():
    assert TuningDueTrigger(revision=7, poll_seconds=0.25).serialize() == (
        "flead_airflow.tuning.TuningDueTrigger",
        {"revision": 7, "poll_seconds": 0.25},
    )


def test_it_fires_once_when_the_trial_is_over(fleet):
    begin(fleet, datetime.now(UTC))

    assert outcome(30) == [{"revision": 2}]


def test_it_waits_until_then(fleet):
    begin(fleet, datetime.now(UTC) + timedelta(hours=1))

    with pytest.raises(TimeoutError):
        outcome(1)


def test_it_asks_again_when_the_database_does_not_answer(fleet, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", "postgresql://flead:wrong@127.0.0.1:1/flead")

    with pytest.raises(TimeoutError):
        outcome(1)
