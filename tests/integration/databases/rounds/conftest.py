"""A fleet of which the test decides every number, between a real broker and a real database."""

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import (
    ClosedBy,
    LabelSource,
    LocalUpdate,
    Metrics,
    Moments,
    UpdateStatus,
)
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets, read_committed
from flead.messaging.topics import create_topics
from flead.rounds.aggregation import aggregate
from flead.rounds.opening import CONSUMER, open_or_resume
from flead.settings import Settings
from flead.storage import deployments, offsets
from flead.storage.connection import connect

FEATURES = ["x"]
INPUTS = 4
ROWS_OF_HISTORY = 20


@dataclass
class Federation:
    """What the tests of rounds act on."""

    database_url: str
    kafka: dict[str, str]
    producer: Producer
    settings: Settings

    def deploy(self, features):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            configuration = TrainingDeployment(features=features, bootstrap_servers="127.0.0.1:1")
            opened = deployments.open_attempt(cursor, uuid.uuid4().hex, configuration)
            deployments.mark_active(cursor, opened.job_id)

    def send(self, *updates):
        self.send_raw(
            *[(update.device_id.encode(), msgspec.json.encode(update)) for update in updates]
        )

    def send_raw(self, *messages):
        for key, value in messages:
            self.producer.produce(Topic.LOCAL_UPDATES, value, key)
        assert self.producer.flush(30) == 0

    def open(self, dag_run_id=None):
        return open_or_resume(self.database_url, self.kafka, self.settings, dag_run_id)

    def run_round(self, *updates):
        self.send(*updates)
        return aggregate(self.database_url, self.settings, self.open().number)

    def query(self, statement, *parameters):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def published(self, topic, start):
        return read_committed(self.kafka, topic, start, 100).records

    def kill_during(self, call, at):
        """Run `call` in a process that is killed by SIGKILL right after `at` has returned."""
        module, _, function = at.rpartition(".")
        program = f"""
import importlib, json, os, signal, sys
import msgspec
from flead.settings import Settings
database_url, kafka = json.loads(sys.argv[1])
settings = msgspec.json.decode(sys.argv[2], type=Settings)
module = importlib.import_module({module!r})
original = getattr(module, {function!r})
def then_die(*arguments, **named):
    original(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, {function!r}, then_die)
{call}
"""
        ended = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                json.dumps([self.database_url, self.kafka]),
                msgspec.json.encode(self.settings).decode(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == -9, ended.stderr


@pytest.fixture
def federation(database, kafka, producer, tmp_path):
    """Return a federation of a deployment of one feature, which has read everything there is."""
    properties = {"bootstrap.servers": kafka}
    create_topics(properties)
    made = Federation(
        database,
        properties,
        producer,
        Settings(
            global_models_dir=str(tmp_path),
            max_updates_per_round=1_000,
            max_staleness=3,
            gate_min_rows=0,
        ),
    )
    with connect(database) as connection, connection.cursor() as cursor:
        ends = end_offsets(properties, Topic.LOCAL_UPDATES)
        offsets.store_next_offsets(cursor, CONSUMER, Topic.LOCAL_UPDATES, ends)
    made.deploy(FEATURES)
    return made


def moments_of(rows):
    """Moments of an array of rows, of shape (rows, inputs)."""
    return Moments(
        [float(len(rows))] * rows.shape[1],
        rows.mean(axis=0).tolist(),
        (rows.var(axis=0) * len(rows)).tolist(),
    )


@pytest.fixture
def make_update():
    """Return a function that makes an update which every check of admission lets pass."""
    return plausible_update


def history_of(device, number=0):
    """Rows that a device has seen by its update of that number: what its moments are of."""
    seed = int.from_bytes(device.encode()) % 2**32
    rows = np.random.default_rng(seed).normal(size=(ROWS_OF_HISTORY * 10, INPUTS))
    return rows[: ROWS_OF_HISTORY * (number + 1)]


@pytest.fixture
def make_history():
    """Return the function that gives the rows behind the moments of `make_update`."""
    return history_of


def plausible_update(
    device,
    weights,
    *,
    base=0,
    rows=10,
    number=0,
    scored=None,
    challenged=None,
    features=FEATURES,
    partition=0,
    first_offset=100,
    **changes,
):
    """Make an update of `rows` labelled rows with consecutive offsets.

    `weights` has the intercept last; `scored` = (log_loss_sum, tp, fp, tn, fn) of the base,
    `challenged` the same of a candidate after its version.
    """
    offset_range = range(first_offset, first_offset + rows)
    values = {
        "device_id": device,
        "model_version": number + 1,
        "base_version": base,
        "feature_schema": feature_schema(features),
        "trained": True,
        "status": UpdateStatus.TRAINING,
        "samples_processed": rows,
        "weights": None if weights is None else [float(weight) for weight in weights[:-1]],
        "intercept": None if weights is None else float(weights[-1]),
        "moments": moments_of(history_of(device, number)),
        "global_metrics": None if scored is None else Metrics(base, rows, *scored),
        "candidate_metrics": None
        if challenged is None
        else Metrics(challenged[0], rows, *challenged[1:]),
        "personalized_metrics": None,
        "accuracy": None,
        "rows": rows,
        "rows_labelled": rows,
        "rows_pseudo_labelled": 0,
        "label_source": LabelSource.LABEL,
        "input_partition": partition,
        "first_offset": offset_range[0],
        "last_offset": offset_range[-1],
        "offset_sum": sum(offset_range),
        "window_start": 1_764_000_000_000,
        "window_end": 1_764_000_060_000,
        "closed_by": ClosedBy.TIME,
        "learning_rate": 0.1,
        "hyperparameters_revision": 0,
        "trial": None,
        "timestamp": 1_764_000_061_000,
    }
    return LocalUpdate(**values | changes)
