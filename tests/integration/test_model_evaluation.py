"""An evaluation from its plan to the database, against arithmetic that is written out here."""

import math
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flead.analysis.planning import plan_or_resume
from flead.contracts.analysis import ModelEvaluation
from flead.contracts.messages import (
    GlobalModel,
    LocalUpdate,
    ModelStatus,
    Moments,
    Telemetry,
)
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging import client
from flead.messaging.reading import offset_ranges, read_committed
from flead.messaging.topics import create_topics
from flead.settings import Settings
from flead.stack.home import CHECKOUT
from flead.stack.spark import prepare_spark, spark_environment, submission
from flead.storage import models, rounds, updates
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel
from flead.storage.updates import ReadUpdate
from tests.conftest import start

pytestmark = pytest.mark.servers

JOB = CHECKOUT / "jobs" / "spark" / "model_evaluation.py"
EXAMPLES = Path(__file__).parents[1] / "examples"
FEATURES = ["a", "b"]
INPUTS = 8
DEVICES = ["ordinary", "silent", "normal-only", "newcomer"]
TRAINED_ROWS, ROWS = 130, 180
"""Rows of a device that the first version was trained on, and all that it sends."""

FEEDBACK_ROWS = 3
SETTINGS = Settings(
    evaluation_min_rows=50, evaluation_interval_seconds=600.0, feedback_rows=FEEDBACK_ROWS
)
WEIGHTS = {
    1: [0.4, 1.1, -0.2, 0.1, 0.3, 0.9, 0.0, -0.5, -1.0],
    2: [0.5, 1.4, -0.1, 0.0, 0.2, 0.7, 0.1, -0.4, -1.3],
}


@dataclass
class Sent:
    """A device's rows as they lie in Kafka."""

    partition: int = 0
    offsets: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)


def rows_of(device, number):
    """Values and label of a row: anomalies lie higher, some values are missing."""
    random = np.random.default_rng([DEVICES.index(device), number])
    label = int(random.random() < 0.25)
    values = random.normal(3.0 + 2.5 * label, 1.0, 2)
    values[random.random(2) < 0.1] = math.nan
    if device == "silent":
        return values, None
    if device == "normal-only":
        return values, 0
    return values, label


def naive_inputs(values):
    """Make inputs by their definition, row by row."""
    made = np.full((len(values), len(values[0]), 4), np.nan)
    for row, now in enumerate(values):
        before = np.array(values[max(row - 100, 0) : row]).reshape(-1, len(now))
        for feature, value in enumerate(now):
            seen = before[:, feature][~np.isnan(before[:, feature])]
            made[row, feature, 0] = value
            if len(seen):
                made[row, feature, 2:] = seen.mean(), seen.std()
            if not math.isnan(value):
                known = len(seen) >= 30 and seen.std() > 0
                z_score = (value - seen.mean()) / seen.std() if known else 0.0
                made[row, feature, 1] = min(max(z_score, -10.0), 10.0)
    return made.reshape(len(values), -1)


def moments_of(rows):
    counted = (~np.isnan(rows)).sum(axis=0)
    mean = np.nanmean(rows, axis=0)
    spread = np.nansum((rows - mean) ** 2, axis=0)
    return Moments(counted.astype(float).tolist(), mean.tolist(), spread.tolist())


def probabilities(inputs, moments, weights):
    """Return what a version says of rows, by its definition."""
    count, mean, m2 = (np.array(part) for part in (moments.count, moments.mean, moments.m2))
    scaled = np.nan_to_num(np.clip((inputs - mean) / np.sqrt(m2 / count), -10, 10))
    return 1.0 / (1.0 + np.exp(-(scaled @ np.array(weights[:-1]) + weights[-1])))


