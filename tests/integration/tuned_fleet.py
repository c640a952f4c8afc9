"""A fleet of which the test decides every figure, in a real database, without a broker."""

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import Hyperparameters, Metrics, TrainingControl, Trial
from flead.contracts.schema import feature_schema
from flead.learning.cohorts import assign, cohorts_of
from flead.settings import Settings
from flead.storage import control, decisions, deployments
from flead.storage.connection import connect
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.decisions import DecisionStatus, TuningDecision
from flead.tuning.evidence import Evidence
from flead.tuning.judging import ArmJudgement, Judgement

FEATURES = ["x"]
SCHEMA = feature_schema(FEATURES)
DEVICES = [f"device-{number:03}" for number in range(150)]
START = datetime(2026, 3, 1, tzinfo=UTC)
HORIZON = timedelta(seconds=600)
SETTINGS = Settings(
    tuning_versions=2,
    tuning_trials=2,
    tuning_fraction=0.2,
    tuning_min_devices=10,
    tuning_min_rows=30,
    tuning_horizon_seconds=HORIZON.total_seconds(),
    max_wait_seconds=60.0,
)


@dataclass
class Fleet:
    """What the tests of tuning act on."""

    database_url: str
    settings: Settings = SETTINGS
    _offsets: itertools.count = field(default_factory=itertools.count)

    def write(self, table, *rows):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            copy_rows(cursor, table, list(rows[0]), [list(row.values()) for row in rows])

    def query(self, statement, *parameters):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def deploy(self, hyperparameters=Hyperparameters()):  # noqa: B008 - it is frozen
        configuration = TrainingDeployment(
            features=FEATURES, bootstrap_servers="127.0.0.1:1", hyperparameters=hyperparameters
        )
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            opened = deployments.open_attempt(cursor, uuid.uuid4().hex, configuration)
            deployments.mark_active(cursor, opened.job_id)
            return control.queue_hyperparameters(cursor, hyperparameters)

    def ask_for(self, hyperparameters):
        """Store decision 2, which awaits an approval of what has won its trials."""
        trials = [Trial("2-1", 0.2, hyperparameters)]
        judgement = Judgement(40, 0.0, [ArmJudgement("2-1", 40, -0.2, 0.01, 0.01)], "2-1")
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            control.queue_hyperparameters(cursor, Hyperparameters(), trials)
            sent = control.queue_hyperparameters(cursor, Hyperparameters())
            decisions.insert(
                cursor,
                TuningDecision(
                    revision=2,
                    parent_revision=1,
                    status=DecisionStatus.AWAITING_APPROVAL,
                    reason="trial 2-1 has won by far",
                    feature_schema=SCHEMA,
                    model_version=1,
                    hyperparameters=Hyperparameters(),
                    incumbent=Hyperparameters(),
                    trials=trials,
                    horizon_seconds=1.0,
                    fleet_revision=sent.revision,
                    evidence=Evidence(judgement=judgement).stored(),
                    decided_by="flead",
                    created_at=START,
                    trial_started_at=START,
                ),
            )

    def promote(self, *versions, rows_labelled=10):
        """Store versions, each made of one window of so many labelled rows."""
        for version in versions:
            self.write("aggregation_rounds", round_of(version))
            self.write("federated_models", model_of(version))
            self.send(
                "trainer",
                START - timedelta(days=1),
                loss=0.5,
                rows=rows_labelled,
                aggregation_round=version,
            )

    def evaluate(self, losses, *, quality="passed"):
        """Store the log loss of each version on one window."""
        self.write(
            "model_evaluations",
            *[evaluation_of(version, loss, quality) for version, loss in losses.items()],
        )

    def send(self, device, at, **changes):
        """Store a window of a device, as a round would have read and judged it."""
        self.write("local_models", self.window(device, at, **changes))

    def train(self, at, *, revision, loss_of):
        """Let every device send a window at a time; `loss_of` gives its loss by its trial."""
        sent = self.control(revision)
        trials = [cohort.trial for cohort in cohorts_of(sent)]
        windows = []
        for number, cohort in enumerate(assign(sent, DEVICES).tolist()):
            # Devices differ, and none changes by itself.
            loss = loss_of(trials[cohort]) + 0.001 * number
            window = self.window(
                DEVICES[number], at, loss=loss, revision=revision, trial=trials[cohort]
            )
            windows.append(window)
        self.write("local_models", *windows)

    def window(self, device, at, *, loss, rows=60, revision=0, trial=None, **changes):
        metrics = Metrics(0, rows, loss * rows, 0, 0, rows, 0) if rows else None
        return {
            "kafka_topic": "local-model-updates",
            "kafka_partition": 0,
            "kafka_offset": next(self._offsets),
            "kafka_timestamp": at,
            "aggregation_round": 1,
            "status": "accepted" if trial is None else "rejected",
            "reject_reason": None if trial is None else "trial",
            "device_id": device,
            "model_version": 1,
            "base_version": 0,
            "feature_schema": SCHEMA,
            "trained": True,
            "training_status": "training",
            "samples_processed": max(rows, 1),
            "moments": Jsonb({}),
            "personalized_metrics": None if metrics is None else Jsonb(metrics),
            "rows": max(rows, 1),
            "rows_labelled": rows,
            "rows_pseudo_labelled": 0,
            "label_source": "label",
            "input_partition": 0,
            "first_offset": 0,
            "last_offset": 1,
            "offset_sum": 1,
            "window_start": at,
            "window_end": at,
            "closed_by": "count",
            "learning_rate": 0.1,
            "hyperparameters_revision": revision,
            "trial": trial,
            "timestamp": at,
        } | changes

    def controls(self):
        rows = self.query("SELECT value FROM outbox WHERE topic = 'training-control' ORDER BY id")
        return [msgspec.json.decode(value, type=TrainingControl) for (value,) in rows]

    def control(self, revision):
        return next(sent for sent in self.controls() if sent.revision == revision)

    def decisions(self):
        rows = self.query("SELECT revision FROM tuning_decisions ORDER BY revision")
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            return [decisions.get(cursor, revision) for (revision,) in rows]


def round_of(version):
    return {
        "round": version,
        "state": "aggregated",
        "start_offsets": Jsonb({}),
        "end_offsets": Jsonb({}),
        "updates": 1,
        "dead_letters": 0,
        "version": version,
        "opened_at": START,
        "attempted_at": START,
        "completed_at": START,
    }


def model_of(version):
    return {
        "version": version,
        "parent_version": version - 1,
        "aggregation_round": version,
        "status": "promoted",
        "feature_schema": SCHEMA,
        "feature_names": FEATURES,
        "strategy": "fedavg",
        "options": Jsonb({}),
        "weights": [0.0] * 4,
        "intercept": 0.0,
        "standardizer": Jsonb({}),
        "num_devices": 1,
        "num_updates": 1,
        "total_samples": 10,
        "input_offsets": Jsonb({}),
        "hyperparameters_revision": 1,
        "artifact_path": "",
        "artifact_sha256": "0" * 64,
        "created_at": START,
        "promoted_at": START,
    }


def evaluation_of(version, loss, quality):
    return {
        "model_version": version,
        "window_start": START,
        "window_end": START,
        "device_id": "*",
        "evaluation_run_id": "run",
        "status": "evaluated",
        "quality_status": quality,
        "evaluation_timestamp": START,
        "rows": 100,
        "samples": 100,
        "tp": 50,
        "fp": 0,
        "tn": 50,
        "fn": 0,
        "log_loss_sum": 100 * loss,
        "brier_sum": 0.0,
        "log_loss": loss,
    }
