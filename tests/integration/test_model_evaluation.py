"""Evaluations from their plan to the database, against arithmetic that is written out here."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log

import msgspec
import numpy as np
import pytest
from confluent_kafka.admin import NewPartitions
from scipy.special import expit

from flead.analysis.planning import NothingDueError
from flead.contracts.messages import Hyperparameters, ModelFeedback, Moments, TrainingControl
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.features.decoding import TelemetryDecoder
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer
from flead.learning.windows import CURRENT
from flead.messaging.client import admin
from flead.messaging.topics import create_topics
from flead.storage import evaluations, models
from flead.storage.evaluations import FLEET, EvaluationRun, RunState
from flead.storage.times import from_milliseconds
from tests.conftest import start
from tests.figures import by_scikit_learn
from tests.integration.spark.driver import PROGRAMS, driver
from tests.integration.spark.evaluating import (
    START_MS,
    Evaluating,
    Row,
    log_odds,
    moments_of,
    naive_inputs,
    rows_in,
)

pytestmark = pytest.mark.servers

FEATURES = ["a", "b"]
DEVICES = ["ordinary", "silent", "normal-only", "stuck", "newcomer"]
KNOWN = DEVICES[:-1]
TRAINED_ROWS, ROWS = 130, 180
"""Rows of a device that the first versions were trained on, and all that it sends."""

WEIGHTS = {
    1: [0.4, 1.1, -0.2, 0.1, 0.3, 0.9, 0.0, -0.5, -1.0],
    2: [0.5, 1.4, -0.1, 0.0, 0.2, 0.7, 0.1, -0.4, -1.3],
}
UNIT = Moments([100.0] * 4, [0.0] * 4, [100.0] * 4)
"""Mean 0 and deviation 1: what is standardized stays as it is."""


@pytest.fixture(scope="module")
def spark(own_home, tmp_path_factory):
    """Start a JVM that runs scripts; return what asks it."""
    with driver(own_home, "spark_scripts.py", tmp_path_factory.mktemp("spark")) as ask:
        yield ask


@pytest.fixture(scope="module")
def evaluating(own_home, spark, make_database):
    """Return the function that makes an empty database for a feature list."""
    kafka = start(own_home, "kafka").kafka_bootstrap
    create_topics({"bootstrap.servers": kafka})

    def make(features, *, min_rows=1, feedback_rows=1_000):
        return Evaluating(
            spark, kafka, make_database(), features,
            evaluation_min_rows=min_rows, feedback_rows=feedback_rows,
        )  # fmt: skip

    return make


def rows_of(devices, first, last):
    """Rows of the fleet: anomalies lie higher, some values are missing, one sensor is stuck."""
    for number in range(first, last):
        for device in devices:
            random = np.random.default_rng([DEVICES.index(device), number])
            label = int(random.random() < 0.25)
            values = random.normal(3.0 + 2.5 * label, 1.0, 2)
            values[random.random(2) < 0.1] = math.nan
            if device == "stuck":
                values = [1e6 if number == 150 else values[0], 0.5]
            known = {"silent": None, "normal-only": 0}.get(device, label)
            yield Row(device, values, known, START_MS + number)


def all_rows():
    return [*rows_of(KNOWN, 0, TRAINED_ROWS), *rows_of(DEVICES, TRAINED_ROWS, ROWS)]


@dataclass
class Fleet:
    """Two versions, the rows that they were trained on, those that came later; evaluated."""

    on: Evaluating
    trained: dict[int, int]
    standardizer: Moments
    own: dict[str, Moments]
    planned: EvaluationRun
    resumed: EvaluationRun

    def said(self, run, weights, own):
        """Log-odds and labels, nan for none, of the rows of each device that are in a window."""
        said = {}
        for device, sent in self.on.sent().items():
            rows = rows_in(run, sent)
            inputs = naive_inputs(sent.values)[rows]
            labels = np.array([sent.labels[number] for number in rows], np.float64)
            said[device] = log_odds(inputs, own.get(device, self.standardizer), weights), labels
        return said

    def assert_figures(self, run, version, weights, own):
        """Check the rows of a version against scikit-learn's, for each device and the fleet."""
        found = self.on.evaluations(run)
        said = self.said(run, weights, own)
        said[FLEET] = tuple(np.concatenate(parts) for parts in zip(*said.values(), strict=True))
        assert {device for of, device in found if of == version} == set(said)
        for device, (logits, labels) in said.items():
            row, labelled = found[version, device], ~np.isnan(labels)
            assert (row["rows"], row["samples"]) == (len(labels), labelled.sum())
            if not row["samples"]:
                assert row["accuracy"] is row["roc_auc"] is row["log_loss"] is row["brier"] is None
                continue
            expected = by_scikit_learn(logits[labelled], labels[labelled])
            made = {name: row[name] for name in expected}
            assert made == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def fleet(evaluating):
    """Plan an evaluation of two versions twice, and run it."""
    on = evaluating(FEATURES, min_rows=50)
    on.send(list(rows_of(KNOWN, 0, TRAINED_ROWS)))
    on.send_no_row("ordinary")
    trained = on.ends()
    on.send(list(rows_of(DEVICES, TRAINED_ROWS, ROWS)))
    sent = on.sent()
    inputs = {name: naive_inputs(sent[name].values[:TRAINED_ROWS]) for name in KNOWN}
    standardizer = moments_of(np.concatenate([inputs[name][:100] for name in KNOWN]))
    own = {name: moments_of(inputs[name]) for name in KNOWN}
    on.open_round(1)
    on.remember(
        1,
        [
            (name, sent[name].partition, sent[name].offsets[end - 10 : end],
             moments_of(inputs[name][:end]))
            for name in KNOWN
            for end in range(10, TRAINED_ROWS + 1, 10)
        ],
    )  # fmt: skip
    forged = ("ordinary", sent["ordinary"].partition, [sent["ordinary"].offsets[0]])
    on.remember(1, [(*forged, Moments([1.0], [1.0], [1.0]))], reject_reason="dimension")
    on.store(1, WEIGHTS[1], standardizer, dict.fromkeys(trained, 5))
    on.store(2, WEIGHTS[2], standardizer, trained, aggregation_round=1)
    made = Fleet(on, trained, standardizer, own, on.plan(), on.plan())
    on.run(made.planned)
    return made


