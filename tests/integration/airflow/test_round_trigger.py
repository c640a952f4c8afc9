"""The wait for a round, against a real broker and database."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from flead.contracts.topics import LAYOUTS
from flead.messaging.reading import TopicRewoundError
from flead.messaging.topics import create_topics
from flead.rounds.opening import CONSUMER, TOPIC
from flead.storage import offsets
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead_airflow import rounds
from flead_airflow.rounds import AggregationReadyTrigger, WaitForUpdatesOperator
from tests.integration.airflow.triggerer import assert_loop_goes_on, collect, events_of

pytestmark = [
    pytest.mark.servers,
    pytest.mark.usefixtures("database_connection", "kafka_connection", "no_updates_to_read"),
]

UPDATE = (b"device", b"{}")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setenv("FLEAD_ROUND_MIN_UPDATES", "3")
    monkeypatch.setenv("FLEAD_ROUND_SECONDS", "30")
    monkeypatch.setenv("FLEAD_MAX_WAIT_SECONDS", "5")


def add_round(database_url, opened_at, *, state="empty"):
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aggregation_rounds (round, state, start_offsets, end_offsets, updates,"
            " dead_letters, opened_at, attempted_at, completed_at)"
            " VALUES (1, %s, '{}', '{}', 0, 0, %s, %s, %s)",
            (state, opened_at, opened_at, None if state == "open" else opened_at),
        )


def outcome(seconds):
    """Run a trigger that has so many seconds."""
    return events_of(AggregationReadyTrigger(deadline=time.time() + seconds, poll_seconds=0.1))


def test_the_trigger_is_rebuilt_from_its_class_path_and_all_its_arguments():
    assert AggregationReadyTrigger(deadline=1.5, poll_seconds=0.25).serialize() == (
        "flead_airflow.rounds.AggregationReadyTrigger",
        {"deadline": 1.5, "poll_seconds": 0.25},
    )


def test_it_fires_once_when_enough_updates_can_be_read(send_updates):
    send_updates(*[UPDATE] * 3)

    assert outcome(20) == [{"due": True}]


def test_it_fires_when_updates_come_while_it_waits(send_updates):
    async def send_later():
        trigger = AggregationReadyTrigger(deadline=time.time() + 30, poll_seconds=0.1)
        waiting = asyncio.ensure_future(collect(trigger))
        await asyncio.sleep(1)
        assert not waiting.done()
        await asyncio.to_thread(send_updates, *[UPDATE] * 3)
        return await asyncio.wait_for(waiting, 20)

    assert asyncio.run(send_later()) == [{"due": True}]


def test_too_few_updates_let_the_deadline_pass(send_updates):
    send_updates(*[UPDATE] * 2)

    assert outcome(1) == [{"due": False}]


def test_updates_wait_until_the_last_round_is_old_enough(send_updates, database_url):
    add_round(database_url, datetime.now(UTC))
    send_updates(*[UPDATE] * 3)

    assert outcome(1) == [{"due": False}]


def test_a_server_that_does_not_answer_is_an_error_at_the_deadline(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", "postgresql://flead:wrong@127.0.0.1:1/flead")

    with pytest.raises(Exception, match="Connection refused"):
        outcome(1)


def test_a_topic_that_was_rewound_is_an_error_at_once(database_url):
    with connect(database_url) as connection, connection.cursor() as cursor:
        offsets.store_next_offsets(cursor, CONSUMER, TOPIC, {0: 1_000_000_000})

    before = time.monotonic()
    with pytest.raises(TopicRewoundError, match="but was read up to 1000000000"):
        outcome(600)
    with pytest.raises(TopicRewoundError):
        WaitForUpdatesOperator(task_id="wait").execute({})

    assert time.monotonic() - before < 30


def test_the_event_loop_is_not_blocked(kafka, monkeypatch):
    trigger = AggregationReadyTrigger(deadline=time.time() + 2, poll_seconds=0.1)

    events = assert_loop_goes_on(monkeypatch, trigger, rounds, "is_due")

    assert events == [{"due": False}]


class TestTask:
    def test_ends_at_once_when_a_round_is_due(self, send_updates):
        send_updates(*[UPDATE] * 3)

        assert WaitForUpdatesOperator(task_id="wait").execute({}) is None

    def test_resumes_at_once_an_unfinished_round(self, database_url):
        add_round(database_url, datetime(2026, 1, 1, tzinfo=UTC), state="open")

        assert WaitForUpdatesOperator(task_id="wait").execute({}) is None

    def test_defers_until_max_wait_seconds_and_then_skips(self):
        task = WaitForUpdatesOperator(task_id="wait", poll_seconds=0.1)
        before = time.time()
        with pytest.raises(TaskDeferred) as deferred:
            task.execute({})

        assert before + 5 <= deferred.value.trigger.deadline <= time.time() + 5
        assert deferred.value.method_name == "resume"
        with pytest.raises(AirflowSkipException):
            task.resume({}, {"due": False})

    def test_goes_on_when_the_trigger_says_so(self):
        assert WaitForUpdatesOperator(task_id="wait").resume({}, {"due": True}) is None

    def test_prepares_a_database_and_a_broker_that_nothing_was_deployed_to(
        self, make_database, kafka, monkeypatch
    ):
        empty = make_database()
        monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", empty)
        monkeypatch.setenv("FLEAD_ROUND_MIN_UPDATES", "1000000")

        with pytest.raises(TaskDeferred):
            WaitForUpdatesOperator(task_id="wait").execute({})

        assert migrate(empty) == []
        assert create_topics({"bootstrap.servers": kafka}, LAYOUTS) == []
