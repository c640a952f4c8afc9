"""One and the same migrations on plain PostgreSQL and on TimescaleDB."""

import multiprocessing
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from psycopg2.errors import FeatureNotSupported
from yoyo import get_backend, read_migrations

from flead.storage.connection import connect
from flead.storage.locks import Lock, hold
from flead.storage.migrations import DIRECTORY, is_migrated, migrate

pytestmark = pytest.mark.servers

TABLES = {
    "aggregation_rounds",
    "analysis_days",
    "anomalies",
    "batch_analysis_results",
    "data_quality_results",
    "device_moments",
    "device_samples",
    "device_status",
    "evaluation_runs",
    "expired_moments",
    "federated_models",
    "local_models",
    "model_evaluations",
    "model_feedback",
    "model_head",
    "outbox",
    "promotion_decisions",
    "stream_analysis_batches",
    "stream_analysis_results",
    "stream_deployments",
    "stream_offsets",
    "training_deployments",
    "training_health",
    "tuning_decisions",
}


def query(url, statement, *parameters):
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def tables(url):
    found = query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in found if "yoyo" not in name}


def names_of_migrations():
    return sorted(
        path.stem for path in DIRECTORY.glob("*.sql") if not path.stem.endswith(".rollback")
    )


def test_all_are_applied_in_the_order_of_their_names_and_only_once(empty_database):
    assert migrate(empty_database) == names_of_migrations()
    assert migrate(empty_database) == []
    assert tables(empty_database) == TABLES


def test_a_database_is_migrated_once_it_has_the_tables(empty_database):
    with connect(empty_database) as connection, connection.cursor() as cursor:
        assert not is_migrated(cursor)
    migrate(empty_database)
    with connect(empty_database) as connection, connection.cursor() as cursor:
        assert is_migrated(cursor)


def test_every_rollback_undoes_its_migration(database):
    with get_backend(database) as backend:
        backend.rollback_migrations(backend.to_rollback(read_migrations(str(DIRECTORY))))
    assert tables(database) == set()
    assert query(database, "SELECT FROM pg_namespace WHERE nspname = 'flead_compat'") == []


def test_a_crash_before_yoyo_marked_a_migration_is_mended_by_the_next_call(database):
    with connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM _yoyo_migration")
    assert migrate(database) == names_of_migrations()
    assert tables(database) == TABLES