def test_the_window_is_disjoint_from_all_that_the_versions_were_trained_on(fleet):
    run = fleet.planned

    assert run.due_versions == run.versions == [1, 2]
    for partition, trained in fleet.trained.items():
        assert run.start_offsets[partition] == trained + 1
        assert 0 < run.warm_up_offsets[partition] < trained
    assert fleet.resumed == run


@pytest.mark.parametrize("version", [1, 2])
def test_figures_of_each_device_and_the_fleet_are_scikit_learns(fleet, version):
    fleet.assert_figures(fleet.planned, version, WEIGHTS[version], fleet.own)


def test_predictions_of_the_newest_version_are_kept_with_how_they_turned_out(fleet):
    said = fleet.said(fleet.planned, WEIGHTS[2], fleet.own)
    sent = fleet.on.sent()
    expected = {
        (sent[device].partition, sent[device].offsets[number]): (expit(logit), label)
        for device, (logits, labels) in said.items()
        for number, logit, label in zip(
            rows_in(fleet.planned, sent[device]), logits, labels, strict=True
        )
        if not np.isnan(label)
    }

    kept = fleet.on.predictions(fleet.planned)

    assert {(row["kafka_partition"], row["kafka_offset"]) for row in kept} == set(expected)
    for row in kept:
        sure, label = expected[row["kafka_partition"], row["kafka_offset"]]
        assert (row["model_version"], row["actual"]) == (2, label)
        assert row["quality_status"] == "pending"
        assert row["prediction"] == pytest.approx(sure, abs=1e-9)
        assert row["error"] == abs(row["actual"] - row["prediction"])
        assert row["confidence"] == abs(2 * row["prediction"] - 1)


