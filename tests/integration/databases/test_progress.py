"""What has been made since a moment, on plain PostgreSQL and on TimescaleDB."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from flead.contracts.messages import LocalUpdate
from flead.storage import rounds, updates
from flead.storage.progress import Collected, collected_since
from flead.storage.updates import ReadUpdate

pytestmark = pytest.mark.servers

EXAMPLE = Path(__file__).parents[2] / "examples" / "local-model-updates.json"
TOPIC = "local-model-updates"


@pytest.fixture
def store(cursor):
    """Return the function that stores updates, given as (partition, offset, device)."""
    example = msgspec.json.decode(EXAMPLE.read_bytes(), type=LocalUpdate)
    rounds.open_round(
        cursor,
        1,
        start_offsets={},
        end_offsets={},
        updates=0,
        dead_letters=0,
        dag_run_id="run-1",
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )

    def store(*read, topic=TOPIC, rows=(0, 100, 129)):
        partition_of_rows, first, last = rows
        stored = [
            ReadUpdate(
                topic,
                partition,
                offset,
                1_764_000_061_777,
                msgspec.structs.replace(
                    example,
                    device_id=device,
                    input_partition=partition_of_rows,
                    first_offset=first,
                    last_offset=last,
                ),
            )
            for partition, offset, device in read
        ]
        updates.insert_updates(cursor, 1, stored)

    return store


def test_updates_and_their_devices_are_counted_from_an_offset_of_each_partition(cursor, store):
    store((0, 4, "before"), (0, 5, "a"), (0, 6, "a"), (1, 0, "b"), (1, 1, "a"))
    store((0, 7, "of another topic"), topic="another")

    assert collected_since(cursor, TOPIC, {0: 5, 1: 0}, {0: 0}) == Collected(4, devices=2)
    assert collected_since(cursor, TOPIC, {0: 7, 1: 2}, {0: 0}) == Collected(0, devices=0)


def test_devices_that_send_no_rows_any_more_are_not_counted(cursor, store):
    store((0, 5, "gone"), (0, 6, "a"), rows=(0, 170, 199))
    store((0, 7, "a"), rows=(0, 190, 200))
    store((0, 8, "b"), rows=(1, 20, 30))

    assert collected_since(cursor, TOPIC, {0: 5}, {0: 200, 1: 0}) == Collected(4, devices=2)