def test_counts_of_the_z_score_rule_keep_their_rows_under_their_new_name(empty_database):
    before = [name for name in names_of_migrations() if name < "0020"]
    with get_backend(empty_database) as backend:
        known = read_migrations(str(DIRECTORY))
        backend.apply_migrations(known.filter(lambda each: each.id in before))
    with connect(empty_database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO stream_analysis_results (window_start, window_seconds, device_id,"
            " model_version, row_count, anomaly_count, scored_rows, probability_sum, rows_labelled,"
            " correct) VALUES (now(), 30, 'a', 1, 9, 4, 9, 2.5, 0, 0)"
        )
    counts = "SELECT zscore_anomaly_count, anomaly_count FROM "

    migrate(empty_database)

    assert query(empty_database, counts + "stream_analysis_results") == [(4, None)]
    assert query(empty_database, counts + "stream_windows") == [(4, None)]


def test_a_failing_migration_leaves_nothing_of_itself_and_everything_before_it(
    empty_database, tmp_path
):
    (tmp_path / "test_1.sql").write_text("CREATE TABLE whole (a INT);")
    (tmp_path / "test_2.sql").write_text("CREATE TABLE half (a INT); SELECT 1 / 0;")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        migrate(empty_database, tmp_path)
    assert tables(empty_database) == {"whole"}
    with connect(empty_database) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE whole; DELETE FROM _yoyo_migration")


def test_a_folder_without_migrations_is_an_error(empty_database, tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        migrate(empty_database, tmp_path)


def test_processes_that_start_together_migrate_one_after_the_other(database_url):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        applied = pool.map(migrate, [database_url] * 3)
    assert sorted(applied) == [[], [], names_of_migrations()]


def test_a_killed_process_leaves_no_lock_behind(database_url):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=hold_for_ever, args=(database_url, held))
    process.start()
    assert held.wait(timeout=60)
    process.kill()
    process.join()
    assert migrate(database_url) == names_of_migrations()


def hold_for_ever(url, held):
    with hold(url, Lock.MIGRATIONS):
        held.set()
        multiprocessing.Event().wait()


def test_every_hypertable_of_timescaledb_has_compression_and_retention(timescaledb_server):
    migrate(timescaledb_server)
    assert query(
        timescaledb_server,
        "SELECT hypertable_name, column_name, time_interval"
        " FROM timescaledb_information.dimensions"
        # not of the aggregate's own table
        " WHERE hypertable_schema = 'public' ORDER BY 1",
    ) == [
        ("anomalies", "event_time", timedelta(days=1)),
        ("data_quality_results", "created_at", timedelta(days=1)),
        ("device_samples", "event_time", timedelta(days=1)),
        ("local_models", "kafka_timestamp", timedelta(hours=6)),
        ("model_evaluations", "window_end", timedelta(days=1)),
        ("model_feedback", "event_time", timedelta(days=1)),
        ("stream_analysis_results", "window_start", timedelta(days=1)),
        ("training_health", "created_at", timedelta(days=1)),
    ]
    policies = query(
        timescaledb_server,
        "SELECT hypertable_name, max(config ->> 'compress_after'), max(config ->> 'drop_after')"
        " FROM timescaledb_information.jobs"
        " WHERE proc_name IN ('policy_compression', 'policy_retention') GROUP BY 1 ORDER BY 1",
    )
    assert policies == [
        ("anomalies", "8 days", "30 days"),
        ("data_quality_results", "8 days", "90 days"),
        ("device_samples", "8 days", "30 days"),
        # maintenance drops the chunks of local_models
        ("local_models", "1 day", None),
        ("model_evaluations", "7 days", "90 days"),
        ("model_feedback", "7 days", "30 days"),
        ("stream_analysis_results", "8 days", "30 days"),
        ("training_health", "8 days", "30 days"),
    ]


def test_timescaledb_keeps_the_windows_of_the_fleet_as_a_continuous_aggregate(timescaledb_server):
    migrate(timescaledb_server)
    assert query(
        timescaledb_server,
        "SELECT view_name, hypertable_name, materialized_only"
        " FROM timescaledb_information.continuous_aggregates",
    ) == [("stream_fleet_windows", "stream_analysis_results", False)]
    assert query(
        timescaledb_server,
        "SELECT schedule_interval, config ->> 'start_offset', config ->> 'end_offset'"
        " FROM timescaledb_information.jobs"
        " WHERE proc_name = 'policy_refresh_continuous_aggregate'",
    ) == [(timedelta(minutes=10), None, "01:00:00")]


def test_a_new_reading_of_health_decompresses_no_old_one(timescaledb_server):
    migrate(timescaledb_server)
    chunk = "SELECT c::text FROM show_chunks('training_health') AS c"
    with connect(timescaledb_server) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO training_health (created_at, dag_run_id, positions, deploying, healing,"
            " verdict, reasons) SELECT at, 'scheduled__' || at, '{}', '{}', '{}', 'healthy', '[]'"
            " FROM generate_series('2026-03-01'::timestamptz, '2026-03-01 01:00', '1 minute') AS at"
        )
        cursor.execute("SELECT compress_chunk(c) FROM show_chunks('training_health') AS c")
    with connect(timescaledb_server) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM training_health WHERE dag_run_id = 'scheduled__2026-03-10'")
    [(name,)] = query(timescaledb_server, chunk)

    decompressed = query(timescaledb_server, f"SELECT FROM ONLY {name}")
    readings = query(timescaledb_server, "SELECT count(*) FROM training_health")
    query(timescaledb_server, "SELECT drop_chunks('training_health', older_than => now())")

    assert (decompressed, readings) == ([], [(61,)])


WIDTHS = [
    "1 microsecond",
    "7 milliseconds",
    "1 second",
    "90 seconds",
    "10 minutes",
    "1 hour",
    "5 hours",
    "1 day",
    "36 hours",
    "1 week",
    "10 days",
    "1 day 3 hours 20 minutes",
]


def instants():
    """Instants around the origin, the epoch, a leap day, and daylight saving changes."""
    anchors = [
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(2000, 1, 2, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2000, 1, 3, tzinfo=UTC),
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        datetime(2026, 3, 29, 1, tzinfo=UTC),
        datetime(2026, 11, 24, 7, 30, 15, 123_456, tzinfo=UTC),
        datetime(9999, 12, 1, tzinfo=UTC),
    ]
    steps = [timedelta(0), timedelta(microseconds=1), timedelta(hours=25), timedelta(days=6)]
    return [anchor + step for anchor in anchors for step in steps]


def test_the_stand_in_for_time_bucket_equals_the_real_one(timescaledb_server):
    migrate(timescaledb_server)
    compared = query(
        timescaledb_server,
        "SELECT width, ts, public.time_bucket(width, ts), flead_compat.time_bucket(width, ts)"
        " FROM unnest(%s::interval[]) AS width, unnest(%s::timestamptz[]) AS ts",
        WIDTHS,
        instants(),
    )
    assert len(compared) == len(WIDTHS) * len(instants())
    assert [row for row in compared if row[2] != row[3]] == []


def test_time_bucket_is_found_without_its_schema_and_starts_weeks_on_mondays(database):
    assert query(
        database,
        "SELECT time_bucket('1 week', '2026-11-25 10:00+00'::timestamptz),"
        " time_bucket('1 day', NULL::timestamptz)",
    ) == [(datetime(2026, 11, 23, tzinfo=UTC), None)]


@pytest.mark.parametrize("width", ["1 month", "1 year"])
def test_the_stand_in_refuses_months(database, width):
    with pytest.raises(FeatureNotSupported, match="months or years"):
        query(database, "SELECT flead_compat.time_bucket(%s::interval, now())", width)
