"""What evaluations store and start from, on plain PostgreSQL and on TimescaleDB."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from flead.contracts.messages import GlobalModel, LocalUpdate, Moments
from flead.storage import evaluations, feedback, models, rounds, updates
from flead.storage.evaluations import FLEET
from flead.storage.feedback import Prediction
from flead.storage.models import StoredModel
from flead.storage.updates import ReadUpdate

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[2] / "examples"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = (
    "model_version", "window_start", "window_end", "device_id", "status", "evaluation_timestamp",
    "rows", "samples", "tp", "fp", "tn", "fn", "log_loss_sum", "brier_sum", "accuracy",
)  # fmt: skip


def evaluation(device=FLEET, *, accuracy=0.5, end=NOON):
    times = (NOON - timedelta(hours=1), end)
    return (1, *times, device, "evaluated", NOON, 2, 2, 1, 1, 0, 0, 1.5, 0.5, accuracy)


def new_transaction(cursor):
    cursor.connection.commit()


def test_what_is_stored_of_a_version_and_window_stays(cursor):
    assert evaluations.add_evaluations(cursor, "one", COLUMNS, [evaluation()]) == 1
    new_transaction(cursor)
    again = [evaluation(accuracy=0.9), evaluation("a"), evaluation(end=NOON + timedelta(seconds=1))]

    assert evaluations.add_evaluations(cursor, "two", COLUMNS, again) == 2

    cursor.execute(
        "SELECT evaluation_run_id, device_id, accuracy, quality_status FROM model_evaluations"
        " ORDER BY window_end, device_id"
    )
    assert cursor.fetchall() == [
        ("one", FLEET, 0.5, "pending"), ("two", "a", 0.5, "pending"), ("two", FLEET, 0.5, "pending")
    ]  # fmt: skip


def test_a_prediction_that_is_stored_keeps_its_id(cursor):
    first, second = (Prediction("a", 0, offset, NOON, 0.25, 1) for offset in (1, 2))
    assert feedback.add_predictions(cursor, "run", NOON, 1, [first]) == 1
    cursor.execute("SELECT id, created_at FROM model_feedback")
    [before] = cursor.fetchall()
    new_transaction(cursor)

    assert feedback.add_predictions(cursor, "run", NOON, 1, [first, second]) == 1

    cursor.execute("SELECT id, created_at, error, confidence FROM model_feedback ORDER BY id")
    rows = cursor.fetchall()
    assert rows[0] == (*before, 0.75, 0.5)
    assert len(rows) == 2


def test_moments_before_a_window_are_accepted_ones_of_the_rounds_up_to_the_version(cursor):
    update = msgspec.json.decode(
        (EXAMPLES / "local-model-updates.json").read_bytes(), type=LocalUpdate
    )
    model = msgspec.json.decode(
        (EXAMPLES / "global-model-updates.json").read_bytes(), type=GlobalModel
    )

    places = itertools.count()

    def store(number, status, *windows):
        """Store windows of partition 2, given as device, last offset and count."""
        read = [
            ReadUpdate("local-model-updates", 0, (place := next(places)), place,
                msgspec.structs.replace(
                    update, device_id=device, first_offset=last, last_offset=last, rows=1,
                    offset_sum=last, moments=Moments([count], [0.5], [0.25]),
                ))
            for device, last, count in windows
        ]  # fmt: skip
        updates.insert_updates(cursor, number, read)
        cursor.execute(
            "UPDATE local_models SET status = %s, reject_reason = %s WHERE status = 'pending'",
            (status, "norm" if status == "rejected" else None),
        )
        updates.record_newest_moments(cursor, number)

    for number in (1, 2, 3):
        rounds.open_round(
            cursor, number, start_offsets={}, end_offsets={}, updates=0, dead_letters=0,
            dag_run_id=None, now=NOON,
        )  # fmt: skip
        rounds.complete(cursor, number, accepted=0, rejected={}, version=None, now=NOON)
    # Versions 2 and 3: a rollback, which no round has made, follows one that round 2 made.
    for version, number in ((1, 1), (2, 2), (3, None)):
        made = msgspec.structs.replace(
            model, version=version, parent_version=version - 1, aggregation_round=number
        )
        models.insert_model(cursor, StoredModel(made, {}, {}, 0, "m.json", "ab" * 32))
    store(1, "accepted", ("a", 10, 1.0), ("b", 11, 2.0), ("late", 60, 3.0))
    store(2, "accepted", ("a", 20, 4.0))
    store(2, "rejected", ("a", 25, 5.0), ("refused", 26, 6.0))
    store(2, "accepted", ("a", 50, 7.0))
    store(3, "accepted", ("a", 30, 8.0), ("b", 31, 9.0), ("new", 32, 10.0))

    def counts(version):
        found = evaluations.moments_before(cursor, update.feature_schema, {2: 50}, version)
        return {device: moments.count for device, moments in found.items()}

    assert counts(1) == {"a": [1.0], "b": [2.0]}
    assert counts(2) == counts(3) == {"a": [4.0], "b": [2.0]}