def test_three_engines_say_the_same_of_rows_in_the_middle_of_histories(fleet, spark, tmp_path):
    start_offsets = fleet.planned.start_offsets
    of_training = by_training_job(fleet.on, start_offsets)
    of_sql = by_spark_sql(fleet, spark, tmp_path / "scores.json")
    of_evaluation = {
        (row["kafka_partition"], row["kafka_offset"]): row["prediction"]
        for row in fleet.on.predictions(fleet.planned)
    }

    assert len(of_training) == len(DEVICES) * (ROWS - TRAINED_ROWS)
    in_window = {key: of_sql[key] for key in of_sql if key[1] >= start_offsets[key[0]]}
    assert in_window == pytest.approx(of_training, abs=1e-6)
    # The evaluation keeps what it says of labelled rows.
    assert len(of_evaluation) == (len(DEVICES) - 1) * (ROWS - TRAINED_ROWS)
    labelled = {key: of_training[key] for key in of_evaluation}
    assert of_evaluation == pytest.approx(labelled, abs=1e-6)


def by_training_job(on, start_offsets):
    """Probabilities of the rows in the window, by the code that the training job runs."""
    records = on.records()
    batch, _ = TelemetryDecoder(FEATURES).decode(
        [record.key for record in records],
        [record.value for record in records],
        np.array([record.partition for record in records], np.int32),
        np.array([record.offset for record in records]),
        np.array([record.timestamp for record in records]),
    )
    found = {}

    def note(closed, offsets):
        for number, update in enumerate(closed.updates):
            for row in range(closed.lengths[number]):
                logit = closed.logits[row, number, CURRENT]
                found[update.input_partition, int(offsets[row, number])] = expit(logit)

    def fleet_state(model, window_rows):
        settings = Hyperparameters(window_rows=window_rows, window_seconds=86_400.0)
        return FleetState(model, None, TrainingControl(0, settings))

    with on.cursor() as cursor:
        model = models.models(cursor, [2])[2].model
    trainer = LocalTrainer(FEATURES, observer=note)
    inside = batch.offset >= np.array([start_offsets[n] for n in batch.partition.tolist()])
    trainer.process(batch.select(~inside), 0, fleet_state(None, 10))
    found.clear()
    # One window: all its rows are standardized by the moments as of its start.
    trainer.process(batch.select(inside), 0, fleet_state(model, 10_000))
    trainer.flush(0, fleet_state(model, 10_000))
    return found


def by_spark_sql(fleet, spark, output):
    """Probabilities of all rows by SQL."""
    moments = {device: fleet.own.get(device, fleet.standardizer) for device in DEVICES}
    given = {
        "kafka": fleet.on.kafka["bootstrap.servers"],
        "topic": Topic.TELEMETRY,
        "features": FEATURES,
        "weights": WEIGHTS[2],
        "moments": {name: msgspec.structs.astuple(each) for name, each in moments.items()},
        "output": str(output),
    }
    spark([str(PROGRAMS / "scores_by_sql.py"), [json.dumps(given)], {}])
    return {
        (partition, offset): probability
        for _, partition, offset, probability in json.loads(output.read_text())
    }


def test_a_rerun_leaves_every_row_as_it_was_and_brings_back_those_that_are_gone(fleet):
    on = fleet.on
    with on.cursor() as cursor:
        cursor.execute("UPDATE model_evaluations SET quality_status = 'passed'")
    before = on.written()
    with on.cursor() as cursor:
        cursor.execute("DELETE FROM model_evaluations WHERE device_id = 'ordinary'")
        cursor.execute("DELETE FROM model_feedback WHERE device_id = 'ordinary'")
    # A round since then has read windows from before the evaluation's.
    on.open_round(2)
    sent = on.sent()
    on.remember(
        2,
        [
            (name, sent[name].partition, sent[name].offsets[:TRAINED_ROWS],
             moments_of(naive_inputs(sent[name].values[:60])))
            for name in KNOWN
        ],
    )  # fmt: skip

    on.run(fleet.planned)

    after = on.written()
    assert after["outbox"] == before["outbox"]
    for table in ("model_evaluations", "model_feedback"):
        assert others(after[table]) == others(before[table])
        assert ordinary(after[table]) == ordinary(before[table]) != []


