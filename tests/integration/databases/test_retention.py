"""What leaves the database and what stays, on plain PostgreSQL and on TimescaleDB."""

from datetime import UTC, datetime, timedelta

import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import Hyperparameters
from flead.settings import Settings
from flead.storage import control, deployments, retention
from flead.storage.connection import connect
from flead.storage.copying import copy_rows
from flead.storage.outbox import OutboxMessage, OutboxState, add
from tests.integration.tuned_fleet import Fleet, model_of, round_of

pytestmark = pytest.mark.servers

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=400)
RECENT = NOW - timedelta(hours=1)
TRAINING = TrainingDeployment(features=["x"], bootstrap_servers="broker:9092")
LONG = {
    "updates": 0,
    "dead_letters": 0,
    "start_offsets": "{}",
    "end_offsets": "{}",
}


@pytest.fixture
def fleet(database):
    return Fleet(database)


@pytest.fixture
def is_timescaledb(fleet):
    return bool(fleet.query("SELECT FROM pg_extension WHERE extname = 'timescaledb'"))


def timed_rows(at):
    """One row of each table of which the age alone decides."""
    place = {"kafka_partition": 0, "kafka_offset": int(at.timestamp())}
    zeros = dict.fromkeys(("rows", "samples", "tp", "fp", "tn", "fn"), 0)
    return {
        "model_evaluations": {
            "model_version": 1, "window_start": at, "window_end": at, "device_id": "*",
            "status": "evaluated", "evaluation_timestamp": at,
            "log_loss_sum": 0.0, "brier_sum": 0.0, **zeros,
        },
        "model_feedback": {
            **place, "model_version": 1, "event_time": at, "device_id": "a",
            "evaluation_run_id": "run", "evaluation_timestamp": at, "prediction": 0.5,
            "actual": 1, "error": 0.5, "confidence": 0.0,
        },
        "stream_analysis_results": {
            "window_start": at, "window_seconds": 30, "device_id": "a", "model_version": 1,
            "row_count": 1, "zscore_anomaly_count": 0, "scored_rows": 1, "probability_sum": 0.5,
            "rows_labelled": 0, "correct": 0,
        },
        "device_status": {
            "device_id": f"seen at {at}", "kafka_offset": 0, "kafka_timestamp": at,
            "training_status": "training", "model_version": 1, "base_version": 1,
            "learning_rate": 0.05, "rows": 1, "rows_labelled": 0,
        },
        "anomalies": {
            **place, "event_time": at, "device_id": "a", "feature": "x", "value": 1.0,
            "z_score": 3.0, "features": "{}", "model_version": 1,
        },
        "device_samples": {
            **place, "event_time": at, "device_id": "a", "slot_start": at, "features": "{}",
            "is_anomalous": False, "model_version": 1,
        },
        "batch_analysis_results": {
            "analysis_date": at.date().isoformat(), "device_id": "a", "row_count": 1,
            "rows_labelled": 0, "first_event_time": at, "last_event_time": at,
            "scored_rows": 0, "zscore_anomaly_count": 0,
            "feature_statistics": "{}", "feature_drift": "{}",
        },
        "data_quality_results": {
            "suite": "s", "table_name": "t", "run_id": "r", "rule": "x", "expectation": "e",
            "severity": "warning", "success": True, "reason": "why", "element_count": 1,
            "unexpected_count": 0, "failing_examples": "[]", "created_at": at,
        },
        "training_health": {
            "created_at": at, "dag_run_id": "r", "positions": "{}", "deploying": "{}",
            "healing": "{}", "verdict": "healthy", "reasons": "[]",
        },
    }  # fmt: skip


