"""The figures of an evaluation equal scikit-learn's, for each device and the fleet."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error

from flead.analysis.evaluation import (
    Scoring,
    UnusableModelError,
    evaluate_devices,
    fleet_roc_auc,
    usable,
)
from flead.analysis.results import (
    COLUMNS,
    evaluation_rows,
    messages_of,
    outcome_of,
    predictions_of,
)
from flead.analysis.telemetry import ROWS
from flead.contracts.messages import GlobalModel, ModelFeedback, ModelStatus, Moments
from flead.contracts.schema import feature_schema
from flead.storage.evaluations import FLEET, EvaluationRun, RunState
from tests.figures import by_scikit_learn, decided_by_scikit_learn

FEATURES = ["x"]
SCHEMA = feature_schema(FEATURES)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = EvaluationRun("run", RunState.PLANNED, None, SCHEMA, [1], [1], {0: 0}, {0: 0}, {0: 9}, NOW)
# Mean 0 and deviation 1: what is standardized stays as it is.
UNIT = Moments([100.0] * 4, [0.0] * 4, [100.0] * 4)


def model(version=1, weight=1.0, intercept=0.0, **changes):
    """Make a version whose log-odds are `weight` times the value, plus the intercept."""
    message = GlobalModel(
        version=version, parent_version=0, restored_version=None, status=ModelStatus.PROMOTED,
        aggregation_round=version, feature_schema=SCHEMA, feature_names=FEATURES,
        weights=[weight, 0.0, 0.0, 0.0], intercept=intercept, standardizer=UNIT,
        strategy="fedavg", num_devices=1, num_updates=1, total_samples=1, global_accuracy=None,
        global_loss=None, timestamp=0,
    )  # fmt: skip
    return msgspec.structs.replace(message, **changes)


def rows_of(devices, values, labels):
    """Make rows of one partition in this order; a label that is nan is none."""
    times = [NOW + timedelta(seconds=number) for number in range(len(devices))]
    return pa.table(
        [
            list(devices),
            np.zeros(len(devices), np.int32),
            np.arange(len(devices)),
            times,
            times,
            pa.array(labels, pa.float64(), from_pandas=True).cast(pa.int8()),
            pa.nulls(len(devices), pa.string()),
            pa.array([[("x", value)] for value in values], ROWS.field("features").type),
        ],
        schema=ROWS,
    )


def evaluate(rows, *models, sampled_rows=0):
    scored = [usable(each, SCHEMA) for each in models]
    return evaluate_devices(rows, Scoring(FEATURES, scored, {0: 0}, {}, sampled_rows))


def figures(rows, *models):
    """Return what is written of each version and device."""
    found = evaluate(rows, *models)
    areas = fleet_roc_auc(found)
    auc = dict(zip(*(areas[name].to_pylist() for name in areas.column_names), strict=True))
    devices = found.to_pylist()
    outcome = outcome_of([each for each in devices if each["model_version"] == 1])
    written = [
        dict(zip(COLUMNS, row, strict=True))
        for row in evaluation_rows(RUN, outcome, devices, auc, {})
    ]
    return {(row["model_version"], row["device_id"]): row for row in written}


def drawn(kind, seed):
    """Rows of five devices of different sizes, one row in five without a label."""
    random = np.random.default_rng(seed)
    devices = np.repeat(list("abcde"), random.integers(40, 200, 5))
    random.shuffle(devices)
    values = {
        "spread": lambda: random.normal(0.0, 1.0, len(devices)),
        "tied": lambda: random.choice([-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0], len(devices)),
        "extreme": lambda: random.uniform(-10.0, 10.0, len(devices)),
    }[kind]()
    labels = (random.random(len(devices)) < expit(values)).astype(np.float64)
    labels[random.random(len(devices)) < 0.2] = math.nan
    return devices, values, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["spread", "tied", "extreme"])
def test_figures_of_each_device_and_of_the_fleet_equal_scikit_learn(kind, seed):
    devices, values, labels = drawn(kind, seed)
    versions = {1: (3.0, 0.0), 2: (-1.5, 0.75)}

    found = figures(
        rows_of(devices, values, labels), *(model(v, *of) for v, of in versions.items())
    )

    assert set(found) == {(v, d) for v in versions for d in (*"abcde", FLEET)}
    for (version, device), row in found.items():
        weight, intercept = versions[version]
        mine = ~np.isnan(labels) & ((devices == device) | (device == FLEET))
        expected = by_scikit_learn(weight * values[mine] + intercept, labels[mine])
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)
        assert row["samples"] == mine.sum()
        assert row["rows"] == ((devices == device) | (device == FLEET)).sum()


def test_the_fleets_figures_are_of_all_rows_and_no_means_of_the_devices_figures():
    # Right: the one row of a. Wrong: the three of b.
    rows = rows_of("abbb", [2.0, 2.0, 2.0, 2.0], [1.0, 0.0, 0.0, 0.0])

    found = figures(rows, model())

    assert (found[1, "a"]["accuracy"], found[1, "b"]["accuracy"]) == (1.0, 0.0)
    fleet = found[1, FLEET]
    assert (fleet["accuracy"], fleet["precision"], fleet["recall"]) == (1 / 4, 1 / 4, 1.0)
    # All four have the same probability: neither device has an area, the fleet has that of a tie.
    assert (found[1, "a"]["roc_auc"], found[1, "b"]["roc_auc"]) == (None, None)
    assert fleet["roc_auc"] == 0.5


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_rows_of_one_class_have_no_area(label):
    devices, values, labels = drawn("spread", 7)
    labels[~np.isnan(labels)] = label

    found = figures(rows_of(devices, values, labels), model())

    for (_, device), row in found.items():
        mine = ~np.isnan(labels) & ((devices == device) | (device == FLEET))
        sure = expit(values[mine])
        assert row["roc_auc"] is None
        assert row["accuracy"] == pytest.approx(np.mean((sure >= 0.5) == label), abs=1e-12)
        assert row["brier"] == pytest.approx(np.mean((sure - label) ** 2), abs=1e-12)
        assert row["log_loss"] == pytest.approx(-np.log(np.abs(1 - label - sure)).mean(), abs=1e-9)
        if label == 0.0:
            # There is nothing to find.
            assert row["precision"] is row["recall"] is row["f1"] is None
        else:
            assert (row["precision"], row["recall"]) == (1.0, row["accuracy"])


def test_rows_without_a_label_are_counted_and_have_no_figure():
    found = figures(rows_of("aab", [1.0, 2.0, 3.0], [math.nan, math.nan, 1.0]), model())

    silent = found[1, "a"]
    assert (silent["rows"], silent["samples"], silent["log_loss_sum"]) == (2, 0, 0.0)
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier"):
        assert silent[name] is None
    assert (found[1, FLEET]["rows"], found[1, FLEET]["samples"]) == (3, 1)
    assert found[1, FLEET]["accuracy"] == 1.0


def test_the_loss_of_sure_predictions_is_exact_and_they_are_ranked_by_their_log_odds():
    values, labels = [10.0, 9.0, -10.0, 0.5], [0.0, 1.0, 1.0, 0.0]

    found = figures(rows_of("aaaa", values, labels), model(weight=80.0))

    with localcontext() as context:
        context.prec = 400
        log_odds = [Decimal(80) * Decimal(value) for value in values]
        losses = [
            (1 + z.exp()).ln() - Decimal(label) * z
            for z, label in zip(log_odds, labels, strict=True)
        ]
        expected = float(sum(losses))
    assert found[1, "a"]["log_loss_sum"] == pytest.approx(expected, rel=1e-12)
    # Probabilities of 10 and 9 are both 1. Of four pairs, 9 above .5 is right.
    assert found[1, "a"]["roc_auc"] == 1 / 4


@pytest.mark.parametrize("kind", ["spread", "tied", "extreme"])
def test_bins_of_calibration_are_those_of_a_histogram_and_add_up(kind):
    devices, values, labels = drawn(kind, 11)

    found = figures(rows_of(devices, values, labels), model(weight=4.0))

    for (_, device), row in found.items():
        mine = ~np.isnan(labels) & ((devices == device) | (device == FLEET))
        sure = expit(4.0 * values[mine])
        bins = row["calibration"].value
        for name, weights in (
            ("count", np.ones(len(sure))), ("probability_sum", sure), ("positives", labels[mine]),
        ):  # fmt: skip
            histogram, _ = np.histogram(sure, bins=10, range=(0.0, 1.0), weights=weights)
            assert bins[name] == pytest.approx(histogram.tolist(), abs=1e-9)
        assert sum(bins["count"]) == row["samples"]
        assert sum(bins["positives"]) == row["tp"] + row["fn"]
        assert sum(bins["probability_sum"]) == pytest.approx(sure.sum(), abs=1e-9)


def test_baselines_are_to_call_all_rows_normal_and_the_z_score_rule():
    random = np.random.default_rng(3)
    devices = np.repeat(["a", "b"], [150, 40])
    labels = (random.random(190) < 0.2).astype(np.float64)
    values = random.normal(5.0, 1.0, 190) + 2.0 * labels
    labels[random.random(190) < 0.1] = math.nan

    found = figures(rows_of(devices, values, labels), model())

    # The rule needs 30 of the 100 rows before a row; beyond 2.5 deviations it is anomalous.
    called = np.zeros(190, np.bool_)
    for first, last in ((0, 150), (150, 190)):
        for row in range(first + 30, last):
            before = values[max(first, row - 100) : row]
            called[row] = abs(values[row] - before.mean()) > 2.5 * before.std()
    for device in ("a", "b", FLEET):
        mine = ~np.isnan(labels) & ((devices == device) | (device == FLEET))
        rules = {"always_normal": np.zeros(190, np.bool_), "zscore": called}
        for name, said in rules.items():
            expected = decided_by_scikit_learn(said[mine], labels[mine])
            made = found[1, device]["baselines"].value[name]
            assert made == pytest.approx(expected, abs=1e-12)
    assert found[1, FLEET]["baselines"].value["zscore"]["tp"] > 0


def test_devices_are_told_the_means_over_all_their_labelled_rows():
    devices, values, labels = drawn("spread", 5)
    labels[devices == "e"] = math.nan

    messages = list(
        messages_of(RUN, 1, evaluate(rows_of(devices, values, labels), model()).to_pylist())
    )

    assert [message.key for message in messages] == list("abcd")
    for message in messages:
        told = msgspec.json.decode(message.value, type=ModelFeedback)
        mine = ~np.isnan(labels) & (devices == message.key)
        sure, truth = expit(values[mine]), labels[mine]
        assert (told.device_id, told.samples) == (message.key, mine.sum())
        assert told.mean_error == pytest.approx(mean_absolute_error(truth, sure), abs=1e-9)
        assert told.accuracy == pytest.approx(accuracy_score(truth, sure >= 0.5), abs=1e-12)
        assert told.log_loss == pytest.approx(log_loss(truth, sure), abs=1e-9)
        assert told.confidence == pytest.approx(np.abs(2 * sure - 1).mean(), abs=1e-9)


def test_some_labelled_rows_of_each_device_are_sampled_whatever_order_they_come_in():
    devices, values, labels = drawn("spread", 9)
    rows = rows_of(devices, values, labels)

    found = list(predictions_of(evaluate(rows, model(), sampled_rows=5).to_pylist()))

    turned = rows.take(np.random.default_rng(0).permutation(len(devices)))
    again = list(predictions_of(evaluate(turned, model(), sampled_rows=5).to_pylist()))
    assert again == found
    assert [each.device_id for each in found] == np.repeat(list("abcde"), 5).tolist()
    assert len({each.kafka_offset for each in found}) == len(found)
    for each in found:
        assert each.actual == labels[each.kafka_offset]
        assert each.prediction == pytest.approx(expit(values[each.kafka_offset]), abs=1e-12)


def test_only_the_newest_version_is_sampled_and_no_more_than_there_is():
    rows = rows_of("aab", [1.0, 2.0, 3.0], [1.0, math.nan, math.nan])

    found = evaluate(rows, model(1), model(2), sampled_rows=5).to_pylist()

    sampled = {(each["model_version"], each["device_id"]): each["samples"] for each in found}
    assert {key for key, samples in sampled.items() if samples} == {(2, "a")}
    assert len(sampled[2, "a"]) == 1


def test_a_device_that_is_called_like_the_fleet_counts_in_it_and_has_no_row_of_its_own():
    found = figures(rows_of("*a", [2.0, -2.0], [1.0, 0.0]), model())

    assert set(found) == {(1, FLEET), (1, "a")}
    assert found[1, FLEET]["samples"] == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feature_schema": feature_schema(["y"])}, "version 7 is of feature schema"),
        ({"feature_names": ["y"]}, "version 7 is of feature schema"),
        ({"weights": [1.0]}, "version 7 has 1 weights"),
        (
            {"standardizer": Moments([1.0] * 4, [1.0] * 3, [1.0] * 4)},
            "standardizer of 4, 3 and 4 for 4 inputs",
        ),
        ({"weights": [1.0, math.nan, 0.0, 0.0]}, "version 7 has weights or moments that are not"),
        ({"intercept": math.inf}, "version 7 has weights or moments that are not finite"),
    ],
)
def test_a_version_that_cannot_be_scored_is_named(changes, reason):
    with pytest.raises(UnusableModelError, match=reason):
        usable(model(7, **changes), SCHEMA)
