"""When a round is due: what is stored compared with what can be read."""

import uuid
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from flead.contracts.topics import Topic
from flead.rounds.aggregation import aggregate
from flead.rounds.lineage import NothingDeployedError
from flead.rounds.readiness import pending_updates, round_is_due

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("database_server", ["postgresql"], indirect=True),
]

A = np.array([0.5, -1.0, 0.25, 2.0, 1.0])


@pytest.fixture
def due(federation):
    """Return a function that tells whether a round is due at a moment."""
    federation.settings = msgspec.structs.replace(
        federation.settings, round_seconds=60.0, round_min_updates=3, max_wait_seconds=200.0
    )
    return lambda now: round_is_due(
        federation.database_url, federation.kafka, federation.settings, now
    )


def send(federation, make_update, count):
    federation.send(*[make_update(f"device-{number}", A) for number in range(count)])


def test_pending_updates_are_messages_beyond_the_stored_offsets_and_no_markers(
    federation, make_update
):
    def pending(minimum=100):
        return pending_updates(federation.database_url, federation.kafka, minimum)

    producer = Producer(federation.kafka | {"transactional.id": uuid.uuid4().hex})
    producer.init_transactions(30)
    for number in range(4):
        producer.begin_transaction()
        update = make_update(f"device-{number}", A)
        producer.produce(
            Topic.LOCAL_UPDATES, msgspec.json.encode(update), update.device_id.encode()
        )
        producer.commit_transaction(30)
    send(federation, make_update, 2)
    assert pending() == 6
    assert pending(minimum=5) == 5
    federation.open()
    assert pending() == 0
    send(federation, make_update, 1)
    assert pending() == 1


def test_the_first_round_waits_for_its_minimum_of_updates(federation, make_update, due):
    now = federation.query("SELECT now()")[0][0]
    send(federation, make_update, 2)
    assert not due(now)
    send(federation, make_update, 1)
    assert due(now)


def test_rounds_start_at_least_round_seconds_apart(federation, make_update, due):
    send(federation, make_update, 3)
    opened = federation.open()
    aggregate(federation.database_url, federation.settings, opened.number)
    earliest = opened.opened_at + timedelta(seconds=60)
    assert not due(earliest)
    send(federation, make_update, 3)
    assert not due(earliest - timedelta(microseconds=1))
    assert due(earliest)


def test_a_round_that_fails_in_run_after_run_waits_longer_each_time(federation, make_update, due):
    federation.query("DELETE FROM training_deployments RETURNING id")
    send(federation, make_update, 1)
    for run, seconds in enumerate([60, 120, 200, 200]):
        attempt = federation.open(dag_run_id=f"run {run}")
        for _ in range(2):  # a task is retried within its run
            with pytest.raises(NothingDeployedError):
                aggregate(federation.database_url, federation.settings, attempt.number)
        assert (attempt.number, attempt.attempts) == (1, run + 1)
        earliest = attempt.attempted_at + timedelta(seconds=seconds)
        assert not due(earliest - timedelta(microseconds=1))
        assert due(earliest)
