"""What batches of the stream leave, on plain PostgreSQL and on TimescaleDB."""

from datetime import UTC, datetime

import psycopg2
import pytest

from flead.storage import stream_batches, stream_results
from flead.storage.connection import connect
from flead.storage.locks import Lock, is_held, lock_for_transaction
from flead.storage.stream_batches import BatchCounts, BatchState

pytestmark = pytest.mark.servers

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNTS = BatchCounts({0: 0}, {0: 5}, messages=5, rows=4, late_rows=1, seconds=0.5)


def window(
    device="a", *, rows=1, far=0, scored=1, anomalies=0, total=0.5, labelled=1, right=1, version=1
):
    return (device, NOON, 30, rows, far, scored, anomalies, total, labelled, right, version)


def unscored(device="a", *, version=1, **changes):
    return window(
        device, scored=0, anomalies=None, total=0.0, labelled=0, right=0, version=version, **changes
    )


def sample(offset, slot=NOON):
    return (0, offset, NOON, "a", slot, '{"x": 1.0}', None, 0.5, False, 1)


def anomaly(offset):
    return (0, offset, NOON, "a", "x", 1.0, 3.0, '{"x": 3.0}', 0.5, None, 1)


def new_batch(connection):
    """Begin another transaction, whose staging tables are its own."""
    connection.commit()


def test_sums_of_a_later_batch_are_added_to_a_window(cursor):
    stream_results.add_windows(cursor, [window(), unscored("b")])
    new_batch(cursor.connection)
    stream_results.add_windows(cursor, [window(rows=3, far=1, scored=3, total=0.9, right=0)])
    new_batch(cursor.connection)
    stream_results.add_windows(cursor, [window(rows=2, scored=2, total=1.4, version=2)])

    cursor.execute(
        "SELECT row_count, zscore_anomaly_count, mean_probability, accuracy"
        " FROM stream_analysis_results ORDER BY device_id, model_version"
    )
    rows = cursor.fetchall()
    assert rows == [(4, 1, pytest.approx(0.35), 0.5), (2, 0, 0.7, 1.0), (1, 0, None, None)]
    cursor.execute(
        "SELECT model_version, row_count, mean_probability, accuracy FROM stream_windows"
        " WHERE device_id = 'a'"
    )
    assert cursor.fetchall() == [(2, 6, pytest.approx(2.8 / 6), pytest.approx(2 / 3))]


def test_anomalies_by_the_model_are_null_until_a_row_is_scored(cursor):
    stream_results.add_windows(cursor, [unscored(), unscored("b"), unscored("c", version=0)])
    new_batch(cursor.connection)
    stream_results.add_windows(
        cursor, [window(rows=3, scored=3, anomalies=2), window("c", anomalies=1)]
    )

    cursor.execute(
        "SELECT device_id, model_version, scored_rows, anomaly_count FROM stream_analysis_results"
        " ORDER BY 1, 2"
    )
    assert cursor.fetchall() == [
        ("a", 1, 3, 2), ("b", 1, 0, None), ("c", 0, 0, None), ("c", 1, 1, 1),
    ]  # fmt: skip
    cursor.execute("SELECT device_id, anomaly_count FROM stream_windows ORDER BY 1")
    assert cursor.fetchall() == [("a", 2), ("b", None), ("c", 1)]


def test_what_was_scored_before_it_was_counted_stays_unknown(cursor):
    stream_results.add_windows(cursor, [window(rows=3, scored=3, anomalies=None)])
    new_batch(cursor.connection)
    stream_results.add_windows(cursor, [window(anomalies=1), window(anomalies=1, version=2)])

    cursor.execute("SELECT anomaly_count FROM stream_analysis_results ORDER BY model_version")
    assert cursor.fetchall() == [(None,), (1,)]
    cursor.execute("SELECT anomaly_count FROM stream_windows")
    assert cursor.fetchall() == [(None,)]


def test_windows_of_the_fleet_are_the_sums_of_its_devices(cursor):
    stream_results.add_windows(
        cursor,
        [
            window(rows=3, far=1, scored=3, anomalies=2, total=0.9),
            window("b", rows=2, scored=2, anomalies=None, total=1.0),
            unscored("c", version=0),
        ],
    )

    cursor.execute(
        "SELECT window_start, window_seconds, row_count, scored_rows, anomaly_count, judged_rows,"
        " zscore_anomaly_count, probability_sum FROM stream_fleet_windows"
    )
    assert cursor.fetchall() == [(NOON, 30, 6, 5, 2, 3, 1, pytest.approx(1.9))]