def others(rows):
    return [row for row in rows if row["device_id"] != "ordinary"]


def ordinary(rows):
    made_anew = {"id", "created_at", "quality_status"}
    return [
        {name: value for name, value in row.items() if name not in made_anew}
        for row in rows
        if row["device_id"] == "ordinary"
    ]


def test_a_version_on_the_same_rows_as_its_parent_leaves_the_parents_figures(fleet):
    on = fleet.on
    before = on.evaluations(fleet.planned)
    # A rollback trains on nothing: its window is that of the version that it takes back.
    on.store(3, WEIGHTS[1], fleet.standardizer, fleet.trained, restored_version=1)

    run = on.plan()
    on.run(run)

    assert (run.due_versions, run.versions) == ([3], [2, 3])
    assert on.evaluations(fleet.planned) == before
    assert {version for version, _ in on.evaluations(run)} == {3}
    fleet.assert_figures(run, 3, WEIGHTS[1], fleet.own)


def test_rows_that_are_sent_again_are_evaluated_where_no_version_was_trained(fleet):
    on = fleet.on
    first_times = {device: sent.event_times for device, sent in on.sent().items()}
    trained = on.ends()
    on.send(all_rows())
    on.store(4, WEIGHTS[2], fleet.standardizer, trained, aggregation_round=2)

    run = on.plan()
    on.run(run)

    assert run.due_versions == [4]
    sent = on.sent()
    for device, again in sent.items():
        rows = rows_in(run, again)
        assert [again.event_times[number] for number in rows] == first_times[device]
    # The moments of the round that made the version.
    own = {name: moments_of(naive_inputs(sent[name].values[:60])) for name in KNOWN}
    fleet.assert_figures(run, 4, WEIGHTS[2], own)
    with on.cursor() as cursor:
        lineage = models.models(cursor, [1, 2, 3, 4])
    evaluated = on.predictions(run)
    assert len(evaluated) == 3 * ROWS + ROWS - TRAINED_ROWS
    for each in lineage.values():
        for row in evaluated:
            assert row["kafka_offset"] > each.input_offsets.get(row["kafka_partition"], -1)


LEFT = (
    (2 * log(15), 15 / 16, 1),
    (2 * log(3), 3 / 4, 1),
    (-2 * log(3), 1 / 4, 0),
    (2 * log(3), 3 / 4, 0),
    (-2 * log(3), 1 / 4, 1),
    (0.0, 1 / 2, 0),
)
RIGHT = (
    (-log(3), 1 / 4, 0),
    (-log(15), 1 / 16, 0),
    (log(3), 3 / 4, 0),
    (log(15), 15 / 16, None),
)
"""Value, probability and label of each row; see the class below."""


@pytest.fixture(scope="module")
def made(evaluating):
    """Evaluate the table that `TestATableThatIsWorkedOutByHand` explains."""
    on = evaluating(["x"], min_rows=9, feedback_rows=2)
    on.send([Row("left", [2.0 if number % 2 else -2.0], 0) for number in range(40)])
    before = on.sent()["left"]
    last = {before.partition: before.offsets[-1]}
    on.open_round(1)
    four = Moments([40.0] * 4, [0.0] * 4, [160.0] * 4)
    on.remember(1, [("left", before.partition, before.offsets, four)])
    on.store(1, [0.0, 0.0, 0.0, 0.0, 0.0], UNIT, {before.partition: before.offsets[19]})
    on.store(2, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, last, aggregation_round=1)
    on.send([Row("left", [value], label) for value, _, label in LEFT])
    on.send([Row("right", [value], label) for value, _, label in RIGHT])
    run = on.plan()
    on.run(run)
    return on, run


