"""Queries of the pages run on plain PostgreSQL and on TimescaleDB, and write nothing."""

from datetime import UTC, datetime, timedelta

import msgspec
import psycopg2
import pytest

from flead.storage import queries, rounds, updates
from flead.storage.connection import connect_read_only
from flead.storage.updates import ReadUpdate
from tests.integration.databases.test_storage import example_update

pytestmark = pytest.mark.servers

NOW = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PARAMETERS = {
    "device": "pump-1", "run": "v1-run", "start": NOW - MINUTE, "end": NOW, "reach": MINUTE,
    "slot": MINUTE, "silence": MINUTE, "search": "", "status": "", "sort": "worst",
    "direction": -1, "max_rows": 5, "first_row": 0,
}  # fmt: skip
NAMES = sorted(file.stem for file in queries.DIRECTORY.glob("*.sql"))
SUMMARIES = {"attention", "device_end", "devices_found", "fleet", "models_count"}
"""Have a row whatever there is."""


@pytest.mark.parametrize("name", NAMES)
def test_a_query_runs_on_an_empty_database(name, database):
    with connect_read_only(database, 10) as connection, connection.cursor() as cursor:
        found = queries.rows(cursor, name, PARAMETERS)

    assert len(found) == (1 if name in SUMMARIES else 0)


def test_who_reads_cannot_write(database):
    with (
        pytest.raises(psycopg2.errors.ReadOnlySqlTransaction),
        connect_read_only(database, 10) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("DELETE FROM device_status")


def test_a_query_that_takes_too_long_is_given_up(make_database):
    with (
        pytest.raises(psycopg2.errors.QueryCanceled),
        connect_read_only(make_database(), 0.05) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_sleep(30)")


class TestDeviceStatus:
    """What a round leaves of the updates that it has read."""

    @staticmethod
    def read(cursor, number, *found):
        rounds.open_round(
            cursor, number, start_offsets={}, end_offsets={}, updates=len(found), dead_letters=0,
            dag_run_id=None, now=NOW,
        )  # fmt: skip
        updates.insert_updates(cursor, number, found)
        updates.record_status(cursor, number)
        rounds.complete(cursor, number, accepted=0, rejected={}, version=None, now=NOW)

    @staticmethod
    def update(device, offset, timestamp, **changes):
        changed = example_update(device_id=device, **changes)
        return ReadUpdate("local-model-updates", 0, offset, timestamp, changed)

    @staticmethod
    def known(cursor):
        cursor.execute("SELECT device_id, kafka_offset FROM device_status ORDER BY device_id")
        return dict(cursor.fetchall())

    def test_is_that_of_the_newest_update_of_each_device(self, cursor):
        self.read(cursor, 1, self.update("a", 5, 1_000), self.update("b", 6, 1_000))
        self.read(cursor, 2, self.update("a", 7, 2_000), self.update("a", 8, 2_000))

        assert self.known(cursor) == {"a": 8, "b": 6}

    def test_may_be_recorded_twice_and_never_goes_back(self, cursor):
        self.read(cursor, 1, self.update("a", 5, 1_000))
        self.read(cursor, 2, self.update("a", 7, 2_000))

        updates.record_status(cursor, 1)
        updates.record_status(cursor, 2)

        assert self.known(cursor) == {"a": 7}

    def test_a_topic_that_was_made_anew_counts_from_its_times(self, cursor):
        self.read(cursor, 1, self.update("a", 5_000, 1_000))
        self.read(cursor, 2, self.update("a", 0, 2_000))

        assert self.known(cursor) == {"a": 0}

    def test_a_loss_of_almost_nothing_stops_no_round(self, cursor):
        smallest = 5e-324
        metrics = msgspec.structs.replace(
            example_update().personalized_metrics, log_loss_sum=smallest
        )

        self.read(cursor, 1, self.update("a", 5, 1_000, personalized_metrics=metrics))

        cursor.execute("SELECT log_loss FROM device_status")
        assert cursor.fetchall() == [(0.0,)]

    def test_has_no_figures_of_sums_that_do_not_fit_together(self, cursor):
        metrics = example_update().personalized_metrics
        wrong = msgspec.structs.replace(metrics, tp=metrics.rows + 1)

        self.read(
            cursor, 1,
            self.update("a", 5, 1_000, personalized_metrics=wrong, global_metrics=wrong),
        )  # fmt: skip

        cursor.execute(
            "SELECT device_id, accuracy, log_loss, global_accuracy, global_log_loss"
            " FROM device_status"
        )
        assert cursor.fetchall() == [("a", None, None, None, None)]

    def test_has_the_figures_of_its_window(self, cursor):
        update = self.update("a", 5, 1_000)
        own, fleet = update.update.personalized_metrics, update.update.global_metrics

        self.read(cursor, 1, update)

        cursor.execute(
            "SELECT accuracy, log_loss, global_accuracy, global_log_loss, rows, learning_rate"
            " FROM device_status"
        )
        assert cursor.fetchall() == [
            (
                pytest.approx((own.tp + own.tn) / own.rows),
                pytest.approx(own.log_loss_sum / own.rows),
                pytest.approx((fleet.tp + fleet.tn) / fleet.rows),
                pytest.approx(fleet.log_loss_sum / fleet.rows),
                update.update.rows,
                update.update.learning_rate,
            )
        ]

    def test_has_none_where_the_window_has_no_labels(self, cursor):
        unlabelled = {"global_metrics": None, "personalized_metrics": None, "accuracy": None}

        self.read(cursor, 1, self.update("a", 5, 1_000, **unlabelled, rows_labelled=0))

        cursor.execute("SELECT accuracy, log_loss, global_accuracy FROM device_status")
        assert cursor.fetchall() == [(None, None, None)]


@pytest.mark.parametrize(
    ("reason", "windows"),
    [
        (None, 1),
        ("norm", 1),
        ("unknown_schema", 0),
        ("dimension", 0),
        ("not_finite", 0),
        ("implausible", 0),
    ],
)
def test_a_window_counts_unless_its_rejection_speaks_against_its_figures(cursor, reason, windows):
    found = TestDeviceStatus.update("pump-1", 5, 1_000)
    TestDeviceStatus.read(cursor, 1, found)
    status = "accepted" if reason is None else "rejected"
    cursor.execute("UPDATE local_models SET status = %s, reject_reason = %s", (status, reason))
    end = datetime.fromtimestamp(1, UTC)

    drawn = queries.rows(cursor, "device_updates", PARAMETERS | {"end": end})

    assert len(drawn) == windows