@pytest.mark.parametrize("database_server", ["timescaledb"], indirect=True)
class TestCompressed:
    """What comes for chunks that TimescaleDB has compressed and aggregated."""

    TABLES = ("stream_analysis_results", "anomalies", "device_samples")

    def call(self, url, statement, *parameters):
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def refresh(self, url):
        [(job,)] = self.call(
            url,
            "SELECT job_id FROM timescaledb_information.jobs"
            " WHERE proc_name = 'policy_refresh_continuous_aggregate'",
        )
        self.call(url, f"CALL run_job({job})")

    @pytest.fixture
    def compressed(self, database):
        """Write a window, an anomaly and a sample, and compress their chunks."""
        with connect(database) as connection, connection.cursor() as cursor:
            stream_results.add_windows(cursor, [window(rows=3, scored=3, anomalies=1, total=0.9)])
            stream_results.add_anomalies(cursor, [anomaly(1)])
            stream_results.add_samples(cursor, [sample(1)])
        self.refresh(database)
        for table in self.TABLES:
            self.call(
                database, "SELECT compress_chunk(c) FROM show_chunks(%s::regclass) AS c", table
            )
        yield database
        for table in self.TABLES:
            self.call(database, "SELECT drop_chunks(%s::regclass, older_than => now())", table)
        self.refresh(database)

    def test_rows_are_merged_into_them_by_their_keys(self, compressed):
        with connect(compressed) as connection, connection.cursor() as cursor:
            # So few are allowed by default that a fleet exceeds it.
            cursor.execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction TO 1")
            stream_results.add_windows(
                cursor, [window(anomalies=1), window("b"), window(version=2, total=0.25)]
            )
            stream_results.add_anomalies(cursor, [anomaly(1), anomaly(2)])
            stream_results.add_samples(cursor, [sample(1), sample(2, NOON.replace(second=15))])
            cursor.execute(
                "SELECT device_id, model_version, row_count, anomaly_count, mean_probability"
                " FROM stream_analysis_results ORDER BY 1, 2"
            )
            windows = cursor.fetchall()
            cursor.execute("SELECT kafka_offset FROM anomalies ORDER BY 1")
            anomalies = cursor.fetchall()
            cursor.execute("SELECT kafka_offset FROM device_samples ORDER BY 1")
            samples = cursor.fetchall()

        assert windows == [
            ("a", 1, 4, 2, pytest.approx(0.35)), ("a", 2, 1, 0, 0.25), ("b", 1, 1, 0, 0.5),
        ]  # fmt: skip
        assert anomalies == samples == [(1,), (2,)]

    def test_the_aggregate_has_them_after_its_next_refresh(self, compressed):
        sums = "SELECT row_count, anomaly_count FROM stream_fleet_windows"
        with connect(compressed) as connection, connection.cursor() as cursor:
            stream_results.add_windows(cursor, [window(rows=2, scored=2, anomalies=2)])

        before = self.call(compressed, sums)
        self.refresh(compressed)

        assert (before, self.call(compressed, sums)) == ([(3, 1)], [(5, 3)])


def test_a_slot_keeps_its_first_sample(cursor):
    stream_results.add_samples(cursor, [sample(1)])
    new_batch(cursor.connection)
    stream_results.add_samples(cursor, [sample(2), sample(3, NOON.replace(second=15))])

    cursor.execute("SELECT kafka_offset FROM device_samples ORDER BY kafka_offset")
    assert cursor.fetchall() == [(1,), (3,)]


def test_a_repeated_batch_keeps_what_it_was_opened_with_and_is_committed_once(cursor):
    opened = stream_batches.open_batch(cursor, "query", 0)
    again = stream_batches.open_batch(cursor, "query", 0)
    tails = {"buckets": 1, "files": {"0": "query-0-0.parquet"}}
    stream_batches.commit_batch(cursor, "query", 0, COUNTS, tails)

    assert (opened.is_repeated, again.is_repeated) == (False, True)
    assert stream_batches.open_batch(cursor, "query", 0).state is BatchState.COMMITTED
    assert stream_batches.newest_tails(cursor) == tails
    with pytest.raises(LookupError, match="no longer open"):
        stream_batches.commit_batch(cursor, "query", 0, COUNTS, tails)


def test_batches_of_a_query_that_is_no_more_are_abandoned(cursor):
    stream_batches.open_batch(cursor, "before", 7)
    stream_batches.open_batch(cursor, "now", 0)

    left = stream_batches.open_batches_of_others(cursor, "now")
    stream_batches.abandon(cursor, left)

    assert left == [("before", 7)]
    assert stream_batches.open_batches_of_others(cursor, "now") == []


def test_a_lock_is_seen_while_it_is_held(cursor):
    before = is_held(cursor, Lock.STREAM)
    lock_for_transaction(cursor, Lock.STREAM)

    assert (before, is_held(cursor, Lock.STREAM)) == (False, True)
    assert not is_held(cursor, Lock.ROUNDS)