class TestATableThatIsWorkedOutByHand:
    """Two devices with ten rows; the log-odds of version 2 are the standardized value.

    | device | value   | standardized | probability | label | called           |
    |--------|---------|--------------|-------------|-------|------------------|
    | left   | 2 ln 15 | ln 15        | 15/16       | 1     | tp, by z-score too |
    | left   | 2 ln 3  | ln 3         | 3/4         | 1     | tp               |
    | left   | -2 ln 3 | -ln 3        | 1/4         | 0     | tn               |
    | left   | 2 ln 3  | ln 3         | 3/4         | 0     | fp               |
    | left   | -2 ln 3 | -ln 3        | 1/4         | 1     | fn               |
    | left   | 0       | 0            | 1/2         | 0     | fp               |
    | right  | -ln 3   | -ln 3        | 1/4         | 0     | tn               |
    | right  | -ln 15  | -ln 15       | 1/16        | 0     | tn               |
    | right  | ln 3    | ln 3         | 3/4         | 0     | fp               |
    | right  | ln 15   | ln 15        | 15/16       | none  |                  |

    The device `left` has sent 2 and -2 in turn 40 times before: its own mean is 0, its deviation 2,
    and so are those that its first row's z-score has, ln 15 = 2.7. Nothing is known of `right`,
    which is standardized by mean 0 and deviation 1 of the fleet, and has too few rows for a
    z-score. Version 1 has no weights: it says 1/2, which is called anomalous, of every row.
    """

    def figures(self, made, version, device):
        on, run = made
        row = on.evaluations(run)[version, device]
        return {name: row[name] for name in (
            "rows", "samples", "tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1",
            "roc_auc", "log_loss", "brier",
        )}  # fmt: skip

    def test_the_device_with_both_classes(self, made):
        assert self.figures(made, 2, "left") == pytest.approx({
            "rows": 6, "samples": 6, "tp": 2, "fp": 2, "tn": 1, "fn": 1,
            "accuracy": 3 / 6,
            "precision": 2 / 4,
            "recall": 2 / 3,
            "f1": 4 / 7,  # 2 * 2 / (2 * 2 + 2 + 1)
            # Anomalies 15/16, 3/4, 1/4 against 1/4, 3/4, 1/2: 3 + 2.5 + .5 of nine pairs
            "roc_auc": 2 / 3,
            # -ln of what was said of the truth: 15/16, 3/4, 3/4, 1/4, 1/4, 1/2
            "log_loss": log(16 / 15 * 4 / 3 * 4 / 3 * 4 * 4 * 2) / 6,
            # Squared errors, in 256ths: 1 + 16 + 16 + 144 + 144 + 64
            "brier": 385 / 256 / 6,
        }, abs=1e-12)  # fmt: skip

    def test_the_device_with_normal_rows_only(self, made):
        assert self.figures(made, 2, "right") == pytest.approx({
            "rows": 4, "samples": 3, "tp": 0, "fp": 1, "tn": 2, "fn": 0,
            "accuracy": 2 / 3,
            "precision": None, "recall": None, "f1": None, "roc_auc": None,
            # Of the truth was said 3/4, 15/16, 1/4
            "log_loss": log(4 / 3 * 16 / 15 * 4) / 3,
            # In 256ths: 16 + 1 + 144
            "brier": 161 / 256 / 3,
        }, abs=1e-12)  # fmt: skip

    def test_the_fleet(self, made):
        assert self.figures(made, 2, FLEET) == pytest.approx({
            "rows": 10, "samples": 9, "tp": 2, "fp": 3, "tn": 3, "fn": 1,
            "accuracy": 5 / 9,  # the mean of the devices' would be 7/12
            "precision": 2 / 5,
            "recall": 2 / 3,
            "f1": 1 / 2,  # 2 * 2 / (2 * 2 + 3 + 1)
            # The normal rows of `right` too, 1/4, 1/16, 3/4: 6 + 5 + 2 of 18 pairs
            "roc_auc": 13 / 18,
            "log_loss": log(16 / 15 * 4 / 3 * 4 / 3 * 4 * 4 * 2 * 4 / 3 * 16 / 15 * 4) / 9,
            "brier": 546 / 256 / 9,
        }, abs=1e-12)  # fmt: skip

    def test_the_parent_on_the_same_rows(self, made):
        nothing_known = {"log_loss": log(2), "brier": 1 / 4}
        assert self.figures(made, 1, "left") == pytest.approx({
            "rows": 6, "samples": 6, "tp": 3, "fp": 3, "tn": 0, "fn": 0, "accuracy": 1 / 2,
            "precision": 1 / 2, "recall": 1.0, "f1": 2 / 3, "roc_auc": 1 / 2,
        } | nothing_known, abs=1e-12)  # fmt: skip
        assert self.figures(made, 1, FLEET) == pytest.approx({
            "rows": 10, "samples": 9, "tp": 3, "fp": 6, "tn": 0, "fn": 0, "accuracy": 1 / 3,
            "precision": 1 / 3, "recall": 1.0, "f1": 1 / 2, "roc_auc": 1 / 2,
        } | nothing_known, abs=1e-12)  # fmt: skip

    def test_calibration(self, made):
        on, run = made
        calibration = on.evaluations(run)[2, FLEET]["calibration"]

        # 1/16; 1/4 three times, once anomalous; 1/2; 3/4 three times, once anomalous; 15/16
        assert calibration["count"] == [1, 0, 3, 0, 0, 1, 0, 3, 0, 1]
        assert calibration["positives"] == [0, 0, 1, 0, 0, 0, 0, 1, 0, 1]
        assert calibration["probability_sum"] == pytest.approx(
            [1 / 16, 0, 3 / 4, 0, 0, 1 / 2, 0, 9 / 4, 0, 15 / 16], abs=1e-12
        )

    def test_baselines(self, made):
        on, run = made

        assert on.evaluations(run)[2, FLEET]["baselines"] == {
            "always_normal": {
                "tp": 0, "fp": 0, "tn": 6, "fn": 3,
                "accuracy": 6 / 9, "precision": 0.0, "recall": 0.0, "f1": 0.0,
            },
            "zscore": {
                "tp": 1, "fp": 0, "tn": 6, "fn": 2,
                "accuracy": 7 / 9, "precision": 1.0, "recall": 1 / 3, "f1": 1 / 2,
            },
        }  # fmt: skip

    def test_what_the_evaluation_says_of_itself(self, made):
        on, run = made
        sent = on.sent()
        times = [
            sent[device].timestamps[number]
            for device in ("left", "right")
            for number in rows_in(run, sent[device])
        ]

        rows = on.evaluations(run).values()

        assert len(times) == 10
        for row in rows:
            assert row["window_start"] == from_milliseconds(min(times))
            assert row["window_end"] == from_milliseconds(max(times))
            assert row["evaluation_timestamp"] == run.planned_at
            assert (row["status"], row["reason"]) == ("evaluated", None)
            assert row["quality_status"] == "pending"
            assert row["start_offsets"] == {str(key): at for key, at in run.start_offsets.items()}
            assert row["end_offsets"] == {str(key): at for key, at in run.end_offsets.items()}
        [stored] = on.query("SELECT * FROM evaluation_runs")
        assert (stored["state"], stored["rows"], stored["rows_labelled"]) == ("evaluated", 10, 9)
        # Of the 100 rows that inputs look back on, 40 and none were there.
        assert (stored["devices"], stored["devices_short_of_history"]) == (2, 2)

    def test_two_predictions_of_each_device(self, made):
        on, run = made
        sent = on.sent()
        by_offset = {
            (device, sent[device].offsets[number]): row
            for device, rows in (("left", LEFT), ("right", RIGHT))
            for number, row in zip(rows_in(run, sent[device]), rows, strict=True)
        }

        kept = sorted(on.predictions(run), key=lambda row: row["device_id"])

        assert [row["device_id"] for row in kept] == ["left", "left", "right", "right"]
        for row in kept:
            _, chance, truth = by_offset[row["device_id"], row["kafka_offset"]]
            assert (row["model_version"], row["actual"]) == (2, truth)
            assert row["prediction"] == pytest.approx(chance, abs=1e-12)
            assert row["error"] == pytest.approx(abs(truth - chance), abs=1e-12)
            assert row["confidence"] == pytest.approx(abs(2 * chance - 1), abs=1e-12)

    def test_what_devices_will_be_told_is_held(self, made):
        on, run = made

        rows = on.query("SELECT topic, key, state, value FROM outbox ORDER BY key")

        assert [(row["topic"], row["key"], row["state"]) for row in rows] == [
            ("model-feedback", "left", "held"), ("model-feedback", "right", "held"),
        ]  # fmt: skip
        left, right = (msgspec.json.decode(row["value"], type=ModelFeedback) for row in rows)
        assert {left.evaluation_run_id, right.evaluation_run_id} == {run.evaluation_run_id}
        assert (left.model_version, left.samples, right.samples) == (2, 6, 3)
        # Errors in 16ths: 1 + 4 + 4 + 12 + 12 + 8, and 4 + 1 + 12
        assert left.mean_error == pytest.approx(41 / 16 / 6, abs=1e-12)
        assert right.mean_error == pytest.approx(17 / 16 / 3, abs=1e-12)
        # |2p - 1| in 8ths: 7 + 4 + 4 + 4 + 4 + 0, and 4 + 7 + 4
        assert left.confidence == pytest.approx(23 / 8 / 6, abs=1e-12)
        assert right.confidence == pytest.approx(15 / 8 / 3, abs=1e-12)
        assert (left.accuracy, right.accuracy) == (3 / 6, 2 / 3)
        assert right.log_loss == pytest.approx(log(4 / 3 * 16 / 15 * 4) / 3, abs=1e-12)


