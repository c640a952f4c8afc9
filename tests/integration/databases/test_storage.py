"""What is written is read back as it was, on plain PostgreSQL and on TimescaleDB."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg2
import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import (
    GlobalModel,
    Hyperparameters,
    LocalUpdate,
    Metrics,
    Moments,
    TrainingControl,
)
from flead.storage import (
    analysis_days,
    batch_results,
    control,
    deployments,
    models,
    offsets,
    outbox,
    rounds,
    stream_batches,
    updates,
)
from flead.storage.connection import connect
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.models import HeadMovedError, StoredModel
from flead.storage.outbox import OutboxMessage, OutboxState, QueuedMessage
from flead.storage.rounds import RoundState
from flead.storage.updates import JudgedAs, Judgement, ReadUpdate

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[2] / "examples"
TOPIC = "local-model-updates"
NOW = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
TRAINING = TrainingDeployment(features=["x"], bootstrap_servers="broker:9092")


def example_update(**changes):
    update = msgspec.json.decode(
        (EXAMPLES / "local-model-updates.json").read_bytes(), type=LocalUpdate
    )
    return msgspec.structs.replace(update, **changes)


def read_update(partition, offset, **changes):
    return ReadUpdate(TOPIC, partition, offset, 1_764_000_061_777, example_update(**changes))


def open_round(cursor, number=1, **changes):
    arguments = {
        "start_offsets": {0: 0, 1: 5},
        "end_offsets": {0: 7, 1: 9},
        "updates": 3,
        "dead_letters": 1,
        "dag_run_id": "run-1",
        "now": NOW,
    }
    return rounds.open_round(cursor, number, **arguments | changes)


def judge(cursor, number, judged):
    """Store updates of a round, given as (update, what it is judged as)."""
    updates.insert_updates(cursor, number, [read for read, _ in judged])
    updates.record_judgements(
        cursor,
        number,
        [
            Judgement(read, status, reason="norm" if status is JudgedAs.REJECTED else None)
            for read, status in judged
        ],
    )


def stored_model(version, parent, **changes):
    model = msgspec.json.decode(
        (EXAMPLES / "global-model-updates.json").read_bytes(), type=GlobalModel
    )
    model = msgspec.structs.replace(
        model, version=version, parent_version=parent, restored_version=None, **changes
    )
    return StoredModel(
        model=model,
        options={"server_learning_rate": 1.0},
        input_offsets={0: 41, 3: 1234567890123},
        hyperparameters_revision=2,
        artifact_path=f"/models/{version}.json",
        artifact_sha256="ab" * 32,
    )


class TestConnection:
    def test_commits_on_success(self, database):
        with connect(database) as connection, connection.cursor() as cursor:
            offsets.store_next_offsets(cursor, "reader", TOPIC, {0: 5})
        with connect(database) as connection, connection.cursor() as cursor:
            assert offsets.next_offsets(cursor, "reader", TOPIC) == {0: 5}

    def test_rolls_back_and_raises_on_an_error(self, database):
        def fail_after_writing():
            with connect(database) as connection, connection.cursor() as cursor:
                offsets.store_next_offsets(cursor, "reader", TOPIC, {0: 5})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_after_writing()
        with connect(database) as connection, connection.cursor() as cursor:
            assert offsets.next_offsets(cursor, "reader", TOPIC) == {}


class TestCopy:
    @pytest.mark.parametrize(
        ("column_type", "value"),
        [
            ("text", "plain"),
            ("text", ""),
            ("text", r"\N"),
            ("text", "tab\tline\nreturn\rback\\slash 'quote' \"double\" ü 🦊"),
            ("text", None),
            ("boolean", True),
            ("boolean", False),
            ("bigint", -(2**63)),
            ("bigint", 2**63 - 1),
            ("double precision", 0.1),
            ("double precision", 5e-324),
            ("double precision", 1.7976931348623157e308),
            ("double precision", 2 / 3),
            ("double precision", math.inf),
            ("double precision", -math.inf),
            ("bytea", b"\x00\xff\\n"),
            ("timestamptz", datetime(2026, 3, 29, 1, 2, 3, 4567, tzinfo=UTC)),
            ("double precision[]", []),
            ("double precision[]", [1, 0.1, -1e-300, math.inf, None]),
            ("text[]", ["a,b", "{c}", '"d"', "\\e\t", "", None, "NULL"]),
            ("bigint[]", [[1, 2], [3, 4]]),
        ],
    )
    def test_a_value_is_read_back_as_it_was(self, cursor, column_type, value):
        cursor.execute(f"CREATE TEMP TABLE copied (value {column_type}) ON COMMIT DROP")
        assert copy_rows(cursor, "copied", ["value"], [(value,)]) == 1
        cursor.execute("SELECT value FROM copied")
        [(found,)] = cursor.fetchall()
        assert (bytes(found) if isinstance(value, bytes) else found) == value

    def test_nan_and_minus_zero_stay_what_they_are(self, cursor):
        cursor.execute("CREATE TEMP TABLE copied (value double precision[]) ON COMMIT DROP")
        copy_rows(cursor, "copied", ["value"], [([math.nan, -0.0],)])
        cursor.execute("SELECT value FROM copied")
        [([first, second],)] = cursor.fetchall()
        assert math.isnan(first)
        assert math.copysign(1, second) == -1

    def test_json_keeps_every_digit_and_every_escape(self, cursor):
        value = {'a\\b\n\t"': [0.1, 5e-324, None, 2**53], "ü": {}}
        cursor.execute("CREATE TEMP TABLE copied (value jsonb) ON COMMIT DROP")
        copy_rows(cursor, "copied", ["value"], [(Jsonb(value),)])
        cursor.execute("SELECT value FROM copied")
        assert cursor.fetchall() == [(value,)]

    def test_more_than_one_buffer_arrives_in_order(self, cursor):
        cursor.execute("CREATE TEMP TABLE copied (id int, value text) ON COMMIT DROP")
        rows = [(number, "x" * 100_000) for number in range(100)]
        assert copy_rows(cursor, "copied", ["id", "value"], iter(rows)) == 100
        cursor.execute("SELECT id, length(value) FROM copied")
        assert cursor.fetchall() == [(number, 100_000) for number in range(100)]

    def test_no_rows_are_no_error(self, cursor):
        assert copy_rows(cursor, "outbox", ["topic"], []) == 0

    @pytest.mark.parametrize(
        ("value", "error"),
        [("a\0b", ValueError), (datetime(2026, 1, 1), ValueError), ({"a": 1}, TypeError)],  # noqa: DTZ001 - the point
    )
    def test_what_cannot_be_stored_is_refused_before_it_is_sent(self, cursor, value, error):
        with pytest.raises(error):
            copy_rows(cursor, "outbox", ["topic"], [(value,)])


def test_next_offsets_are_kept_for_each_consumer_and_partition(cursor):
    offsets.store_next_offsets(cursor, "reader", TOPIC, {0: 5, 1: 7})
    offsets.store_next_offsets(cursor, "reader", TOPIC, {1: 9, 2: 0})
    offsets.store_next_offsets(cursor, "other", TOPIC, {0: 1})
    assert offsets.next_offsets(cursor, "reader", TOPIC) == {0: 5, 1: 9, 2: 0}


class TestUpdates:
    def test_an_update_is_read_back_equal_to_what_was_read_from_kafka(self, cursor):
        open_round(cursor)
        read = [
            read_update(
                1,
                2**40,
                weights=[0.1, 1 / 3, 5e-324, -1.7976931348623157e308],
                offset_sum=2**62,
                trial="wide\tand\\odd",
                device_id='Gerät/1 "a"',
            ),
            read_update(0, 3, trained=False, weights=None, intercept=None, global_metrics=None),
        ]
        assert updates.insert_updates(cursor, 1, read) == 2
        assert updates.updates_of_round(cursor, 1) == read[::-1]

    def test_moments_are_an_object_that_keeps_every_double(self, cursor):
        values = [5e-324, 1.7976931348623157e308, 0.1 + 0.2, 1e22, 2.0**53, -2 / 3]
        moments = Moments(count=values, mean=values[::-1], m2=[])
        open_round(cursor)
        updates.insert_updates(cursor, 1, [read_update(0, 1, moments=moments)])
        cursor.execute("SELECT moments FROM local_models")
        [(document,)] = cursor.fetchall()
        # JSON has no floats: Python reads 1e22, which jsonb writes without an exponent, as an int
        found = {name: list(map(float, numbers)) for name, numbers in document.items()}
        assert found == {"count": values, "mean": values[::-1], "m2": []}
        assert updates.updates_of_round(cursor, 1)[0].update.moments == moments

    def test_the_order_is_that_of_partition_and_offset(self, cursor):
        open_round(cursor)
        positions = [(1, 10), (0, 9), (1, 2), (0, 100)]
        updates.insert_updates(cursor, 1, [read_update(*position) for position in positions])
        found = updates.updates_of_round(cursor, 1)
        assert [(read.partition, read.offset) for read in found] == sorted(positions)

    def test_a_position_is_stored_once(self, cursor):
        open_round(cursor)
        with pytest.raises(psycopg2.errors.UniqueViolation):
            updates.insert_updates(cursor, 1, [read_update(0, 1), read_update(0, 1)])

    def test_judgements_are_written_to_the_update_that_they_are_about(self, cursor):
        open_round(cursor)
        first, second, third = read = [read_update(0, 1), read_update(1, 1), read_update(0, 2)]
        updates.insert_updates(cursor, 1, read)
        updates.record_judgements(
            cursor,
            1,
            [
                Judgement(first, JudgedAs.ACCEPTED, weight=1.0),
                Judgement(second, JudgedAs.REJECTED, reason="norm"),
            ],
        )
        cursor.execute(
            "SELECT kafka_partition, kafka_offset, status, reject_reason, aggregation_weight"
            " FROM local_models ORDER BY 1, 2"
        )
        assert cursor.fetchall() == [
            (0, 1, "accepted", None, 1.0),
            (0, 2, "pending", None, None),
            (1, 1, "rejected", "norm", None),
        ]
        assert updates.updates_of_round(cursor, 1, accepted_only=True) == [first]
        assert updates.updates_of_round(cursor, 1) == [first, third, second]

    def test_a_judgement_about_an_update_of_another_round_is_an_error(self, cursor):
        open_round(cursor)
        updates.insert_updates(cursor, 1, [read_update(0, 1)])
        with pytest.raises(LookupError, match="round 1 holds 1 of 2"):
            updates.record_judgements(
                cursor,
                1,
                [Judgement(read_update(0, offset), JudgedAs.ACCEPTED) for offset in (1, 2)],
            )

    def test_devices_are_active_in_the_day_before_the_fleets_newest_accepted_update(self, cursor):
        def read(offset, device, schema, hours_ago):
            # The fleet was away for a year.
            sent = NOW - timedelta(days=365, hours=hours_ago)
            update = example_update(device_id=device, feature_schema=schema)
            return ReadUpdate(TOPIC, 0, offset, int(sent.timestamp() * 1000), update)

        open_round(cursor)
        judged = [
            (read(1, "silent", "old", 26), JudgedAs.ACCEPTED),
            (read(2, "a", "old", 23), JudgedAs.ACCEPTED),
            (read(3, "a", "new", 2), JudgedAs.ACCEPTED),
            (read(4, "b", "new", 1), JudgedAs.ACCEPTED),
            (read(5, "refused", "new", 1), JudgedAs.REJECTED),
        ]
        judge(cursor, 1, judged)
        updates.record_newest_moments(cursor, 1)

        assert updates.active_devices(cursor) == 2

    def test_the_newest_moments_of_each_device_are_those_of_its_last_accepted_update(self, cursor):
        def judged(number, updates_of_number):
            judge(cursor, number, updates_of_number)
            updates.record_newest_moments(cursor, number)

        def read(partition, offset, device, count):
            moments = Moments([count], [0.5], [0.25])
            schema = "other" if device == "c" else "schema"
            return read_update(
                partition, offset, device_id=device, moments=moments, feature_schema=schema
            )

        open_round(cursor)
        judged(
            1,
            [
                (read(0, 1, "b", 1.0), JudgedAs.ACCEPTED),
                (read(0, 2, "b", 2.0), JudgedAs.ACCEPTED),
                (read(0, 3, "b", 3.0), JudgedAs.REJECTED),
                (read(1, 1, "a", 4.0), JudgedAs.ACCEPTED),
                (read(1, 2, "c", 5.0), JudgedAs.ACCEPTED),
            ],
        )
        rounds.complete(cursor, 1, accepted=4, rejected={}, version=None, now=NOW)
        assert [m.count for m in updates.newest_moments(cursor, "schema")] == [[4.0], [2.0]]

        open_round(cursor, 2)
        judged(2, [(read(1, 9, "a", 6.0), JudgedAs.ACCEPTED)])
        assert [m.count for m in updates.newest_moments(cursor, "schema")] == [[6.0], [2.0]]
        assert updates.newest_moments(cursor, "other") == [Moments([5.0], [0.5], [0.25])]

        def as_of(number):
            return [m.count for m in updates.newest_moments_as_of(cursor, "schema", number)]

        assert (as_of(1), as_of(2)) == ([[4.0], [2.0]], [[6.0], [2.0]])


class TestDailyResults:
    def test_a_day_has_no_rows_before_the_first_batch_of_the_stream(self, cursor):
        assert not analysis_days.may_have_rows(cursor, NOW.date())
        stream_batches.open_batch(cursor, "query", 0)
        cursor.execute("UPDATE stream_analysis_batches SET opened_at = %s", (NOW,))

        days = [NOW.date() + timedelta(days=number) for number in (-1, 0, 1)]
        assert [analysis_days.may_have_rows(cursor, day) for day in days] == [False, True, True]

    def test_a_day_has_no_rows_before_the_first_deployment_of_the_training(self, cursor):
        deployments.open_attempt(cursor, "run", TRAINING)
        cursor.execute("UPDATE training_deployments SET created_at = %s", (NOW,))

        days = [NOW.date() + timedelta(days=number) for number in (-1, 0, 1)]
        assert [analysis_days.may_have_rows(cursor, day) for day in days] == [False, True, True]

    def test_moments_before_a_day_are_the_same_whatever_rounds_have_read_since(self, cursor):
        def read(offset, last_offset, count, device="a"):
            moments = Moments([count], [0.5], [0.25])
            return read_update(
                0, offset, device_id=device, input_partition=2, first_offset=last_offset - 5,
                last_offset=last_offset, moments=moments, feature_schema="schema",
            )  # fmt: skip

        def before_the_day():
            first = [("a", 2, 100), ("b", 2, 100)]
            found = batch_results.moments_before(cursor, "schema", first, version=1)
            return {device: json.loads(text)["count"] for device, text in found.items()}

        open_round(cursor)
        judge(
            cursor,
            1,
            [
                (read(1, 40, 1.0), JudgedAs.ACCEPTED),
                (read(2, 60, 2.0), JudgedAs.ACCEPTED),
                (read(3, 80, 3.0), JudgedAs.REJECTED),
                (read(4, 100, 4.0), JudgedAs.ACCEPTED),
            ],
        )
        models.insert_model(cursor, stored_model(1, 0, aggregation_round=1))
        rounds.complete(cursor, 1, accepted=3, rejected={"norm": 1}, version=1, now=NOW)
        assert before_the_day() == {"a": [2.0]}

        open_round(cursor, 2)
        judge(
            cursor,
            2,
            [
                (read(5, 90, 5.0), JudgedAs.ACCEPTED),
                (read(6, 50, 6.0, device="b"), JudgedAs.ACCEPTED),
            ],
        )
        assert before_the_day() == {"a": [2.0]}


class TestRounds:
    def test_a_round_is_read_back_as_it_was_opened(self, cursor):
        opened = open_round(cursor)
        assert rounds.get(cursor, 1) == opened
        assert opened.state is RoundState.OPEN
        assert (opened.start_offsets, opened.end_offsets) == ({0: 0, 1: 5}, {0: 7, 1: 9})
        assert (opened.opened_at, opened.attempts, opened.accepted) == (NOW, 1, None)

    def test_two_rounds_cannot_be_open(self, cursor):
        open_round(cursor)
        with pytest.raises(psycopg2.errors.UniqueViolation):
            open_round(cursor, 2)

    def test_an_attempt_is_counted(self, cursor):
        open_round(cursor)
        later = NOW + timedelta(minutes=1)
        again = rounds.record_attempt(cursor, 1, "run-2", later)
        assert (again.attempts, again.attempted_at, again.opened_at) == (2, later, NOW)
        assert again.dag_run_id == "run-2"

    @pytest.mark.parametrize(
        ("version", "state"), [(4, RoundState.AGGREGATED), (None, RoundState.EMPTY)]
    )
    def test_a_finished_round_tells_what_it_came_to(self, cursor, version, state):
        open_round(cursor)
        done = rounds.complete(
            cursor, 1, accepted=2, rejected={"norm": 1}, version=version, now=NOW
        )
        assert (done.state, done.version, done.completed_at) == (state, version, NOW)
        assert (done.accepted, done.rejected) == (2, {"norm": 1})
        assert rounds.newest(cursor) == done

    def test_an_unknown_round_is_an_error(self, cursor):
        assert rounds.newest(cursor) is None
        with pytest.raises(LookupError, match="no aggregation round 7"):
            rounds.get(cursor, 7)


class TestModels:
    @pytest.fixture(autouse=True)
    def a_round(self, cursor):
        for number in (1, 2, 3):
            open_round(cursor, number)
            rounds.complete(cursor, number, accepted=0, rejected={}, version=None, now=NOW)

    def test_a_version_is_read_back_as_it_was_stored(self, cursor):
        stored = stored_model(1, 0, aggregation_round=1, weights=[0.1, 1 / 3, -0.0, 5e-324])
        models.insert_model(cursor, stored)
        assert models.models(cursor, [1, 2]) == {1: stored}
        assert models.newest_version(cursor) == 1

    def test_figures_are_null_until_measured_and_then_come_from_the_sums(self, cursor):
        def figures():
            cursor.execute(
                "SELECT metrics_rows, global_accuracy, global_loss FROM federated_models"
            )
            return cursor.fetchall()

        models.insert_model(cursor, stored_model(1, 0, aggregation_round=1))
        assert figures() == [(0, None, None)]
        models.add_metrics(
            cursor, [Metrics(1, 4, 2.0, tp=1, fp=1, tn=2, fn=0), Metrics(9, 1, 1.0, 1, 0, 0, 0)]
        )
        models.add_metrics(cursor, [Metrics(1, 6, 1.0, tp=2, fp=0, tn=3, fn=1)])
        assert figures() == [(10, 8 / 10, 3.0 / 10)]

    def test_the_head_moves_only_from_the_version_that_was_expected(self, cursor):
        for version, parent in ((1, 0), (2, 1), (3, 1)):
            models.insert_model(cursor, stored_model(version, parent, aggregation_round=version))
        assert (models.head(cursor, "s"), models.newest_head(cursor)) == (None, None)
        models.advance_head(cursor, "s", None, 1)
        models.advance_head(cursor, "s", 1, 2)
        with pytest.raises(HeadMovedError, match="head 1 of schema s, which is 2 now"):
            models.advance_head(cursor, "s", 1, 3)
        with pytest.raises(HeadMovedError):
            models.advance_head(cursor, "s", None, 3)
        models.advance_head(cursor, "t", None, 3)
        assert (models.head(cursor, "s"), models.newest_head(cursor)) == (2, 3)

    def test_only_promoted_versions_of_the_schema_are_bases(self, cursor):
        for version in (1, 2, 3):
            models.insert_model(
                cursor,
                stored_model(version, 0, aggregation_round=version, feature_schema="s"),
            )
        cursor.execute("UPDATE federated_models SET status = 'rolled_back' WHERE version = 2")
        bases = models.newest_promoted(cursor, "s", up_to=3, count=5)
        assert [stored.model.version for stored in bases] == [3, 1]
        assert [s.model.version for s in models.newest_promoted(cursor, "s", 2, 5)] == [1]
        assert models.newest_promoted(cursor, "t", 3, 5) == []
        assert models.rolled_back_versions(cursor, "s") == {2}


class TestControl:
    def test_a_revision_is_one_above_the_highest_that_was_ever_queued(self, cursor):
        hyperparameters = Hyperparameters(learning_rate=0.25)
        outbox.add(cursor, [OutboxMessage("other", "control", '{"revision": 40}')])
        first = control.queue_hyperparameters(cursor, hyperparameters)
        [_, queued] = outbox.next_ready(cursor, 10)
        assert first == TrainingControl(revision=1, hyperparameters=hyperparameters)
        assert queued.message == OutboxMessage(
            "training-control", "control", msgspec.json.encode(first).decode()
        )

        outbox.mark_published(cursor, [queued.id])
        tried = OutboxMessage("training-control", "control", '{"revision": 8}')
        outbox.add(cursor, [tried], OutboxState.HELD)
        assert control.queue_hyperparameters(cursor, hyperparameters).revision == 9


class TestOutbox:
    def test_a_key_waits_for_its_held_messages_and_others_do_not(self, cursor):
        held = [OutboxMessage("t", "a", "1")]
        outbox.add(cursor, held, OutboxState.HELD)
        ready = [
            OutboxMessage("t", "a", "2"),
            OutboxMessage("t", "b", "3"),
            OutboxMessage("u", "a", "4"),
        ]
        outbox.add(cursor, ready)
        assert [q.message.value for q in outbox.next_ready(cursor, 10)] == ["3", "4"]
        cursor.execute("UPDATE outbox SET state = 'ready' WHERE state = 'held'")
        assert [q.message.value for q in outbox.next_ready(cursor, 10)] == ["1", "2", "3", "4"]

    def test_a_key_does_not_wait_for_its_quarantined_messages(self, cursor):
        outbox.add(cursor, [OutboxMessage("t", "a", "1")], OutboxState.HELD)
        cursor.execute("UPDATE outbox SET is_quarantined = TRUE")
        outbox.add(cursor, [OutboxMessage("t", "a", "2")])
        assert [q.message.value for q in outbox.next_ready(cursor, 10)] == ["2"]

    def test_published_messages_are_not_handed_out_again(self, cursor):
        outbox.add(
            cursor,
            [OutboxMessage("t", "k", json.dumps({"a": "\n\\"})), OutboxMessage("t", "k", "2")],
        )
        [first] = outbox.next_ready(cursor, 1)
        assert first == QueuedMessage(first.id, OutboxMessage("t", "k", '{"a": "\\n\\\\"}'))
        outbox.mark_published(cursor, [first.id])
        assert [q.message.value for q in outbox.next_ready(cursor, 10)] == ["2"]


def test_a_server_ends_the_session_of_a_lost_host_soon_and_takes_options_of_the_url(postgres):
    url = f"{postgres}?options=-c%20statement_timeout%3D7s"

    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE name LIKE 'tcp_keepalives_%' OR name = 'statement_timeout' ORDER BY name"
        )
        assert cursor.fetchall() == [
            ("statement_timeout", "7000"),
            ("tcp_keepalives_count", "3"),
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
        ]