class Evaluated:
    """Two versions, the rows that they were trained on and those that came later."""

    def __init__(self, home, database_url):
        self.home = home
        self.database_url = database_url
        self.kafka = {"bootstrap.servers": start(home, "kafka").kafka_bootstrap}
        self.sent = {device: Sent() for device in DEVICES}
        create_topics(self.kafka)
        prepare_spark(home)
        migrate(database_url)
        self.send(0, TRAINED_ROWS, [name for name in DEVICES if name != "newcomer"])
        self.trained = {partition: end - 1 for partition, (_, end) in self.ranges().items() if end}
        self.send(TRAINED_ROWS, ROWS, DEVICES)
        self.standardizer = moments_of(
            np.concatenate([naive_inputs(self.sent[name].values[:100]) for name in DEVICES[:3]])
        )
        self.own = {
            name: moments_of(naive_inputs(self.sent[name].values[:TRAINED_ROWS]))
            for name in DEVICES[:3]
        }
        self.store()

    def ranges(self):
        return offset_ranges(self.kafka, Topic.TELEMETRY)

    def send(self, first, last, devices):
        producer = client.producer(self.kafka)
        for number in range(first, last):
            for device in devices:
                values, label = rows_of(device, number)
                readings = dict(zip(FEATURES, values.tolist(), strict=True))
                features = {
                    name: None if math.isnan(value) else value for name, value in readings.items()
                }
                row = Telemetry(device, 1_764_000_000_000 + number, features, label)
                producer.produce(Topic.TELEMETRY, msgspec.json.encode(row), device)
        producer.produce(Topic.TELEMETRY, b"no row", "ordinary")
        assert producer.flush(30) == 0
        start = dict.fromkeys(self.ranges(), 0)
        for sent in self.sent.values():
            sent.offsets, sent.values, sent.labels = [], [], []
        for record in read_committed(self.kafka, Topic.TELEMETRY, start, 10_000).records:
            if record.value == b"no row":
                continue
            row = msgspec.json.decode(record.value, type=Telemetry)
            sent = self.sent[row.device_id]
            sent.partition = record.partition
            sent.offsets.append(record.offset)
            sent.values.append(
                [
                    math.nan if row.features[name] is None else row.features[name]
                    for name in FEATURES
                ]
            )
            sent.labels.append(row.label)

    def store(self):
        """Store the versions, and a window of 10 rows after another of each trained device."""
        update = msgspec.json.decode(
            (EXAMPLES / "local-model-updates.json").read_bytes(), type=LocalUpdate
        )
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            rounds.open_round(
                cursor, 1, start_offsets={}, end_offsets={}, updates=0, dead_letters=0,
                dag_run_id=None, now=models_now(),
            )  # fmt: skip
            windows = []
            for device in DEVICES[:3]:
                sent = self.sent[device]
                for number in range(TRAINED_ROWS // 10):
                    offsets = sent.offsets[number * 10 : number * 10 + 10]
                    known = naive_inputs(sent.values[: number * 10 + 10])
                    windows.append(
                        msgspec.structs.replace(
                            update, device_id=device, model_version=number + 1, rows=10,
                            feature_schema=feature_schema(FEATURES), moments=moments_of(known),
                            input_partition=sent.partition, first_offset=offsets[0],
                            last_offset=offsets[-1], offset_sum=sum(offsets),
                        )
                    )  # fmt: skip
            updates.insert_updates(
                cursor,
                1,
                [
                    ReadUpdate(Topic.LOCAL_UPDATES, 0, number, 1_764_000_000_000 + number, window)
                    for number, window in enumerate(windows)
                ],
            )
            cursor.execute("UPDATE local_models SET status = 'accepted', aggregation_weight = 0.1")
            updates.record_newest_moments(cursor, 1)
            self.insert(cursor, 1, dict.fromkeys(self.trained, 5))
            self.insert(cursor, 2, self.trained)
            models.advance_head(cursor, feature_schema(FEATURES), None, 2)

    def insert(self, cursor, version, input_offsets, **changes):
        model = msgspec.json.decode(
            (EXAMPLES / "global-model-updates.json").read_bytes(), type=GlobalModel
        )
        weights = WEIGHTS.get(version, WEIGHTS[2])
        values = {
            "version": version, "parent_version": version - 1, "restored_version": None,
            "status": ModelStatus.PROMOTED, "aggregation_round": None, "feature_names": FEATURES,
            "feature_schema": feature_schema(FEATURES), "weights": weights[:-1],
            "intercept": weights[-1], "standardizer": self.standardizer,
        }  # fmt: skip
        model = msgspec.structs.replace(model, **values | changes)
        models.insert_model(cursor, StoredModel(model, {}, input_offsets, 0, "m.json", "ab" * 32))

    def plan(self, **options):
        return plan_or_resume(self.database_url, self.kafka, SETTINGS, None, **options)

    def run(self, run):
        config = ModelEvaluation(run.evaluation_run_id, self.kafka, FEEDBACK_ROWS, buckets=2)
        command = submission(
            self.home, JOB, ["--config", msgspec.json.encode(config).decode()],
            configuration={"spark.sql.shuffle.partitions": "2"},
        )  # fmt: skip
        environment = os.environ | spark_environment(self.home)
        environment["FLEAD_DATABASE_URL"] = self.database_url
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=200
        )

    def query(self, statement, *parameters):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def rows_scored(self, device, run):
        """Rows of a device in the window, as numbers from its first."""
        sent = self.sent[device]
        bounds = run.start_offsets[sent.partition], run.end_offsets[sent.partition]
        return [n for n, offset in enumerate(sent.offsets) if bounds[0] <= offset < bounds[1]]

    def said(self, device, run, version):
        """Probabilities and labels of a device's rows in the window, without the program's code."""
        sent, rows = self.sent[device], self.rows_scored(device, run)
        inputs = naive_inputs(sent.values)[rows]
        own = self.own.get(device, self.standardizer)
        return probabilities(inputs, own, WEIGHTS[version]), [sent.labels[n] for n in rows]


def models_now():
    from datetime import UTC, datetime  # noqa: PLC0415

    return datetime.now(UTC)


@pytest.fixture(scope="module")
def evaluated(own_home, make_database):
    """Plan and run an evaluation of two versions."""
    made = Evaluated(own_home, make_database())
    made.planned = made.plan()
    made.resumed = made.plan()
    ran = made.run(made.planned)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return made


def test_the_window_is_disjoint_from_all_that_the_versions_were_trained_on(evaluated):
    run = evaluated.planned

    assert run.due_versions == run.versions == [1, 2]
    for partition, trained in evaluated.trained.items():
        assert run.start_offsets[partition] == trained + 1
        assert run.end_offsets[partition] == evaluated.ranges()[partition][1]
    assert evaluated.resumed == run