@pytest.fixture(scope="module")
def taken_back(evaluating):
    """Plan two versions on normal rows, take the newer one back, evaluate."""
    on = evaluating(["n"])
    on.send([Row(f"normal {number % 2}", [0.1 * number - 1], 0) for number in range(20)])
    on.store(1, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    on.store(2, [2.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    run = on.plan()
    on.take_back(2)
    on.run(run)
    return on, run


class TestVersionsThatAreTakenBack:
    def test_one_that_was_since_the_plan_is_left_out_with_the_reason(self, taken_back):
        on, run = taken_back

        found = on.evaluations(run)

        assert run.due_versions == [1, 2]
        assert set(found) == {(1, FLEET), (1, "normal 0"), (1, "normal 1"), (2, FLEET)}
        left_out = found[2, FLEET]
        assert (left_out["status"], left_out["reason"]) == ("not_evaluated", "rolled_back")
        assert (left_out["samples"], left_out["accuracy"], left_out["brier"]) == (0, None, None)
        assert {row["model_version"] for row in on.predictions(run)} == {1}
        told = [json.loads(row["value"])["model_version"] for row in on.written()["outbox"]]
        assert told == [1, 1]

    def test_rows_of_one_class_have_no_area_and_no_precision(self, taken_back):
        on, run = taken_back
        row = on.evaluations(run)[1, FLEET]

        assert row["roc_auc"] is row["precision"] is row["recall"] is row["f1"] is None
        # Probabilities of the values from -1 to .9: those from 0 on are called anomalous.
        values = np.array([0.1 * number - 1 for number in range(20)])
        assert (row["tp"], row["fp"], row["tn"], row["fn"]) == (0, 10, 10, 0)
        assert row["accuracy"] == 1 / 2
        assert row["log_loss"] == pytest.approx(np.log1p(np.exp(values)).mean(), abs=1e-9)
        assert row["brier"] == pytest.approx((expit(values) ** 2).mean(), abs=1e-9)

    def test_one_that_another_feature_list_supersedes_is_recorded_once(self, taken_back):
        on, run = taken_back
        on.store(3, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
        other = {"feature_names": ["m"], "feature_schema": feature_schema(["m"])}
        on.store(4, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {}, parent_version=0, **other)
        before = on.evaluations(run)

        for _ in range(2):
            with pytest.raises(NothingDueError, match="version 4 waits for"):
                on.plan()

        [left_out] = on.query("SELECT * FROM model_evaluations WHERE model_version = 3")
        assert left_out["status"] == "not_evaluated"
        assert left_out["reason"].startswith("superseded")
        assert (left_out["samples"], left_out["accuracy"]) == (0, None)
        assert on.evaluations(run) == before

    def test_when_all_are_the_job_says_so_and_the_plan_is_given_up(self, evaluating):
        on = evaluating(["g"])
        on.send([Row("given up", [1.0], 1)])
        on.store(1, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
        run = on.plan()
        on.take_back(1)

        with pytest.raises(RuntimeError, match=r"NothingToScoreError: versions \[1\] of"):
            on.run(run)

        assert not any(on.written().values())
        with pytest.raises(NothingDueError, match="every version"):
            on.plan()
        assert on.query("SELECT * FROM evaluation_runs") == []
        [left_out] = on.query("SELECT status, reason FROM model_evaluations")
        assert left_out == {"status": "not_evaluated", "reason": "rolled_back"}


def test_a_fleet_without_labels_is_known_by_its_updates_and_its_rows_are_not_read(evaluating):
    on = evaluating(["w"])
    on.send([Row("labelled in vain", [1.0], 1)])
    on.store(1, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    on.open_round(7)
    on.remember(7, [("elsewhere", 0, [0], UNIT)])
    on.query("UPDATE local_models SET rows_labelled = 0 RETURNING device_id")

    with pytest.raises(NothingDueError, match="no row of the last 50 rounds had a label"):
        on.plan()

    on.query("UPDATE local_models SET rows_labelled = 1 RETURNING device_id")
    assert on.plan().due_versions == [1]


def test_rows_without_labels_are_no_evaluation(evaluating):
    on = evaluating(["u"])
    on.send([Row("unlabelled", [float(number)], None) for number in range(5)])
    on.store(1, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    with pytest.raises(NothingDueError, match="version 1 waits for FLEAD_EVALUATION_MIN_ROWS=1"):
        on.plan()
    ends = {partition: last + 1 for partition, last in on.ends().items()}
    begin = dict.fromkeys(ends, 0)
    run = EvaluationRun(
        "by hand", RunState.PLANNED, None, on.schema, [1], [1], begin, begin, ends,
        datetime.now(UTC),
    )  # fmt: skip
    with on.cursor() as cursor:
        evaluations.plan(cursor, run)

    with pytest.raises(
        RuntimeError, match="EmptyWindowError: evaluation by hand found no labelled"
    ):
        on.run(run)

    assert not any(on.written().values())
    with pytest.raises(NothingDueError):
        on.plan()
    assert on.query("SELECT * FROM evaluation_runs") == []


@pytest.fixture(scope="module")
def row_of_damaged(evaluating):
    evaluating(["d"]).send([Row("damaged", [1.0], 1)])


@pytest.mark.usefixtures("row_of_damaged")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("weights = ARRAY[1.0]", "version 2 has 1 weights"),
        ("weights = ARRAY[1.0, 'NaN', 1.0, 1.0]", "version 2 has weights or moments that are not"),
        (
            """standardizer = '{"count": [1, 1], "mean": [1, 1, 1, 1], "m2": [1, 1, 1, 1]}'""",
            "version 2 has 4 weights and a standardizer of 2, 4 and 4 for 4 inputs",
        ),
        ("feature_names = ARRAY['e']", r"version 2 is of feature schema \w+ with the features"),
        ("feature_schema = 'another'", "version 2 is of feature schema another"),
    ],
)
def test_a_version_that_is_damaged_is_named_and_nothing_is_written(evaluating, damage, said):
    on = evaluating(["d"])
    for version in (1, 2):
        on.store(version, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    run = on.plan()
    with on.cursor() as cursor:
        cursor.execute(f"UPDATE federated_models SET {damage} WHERE version = 2")  # noqa: S608

    with pytest.raises(RuntimeError, match=f"UnusableModelError: {said}"):
        on.run(run)

    assert not any(on.written().values())


def test_a_topic_that_has_got_more_partitions_since_is_read_as_planned(evaluating):
    on = evaluating(["p"])
    on.send([Row("partitioned", [1.0], 1)])
    on.store(1, [1.0, 0.0, 0.0, 0.0, 0.0], UNIT, {})
    run = on.plan()
    client = admin(on.kafka)
    for done in client.create_partitions([NewPartitions(Topic.TELEMETRY.value, 5)]).values():
        done.result()

    on.run(run)

    assert on.evaluations(run)[1, FLEET]["samples"] == 1