def counts(fleet, tables):
    return {
        table: fleet.query(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - constants
        for table in tables
    }


class TestTimedTables:
    @pytest.fixture(autouse=True)
    def rows(self, fleet):
        for at in (OLD, RECENT):
            for table, row in timed_rows(at).items():
                fleet.write(table, row)

    def test_every_one_has_an_example_here(self):
        assert timed_rows(OLD).keys() == retention.TIMED.keys()

    def test_lose_what_is_old_and_nothing_else(self, fleet, is_timescaledb):
        lost = retention.expire_timed(fleet.database_url, Settings(), NOW)

        if is_timescaledb:
            # The policies that the migrations made do it, in their own time.
            run_policies(fleet)
        else:
            assert lost == dict.fromkeys(retention.TIMED, 1)
        assert counts(fleet, retention.TIMED) == dict.fromkeys(retention.TIMED, 1)
        assert retention.expire_timed(fleet.database_url, Settings(), NOW) == dict.fromkeys(
            retention.TIMED, 0
        )

    @pytest.mark.parametrize("database_server", ["timescaledb"], indirect=True)
    def test_a_policy_follows_the_settings(self, fleet):
        retention.expire_timed(fleet.database_url, Settings(retention_feedback_days=12), NOW)

        assert policies(fleet, "model_feedback") == [("12 days",)]
        assert policies(fleet, "anomalies") == [("30 days",)]

    @pytest.mark.parametrize("database_server", ["timescaledb"], indirect=True)
    def test_a_hypertable_without_a_policy_loses_its_old_chunks(self, fleet):
        fleet.query("SELECT remove_retention_policy('anomalies')")
        try:
            lost = retention.expire_timed(fleet.database_url, Settings(), NOW)
        finally:
            fleet.query("SELECT add_retention_policy('anomalies', INTERVAL '30 days')")

        assert lost["anomalies"] == 1
        assert fleet.query("SELECT event_time FROM anomalies") == [(RECENT,)]

    @pytest.mark.parametrize("database_server", ["postgresql"], indirect=True)
    def test_more_rows_than_a_batch_has_are_deleted_all_the_same(self, fleet, monkeypatch):
        monkeypatch.setattr(retention, "BATCH_ROWS", 3)
        row = timed_rows(OLD)["anomalies"]
        fleet.write("anomalies", *[{**row, "kafka_offset": number} for number in range(9)])

        lost = retention.expire_timed(fleet.database_url, Settings(), NOW)

        assert lost["anomalies"] == 10


def policies(fleet, table):
    return fleet.query(
        "SELECT config ->> 'drop_after' FROM timescaledb_information.jobs"
        " WHERE hypertable_name = %s AND proc_name = 'policy_retention'",
        table,
    )


def run_policies(fleet):
    jobs = fleet.query(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention'"
    )
    for (job,) in jobs:
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("CALL run_job(%s)", (job,))


def open_rounds(fleet, *numbers, at, state="empty"):
    fleet.write(
        "aggregation_rounds",
        *[
            {
                **LONG,
                "round": number,
                "state": state,
                "opened_at": at,
                "attempted_at": at,
                "completed_at": None if state == "open" else at,
            }
            for number in numbers
        ],
    )


class TestUpdates:
    @pytest.fixture(autouse=True)
    def short_reach(self, monkeypatch):
        monkeypatch.setattr(retention, "REACH_ROUNDS", 1)

    def test_of_old_rounds_leave_their_newest_moments_of_each_device(self, fleet):
        open_rounds(fleet, 1, 2, at=OLD)
        open_rounds(fleet, 3, at=RECENT)
        for number, device, at in [
            (1, "a", OLD), (1, "b", OLD), (2, "a", OLD + timedelta(days=1)), (3, "a", RECENT),
        ]:  # fmt: skip
            fleet.send(device, at, loss=0.5, aggregation_round=number)

        retention.expire_updates(fleet.database_url, Settings(), NOW)

        assert fleet.query("SELECT aggregation_round FROM local_models") == [(3,)]
        assert fleet.query(
            "SELECT device_id, aggregation_round FROM expired_moments ORDER BY device_id"
        ) == [("a", 2), ("b", 1)]
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            [(schema,)] = fleet.query("SELECT DISTINCT feature_schema FROM expired_moments")
            assert retention.newest_expired_round(cursor, schema) == 2
            assert retention.newest_expired_round(cursor, "another") == 0

    def test_of_an_open_round_stay_whatever_their_age(self, fleet):
        open_rounds(fleet, 1, at=OLD)
        open_rounds(fleet, 2, at=OLD, state="open")
        fleet.send("a", OLD, loss=0.5, aggregation_round=1)
        fleet.send("a", OLD + timedelta(days=1), loss=0.5, aggregation_round=2)

        retention.expire_updates(fleet.database_url, Settings(), NOW)

        assert fleet.query("SELECT aggregation_round FROM local_models") == [(2,)]

    def test_of_the_versions_that_tuning_compares_stay_whatever_their_age(self, fleet):
        for version in (1, 2, 3):
            at = OLD + timedelta(days=version)
            open_rounds(fleet, version, at=at)
            fleet.write("federated_models", model_of(version))
            fleet.send("a", at, loss=0.5, aggregation_round=version)

        retention.expire_updates(fleet.database_url, Settings(tuning_versions=1), NOW)

        kept = fleet.query("SELECT aggregation_round FROM local_models ORDER BY 1")
        assert kept == [(2,), (3,)]


class TestModels:
    SETTINGS = Settings(retention_versions=1, max_staleness=0, tuning_versions=1)

    def write(self, fleet, *versions, at=OLD, **changes):
        open_rounds(fleet, *versions, at=at)
        rows = [
            model_of(version)
            | {"created_at": at, "promoted_at": at, "parent_version": version - 1}
            | changes
            for version in versions
        ]
        fleet.write("federated_models", *rows)

    def kept(self, fleet):
        return [
            version for (version,) in fleet.query("SELECT version FROM federated_models ORDER BY 1")
        ]

    def test_lose_what_nothing_within_retention_was_made_from(self, fleet):
        self.write(fleet, *range(1, 10))
        self.write(fleet, 10, 11, at=RECENT)

        lost = retention.expire_models(fleet.database_url, self.SETTINGS, NOW)

        # 8 and 9 are the newest before retention began, 7 is what 8 was made from.
        assert self.kept(fleet) == [7, 8, 9, 10, 11]
        assert lost == {"promotion_decisions": 0, "federated_models": 6}

    def test_keep_heads_candidates_the_newest_and_what_is_referred_to(self, fleet):
        self.write(fleet, 1, 2, 3, 4, 5)
        self.write(fleet, 6, status="candidate", feature_schema="b", parent_version=0)
        self.write(fleet, *range(7, 15), parent_version=0)
        self.write(fleet, 15, restored_version=4, parent_version=0, at=RECENT)
        self.write(fleet, 16, status="rejected", parent_version=0)
        fleet.write("model_head", {"feature_schema": "c", "version": 2})
        fleet.write(
            "analysis_days",
            {
                "analysis_date": OLD.date().isoformat(), "state": "done", "model_version": 9,
                "reference_model_version": 10, "closed": True, "first_run_at": OLD,
            },
        )  # fmt: skip

        retention.expire_models(fleet.database_url, self.SETTINGS, NOW)

        # The head and its parent, the restored one, the candidate, those of an analysed day, the
        # two newest promoted before retention began, the recent one, and the newest of all.
        assert self.kept(fleet) == [1, 2, 4, 6, 9, 10, 13, 14, 15, 16]

    def test_take_the_decisions_on_them_along(self, fleet):
        self.write(fleet, *range(1, 6))
        self.write(fleet, 6, at=RECENT)
        fleet.write(
            "promotion_decisions",
            *[
                {
                    "version": version, "reference_version": version - 1, "decision": "promoted",
                    "reason": "a test", "decided_by": "a test", "decided_at": OLD,
                }
                for version in range(2, 7)
            ],
        )  # fmt: skip

        lost = retention.expire_models(fleet.database_url, self.SETTINGS, NOW)

        assert self.kept(fleet) == [3, 4, 5, 6]
        assert lost == {"promotion_decisions": 1, "federated_models": 2}
        assert fleet.query(
            "SELECT version, reference_version FROM promotion_decisions ORDER BY version"
        ) == [(3, None), (4, 3), (5, 4), (6, 5)]


class TestOthers:
    def test_rounds_stay_while_open_young_or_referred_to(self, fleet, monkeypatch):
        monkeypatch.setattr(retention, "REACH_ROUNDS", 1)
        open_rounds(fleet, 1, 2, 3, at=OLD)
        open_rounds(fleet, 4, at=RECENT)
        open_rounds(fleet, 5, at=OLD, state="open")
        fleet.write("federated_models", model_of(1) | {"aggregation_round": 2})
        fleet.send("a", RECENT, loss=0.5, aggregation_round=3)

        lost = retention.expire_rounds(fleet.database_url, Settings(), NOW)

        assert lost == {"aggregation_rounds": 1}
        assert fleet.query("SELECT round FROM aggregation_rounds ORDER BY 1") == [
            (2,), (3,), (4,), (5,),
        ]  # fmt: skip

    def test_unpublished_messages_stay_and_the_newest_of_each_compacted_key(self, fleet):
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            add(cursor, [OutboxMessage("model-feedback", "a", "{}")], OutboxState.HELD)
            add(cursor, [OutboxMessage("model-feedback", "a", "{}")])
            control.queue_hyperparameters(cursor, Hyperparameters())
            control.queue_hyperparameters(cursor, Hyperparameters())
            add(cursor, [OutboxMessage("model-feedback", "a", "{}")])
            cursor.execute(
                "UPDATE outbox SET state = 'published', published_at = %s WHERE id > 2", (OLD,)
            )

        lost = retention.expire_outbox(fleet.database_url, Settings(), NOW)

        assert lost == {"outbox": 2}
        assert fleet.query("SELECT id FROM outbox ORDER BY id") == [(1,), (2,), (4,)]
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            assert control.next_revision(cursor) == 3

    def test_the_active_deployment_stays_and_those_after_it(self, fleet, monkeypatch):
        monkeypatch.setattr(retention, "KEPT_DEPLOYMENTS", 1)
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            for name in ("ended", "active", "failed", "newest"):
                opened = deployments.open_attempt(cursor, name, TRAINING)
                if name == "active":
                    deployments.mark_active(cursor, opened.job_id)
                elif name != "ended":
                    deployments.mark_failed(cursor, opened.job_id, "a test")
            cursor.execute(
                "UPDATE training_deployments SET created_at = %(at)s, updated_at = %(at)s",
                {"at": OLD},
            )

        lost = retention.expire_deployments(fleet.database_url, Settings(), NOW)

        assert lost == {"training_deployments": 2, "stream_deployments": 0}
        assert fleet.query("SELECT deployment_id FROM training_deployments ORDER BY id") == [
            ("active",), ("newest",),
        ]  # fmt: skip

    def test_a_running_stream_stays(self, fleet, monkeypatch):
        monkeypatch.setattr(retention, "KEPT_DEPLOYMENTS", 1)
        for name, state, is_wanted in [
            ("ended", "stopped", False), ("runs", "active", True), ("wanted", "stopped", True),
            ("newest", "failed", False),
        ]:  # fmt: skip
            fleet.write(
                "stream_deployments",
                {
                    "deployment_id": name, "state": state, "configuration": "{}",
                    "is_wanted": is_wanted, "submitted_at": OLD,
                },
            )  # fmt: skip

        lost = retention.expire_deployments(fleet.database_url, Settings(), NOW)

        assert lost["stream_deployments"] == 1
        assert fleet.query("SELECT deployment_id FROM stream_deployments ORDER BY id") == [
            ("runs",), ("wanted",), ("newest",),
        ]  # fmt: skip

    def test_an_evaluation_run_stays_as_long_as_one_of_its_versions(self, fleet):
        fleet.write("aggregation_rounds", round_of(7))
        fleet.write("federated_models", model_of(7))
        for name, versions in [("gone", [5, 6]), ("stored", [6, 7])]:
            fleet.write(
                "evaluation_runs",
                {
                    "evaluation_run_id": name, "state": "evaluated", "feature_schema": "x",
                    "due_versions": versions, "versions": versions, "warm_up_offsets": "{}",
                    "start_offsets": "{}", "end_offsets": "{}", "planned_at": OLD,
                    "evaluated_at": OLD, "quality_status": "passed",
                },
            )  # fmt: skip

        lost = retention.expire_analyses(fleet.database_url, Settings(), NOW)

        assert lost == {"evaluation_runs": 1, "analysis_days": 0, "tuning_decisions": 0}
        assert fleet.query("SELECT evaluation_run_id FROM evaluation_runs") == [("stored",)]

    def test_offsets_and_moments_of_devices_have_no_retention(self, fleet):
        open_rounds(fleet, 1, at=OLD)
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            copy_rows(
                cursor,
                "stream_offsets",
                ["consumer", "topic", "partition", "next_offset"],
                [("aggregation_round", "local-model-updates", 0, 5)],
            )
            copy_rows(
                cursor,
                "device_moments",
                ["feature_schema", "device_id", "aggregation_round", "kafka_partition",
                 "kafka_offset", "kafka_timestamp", "moments"],
                [("x", "a", 1, 0, 5, OLD, "{}")],
            )  # fmt: skip

        for step in ("timed", "updates", "models", "rounds", "outbox", "deployments", "analyses"):
            getattr(retention, f"expire_{step}")(fleet.database_url, Settings(), NOW)

        kept = ("stream_offsets", "device_moments", "aggregation_rounds")
        assert counts(fleet, kept) == dict.fromkeys(kept, 1)
