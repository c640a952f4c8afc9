"""Rows of every table that the pages read, with figures that a test gives."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from flead.contracts.schema import feature_schema
from flead.storage.connection import connect
from flead.storage.copying import Jsonb, copy_rows

FEATURES = ["pressure", "speed"]
SCHEMA = feature_schema(FEATURES)
MOMENT = timedelta(0)


@dataclass
class SmallFleet:
    """Times are given as how long ago something was."""

    database_url: str
    now: datetime

    def write(self, table, *rows):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            copy_rows(cursor, table, list(rows[0]), [list(row.values()) for row in rows])

    def clear(self):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            # Deleting few rows is faster than making all tables anew; no key is checked meanwhile.
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(
                "SELECT string_agg(format('DELETE FROM %I', tablename), '; ') FROM pg_tables"
                " WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'"
            )
            [(statements,)] = cursor.fetchall()
            cursor.execute(statements)

    def device(self, name, at=MOMENT, **changes):
        self.devices({"device_id": name, "kafka_timestamp": self.now - at} | changes)

    def devices(self, *named):
        row = {
            "device_id": None, "kafka_offset": 1, "kafka_timestamp": self.now,
            "training_status": "training", "model_version": 3, "base_version": 2,
            "learning_rate": 0.05, "rows": 30, "rows_labelled": 30, "accuracy": 0.9,
            "log_loss": 0.25, "global_accuracy": 0.8, "global_log_loss": 0.5,
        }  # fmt: skip
        self.write("device_status", *(row | changes for changes in named))

    def round(self, number, at=MOMENT, **changes):
        opened = self.now - at
        row = {
            "round": number, "state": "aggregated", "start_offsets": "{}", "end_offsets": "{}",
            "updates": 40, "dead_letters": 0, "accepted": 37, "rejected": '{"norm": 3}',
            "version": number, "promoted_version": None, "dag_run_id": f"run {number}",
            "opened_at": opened, "attempted_at": opened,
            "completed_at": opened + timedelta(seconds=2),
        }  # fmt: skip
        self.write("aggregation_rounds", row | changes)

    def version(self, number, at=MOMENT, *, head=True, **changes):
        self.round(number, at)
        made = self.now - at
        row = {
            "version": number, "parent_version": number - 1, "restored_version": None,
            "aggregation_round": number, "status": "promoted", "feature_schema": SCHEMA,
            "feature_names": FEATURES, "strategy": "fedavg", "options": "{}",
            "weights": [0.5 * number] * 4 * len(FEATURES), "intercept": -1.0,
            "standardizer": Jsonb({"count": [], "mean": [], "m2": []}),
            "num_devices": 12, "num_updates": 37, "total_samples": 500, "input_offsets": "{}",
            "hyperparameters_revision": 1, "metrics_rows": 0, "metrics_log_loss_sum": 0.0,
            "metrics_tp": 0, "metrics_fp": 0, "metrics_tn": 0, "metrics_fn": 0,
            "artifact_path": f"/nowhere/{number}.json", "artifact_sha256": "0" * 64,
            "created_at": made, "promoted_at": made,
        }  # fmt: skip
        self.write("federated_models", row | changes)
        if head:
            with connect(self.database_url) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO model_head VALUES (%s, %s)"
                    " ON CONFLICT (feature_schema) DO UPDATE SET version = excluded.version",
                    (SCHEMA, number),
                )

    def reading(self, at=MOMENT, **changes):
        row = {
            "created_at": self.now - at, "dag_run_id": f"reading {at}", "job_state": "RUNNING",
            "job_id": "0" * 32, "deployment_id": "d", "vertices_running": 6, "vertices_total": 6,
            "checkpoint_age_seconds": 4.25, "failed_checkpoints": 0, "restarts": 0,
            "lag_rows": 1307, "lag_seconds": 2.5, "rows_per_second": 516.0,
            "updates_per_second": 40.1, "dead_letters_per_minute": 0.0, "positions": "{}",
            "deploying": [], "healing": [], "verdict": "healthy", "reasons": "[]",
        }  # fmt: skip
        self.write("training_health", row | changes)

    def sample(self, device, at, offset, **changes):
        row = {
            "kafka_partition": 0, "kafka_offset": offset, "event_time": self.now - at,
            "device_id": device, "slot_start": self.now - at,
            "features": '{"pressure": 1.5, "speed": 30}', "label": 0, "probability": 0.125,
            "is_anomalous": False, "model_version": 2,
        }  # fmt: skip
        self.write("device_samples", row | changes)

    def anomaly(self, device, at, offset, **changes):
        row = {
            "kafka_partition": 0, "kafka_offset": offset, "event_time": self.now - at,
            "device_id": device, "feature": "speed", "value": 77.5, "z_score": 4.25,
            "features": '{"speed": 4.25}', "probability": 0.875, "model_version": 2, "label": 1,
        }  # fmt: skip
        self.write("anomalies", row | changes)

    def update(self, device, at, offset, **changes):
        ended = self.now - at
        row = {
            "kafka_topic": "local-model-updates", "kafka_partition": 0, "kafka_offset": offset,
            "kafka_timestamp": ended, "aggregation_round": 1, "status": "accepted",
            "device_id": device, "model_version": 1, "base_version": 1, "feature_schema": SCHEMA,
            "trained": True, "training_status": "training", "samples_processed": 8,
            "weights": [0.0] * 8, "intercept": 0.0, "moments": "{}",
            "global_metrics": metrics(8, right=6, log_loss_sum=4.0),
            "personalized_metrics": metrics(8, right=7, log_loss_sum=2.0),
            "accuracy": 0.875, "rows": 8, "rows_labelled": 8, "rows_pseudo_labelled": 0,
            "label_source": "label", "input_partition": 0, "first_offset": 8 * offset,
            "last_offset": 8 * offset + 7, "offset_sum": 0, "window_start": ended,
            "window_end": ended, "closed_by": "count", "learning_rate": 0.0375,
            "hyperparameters_revision": 1, "timestamp": ended,
        }  # fmt: skip
        self.write("local_models", row | changes)

    def evaluation(self, run, versions, at=MOMENT, **changes):
        ended = self.now - at
        row = {
            "evaluation_run_id": run, "state": "evaluated", "feature_schema": SCHEMA,
            "due_versions": versions, "versions": versions, "warm_up_offsets": "{}",
            "start_offsets": "{}", "end_offsets": "{}", "window_start": ended, "window_end": ended,
            "rows": 2_000, "rows_labelled": 1_900, "devices": 12, "planned_at": ended,
            "evaluated_at": ended, "quality_status": "passed", "quality_checked_at": ended,
        }  # fmt: skip
        self.write("evaluation_runs", row | changes)

    def result(self, run, rule, at=MOMENT, **changes):
        row = {
            "suite": "model_evaluations", "table_name": "model_evaluations", "run_id": run,
            "rule": rule, "expectation": "expect_column_values_to_be_between",
            "severity": "critical", "success": True, "reason": "it must be", "element_count": 26,
            "unexpected_count": 0, "failing_examples": "[]", "created_at": self.now - at,
        }  # fmt: skip
        self.write("data_quality_results", row | changes)

    def decision(self, revision, **changes):
        row = {
            "revision": revision, "parent_revision": revision - 1, "status": "rejected",
            "reason": "no trial won", "feature_schema": SCHEMA, "model_version": 1,
            "hyperparameters": '{"learning_rate": 0.05}', "incumbent": '{"learning_rate": 0.05}',
            "trials": "[]", "horizon_seconds": 600.0, "evidence": "{}",
            "decided_by": "hyperparameter_tuning", "created_at": self.now,
            "decided_at": self.now, "settled_at": self.now,
        }  # fmt: skip
        self.write("tuning_decisions", row | changes)


def metrics(rows, *, right, log_loss_sum):
    """Return sums as an update carries them."""
    return Jsonb(
        {
            "version": 1, "rows": rows, "log_loss_sum": log_loss_sum,
            "tp": 1, "fp": rows - right, "tn": right - 1, "fn": 0,
        }
    )  # fmt: skip
