"""The database that pages and dashboards are tested and measured on agrees with itself."""

from datetime import UTC, datetime

import pytest

from benchmarks.filled.database import fill
from benchmarks.filled.fleet import SMALL
from flead.storage.connection import connect
from tests.integration.databases.conftest import roll_back

# Filled by the maintenance DAG once updates are a week old.
EMPTY = {"expired_moments"}


@pytest.fixture(scope="module")
def filled(database_server):
    roll_back(database_server)
    yield fill(database_server, SMALL)
    roll_back(database_server)


@pytest.fixture
def ask(filled, database_server):
    """Return the function that returns the rows of a query."""

    def run(query):
        with connect(database_server) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    return run


def test_every_table_has_rows(ask):
    tables = {
        table
        for (table,) in ask(
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'"
        )
    }

    empty = {name for name in tables if not ask(f"SELECT FROM {name} LIMIT 1")}

    assert empty == EMPTY


def test_it_ends_now_and_begins_whole_days_before(ask, filled):
    [(first, last)] = ask("SELECT min(completed_at), max(completed_at) FROM aggregation_rounds")

    assert (datetime.now(UTC) - filled.end).total_seconds() < 900
    assert (last.date() - first.date()).days == SMALL.days


def test_versions_have_no_gap_and_descend_from_what_was_the_head(ask, filled):
    assert ask("SELECT count(*) - max(version), min(version) FROM federated_models") == [(0, 1)]
    assert ask("SELECT version FROM model_head") == [(filled.head,)]
    assert ask("SELECT version - parent_version FROM federated_models WHERE status = 'candidate'")
    # A version follows the head of its time: the newest that had been promoted and not taken back.
    assert not ask(
        """
        SELECT made.version FROM federated_models AS made
        INNER JOIN federated_models AS parent ON made.parent_version = parent.version
        WHERE made.restored_version IS NULL AND parent.promoted_at IS NULL
        """
    )
    statuses = dict(ask("SELECT status, count(*) FROM federated_models GROUP BY status"))
    assert statuses.keys() == {"candidate", "promoted", "rejected", "rolled_back"}
    assert statuses["candidate"] == 1


def test_a_version_is_measured_by_the_updates_that_scored_it(ask):
    # Of the versions of the last minutes, all updates are stored.
    measured = ask(
        """
        SELECT
            model.metrics_rows,
            model.metrics_tp + model.metrics_tn,
            sum((scored.metrics ->> 'rows')::BIGINT),
            sum((scored.metrics ->> 'tp')::BIGINT + (scored.metrics ->> 'tn')::BIGINT)
        FROM local_models AS update
        CROSS JOIN LATERAL (
            VALUES (update.global_metrics), (update.candidate_metrics)
        ) AS scored (metrics)
        INNER JOIN federated_models AS model
            ON (scored.metrics ->> 'version')::BIGINT = model.version
        WHERE update.status = 'accepted' AND model.version > (
            SELECT max(version) - 15 FROM federated_models
        )
        GROUP BY model.version
        """
    )

    assert len(measured) > 5
    assert all([rows, right] == stored for rows, right, *stored in measured)


def test_windows_count_the_anomalies_of_the_rule_that_are_stored(ask):
    [(windows, counted, stored)] = ask(
        """
        SELECT
            count(*),
            sum(result.zscore_anomaly_count),
            sum((
                SELECT count(*) FROM anomalies AS found
                WHERE found.device_id = result.device_id
                    AND found.event_time >= result.window_start
                    AND found.event_time < result.window_start + INTERVAL '1 second' * 300
            ))
        FROM stream_analysis_results AS result WHERE result.window_seconds = 300
        """
    )

    assert windows > 60
    assert counted == stored > 0


def test_short_windows_add_up_to_long_ones(ask):
    differing = ask(
        """
        SELECT count(*), count(*) FILTER (
            WHERE short.rows <> long.row_count OR short.correct <> long.correct
        )
        FROM stream_analysis_results AS long
        CROSS JOIN LATERAL (
            SELECT sum(each.row_count) AS rows, sum(each.correct) AS correct
            FROM stream_analysis_results AS each
            WHERE each.window_seconds = 30 AND each.device_id = long.device_id
                AND each.window_start >= long.window_start
                AND each.window_start < long.window_start + INTERVAL '5 minutes'
        ) AS short
        WHERE long.window_seconds = 300 AND short.rows IS NOT NULL
        """
    )

    assert differing == [(SMALL.devices * SMALL.recent_minutes // 5, 0)]


def test_rounds_count_what_became_of_their_updates(ask):
    wrong = ask(
        """
        SELECT opened.round FROM aggregation_rounds AS opened
        INNER JOIN (
            SELECT
                aggregation_round, count(*) AS updates,
                count(*) FILTER (WHERE status = 'accepted') AS accepted
            FROM local_models GROUP BY aggregation_round
        ) AS stored ON opened.round = stored.aggregation_round
        WHERE (opened.updates, opened.accepted) <> (stored.updates, stored.accepted)
        """
    )

    assert wrong == []


def test_one_change_awaits_an_approval_and_its_trials_are_stored(ask):
    waiting = ask(
        "SELECT status, jsonb_array_length(trials) FROM tuning_decisions WHERE settled_at IS NULL"
    )

    assert waiting == [("awaiting_approval", 3)]
    assert ask(
        """
        SELECT count(DISTINCT update.trial) FROM local_models AS update
        INNER JOIN tuning_decisions AS decision
            ON update.hyperparameters_revision = decision.revision
        WHERE decision.settled_at IS NULL AND update.trial IS NOT NULL
        """
    ) == [(3,)]
