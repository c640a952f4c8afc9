"""An experiment measures the live system's learning, and nothing of its own."""

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from flead.cli.main import app
from flead.contracts.dataspec import DataSpec
from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.contracts.schema import INPUT_KINDS
from flead.datasets.reading import Dataset
from flead.datasets.unreadable import Unreadable
from flead.features.rolling import empty_history, roll
from flead.federation.strategy import FedAvg
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer
from flead.offline.baselines import running_rate
from flead.offline.deciding import device_thresholds
from flead.offline.experiment import ExperimentOptions, run_experiment
from flead.offline.figures import Predictions, best_threshold, measure
from flead.offline.learners import Learners, RowLogits
from flead.offline.playing import Order, Stream, effective_devices, split_share
from flead.offline.pooled import PooledModel
from flead.settings import Settings

DEVICES, ROWS = 4, 400
SETTINGS = Hyperparameters(window_rows=20)
OPTIONS = ExperimentOptions(hyperparameters=SETTINGS)
MODELS = ("global_model", "local", "local_only", "centralised", "majority", "zscore")


def quietly(what, share):
    assert 0.0 <= share <= 1.0


def dataset(seed=0, labelled=1.0, devices=DEVICES, rows=ROWS):
    """Devices of different level whose anomalies, in bursts, lie higher."""
    random = np.random.default_rng(seed)
    device = np.tile(np.arange(devices, dtype=np.int32), rows)
    anomalous = np.repeat(random.random((rows // 10, devices)) < 0.2, 10, axis=0).ravel() * 1.0
    values = random.normal(device[:, np.newaxis] * 10.0, 1.0, (len(device), 2))
    values += 3.0 * anomalous[:, np.newaxis]
    values[random.random(values.shape) < 0.05] = math.nan
    label = np.where(random.random(len(device)) < labelled, anomalous, math.nan)
    spec = {
        "name": "generated",
        "device": {"column": "d"},
        "time": {"column": "t", "unit": "ms"},
        "features": ["a", "b"],
    }
    return Dataset(
        spec=msgspec.convert(spec, DataSpec),
        devices=[f"device-{number}" for number in range(devices)],
        device_index=device,
        event_time=np.arange(len(device)) * 1000,
        values=values,
        label=label,
        attack_type=None,
        unreadable=Unreadable(),
    )


@pytest.fixture(scope="module")
def experiment():
    return run_experiment(dataset(), OPTIONS, quietly)


def rows_as_sent(stream, rows=40):
    return list(stream.batches(rows))


def test_the_models_are_those_of_a_trainer_and_fedavg_on_the_same_rows():
    stream = Stream.of(dataset(), Order.TIME)
    learners = Learners(
        stream, ["a", "b"], SETTINGS, FedAvg(), Settings(round_min_updates=4), batch_rows=40
    )
    recorder = RowLogits(len(stream))

    loop = learners.federated(None, recorder, lambda share: None)

    # Two windows of each device every 160 rows: a round after each batch that fills four.
    trainer, control = LocalTrainer(["a", "b"]), TrainingControl(0, SETTINGS)
    fleet, waiting, bases, published = FleetState(None, None, control), [], {}, iter(loop.models)
    parent, versions, scored = np.zeros(9), [], []
    batches = [*rows_as_sent(stream), None]
    for batch in batches:
        outcome = trainer.flush(0, fleet) if batch is None else trainer.process(batch, 0, fleet)
        waiting += outcome.updates
        scored += [update.personalized_metrics for update in outcome.updates]
        while len(waiting) >= 4:
            received = [
                type("At", (), {"partition": 0, "offset": number, "update": update})
                for number, update in enumerate(waiting[:4])
            ]
            parent = FedAvg().aggregate(parent, received, bases).weights
            waiting = waiting[4:]
            versions.append(parent)
            bases[len(versions)] = parent
            fleet = FleetState(next(published), None, control)
    assert not waiting
    assert len(versions) == len(loop.models) == DEVICES * ROWS // 20 // 4
    for model, expected in zip(loop.models, versions, strict=True):
        assert [*model.weights, model.intercept] == expected.tolist()
    losses = np.logaddexp(0, recorder.personalized) - stream.label * recorder.personalized
    assert losses.sum() == pytest.approx(sum(score.log_loss_sum for score in scored), rel=1e-12)


def test_prequential_figures_are_the_sums_that_devices_send():
    data = dataset()
    found = run_experiment(data, OPTIONS, quietly).result.prequential

    # Nothing of the federation: the personalized models of devices alone.
    trainer, fleet = LocalTrainer(["a", "b"]), FleetState(None, None, TrainingControl(0, SETTINGS))
    updates = []
    for batch in rows_as_sent(Stream.of(data, Order.TIME)):
        updates += trainer.process(batch, 0, fleet).updates
    scores = [update.personalized_metrics for update in updates]

    rows = sum(score.rows for score in scores)
    tp, fp, tn, fn = (
        sum(getattr(score, name) for score in scores) for name in ("tp", "fp", "tn", "fn")
    )
    assert rows == found.local_only.rows_labelled == DEVICES * ROWS
    assert found.local_only.accuracy == pytest.approx((tp + tn) / rows)
    assert found.local_only.precision == pytest.approx(tp / (tp + fp))
    assert found.local_only.recall == pytest.approx(tp / (tp + fn))
    assert found.local_only.log_loss == pytest.approx(sum(s.log_loss_sum for s in scores) / rows)


def test_a_row_is_scored_before_anything_is_trained_on_it(experiment):
    first_window = np.arange(DEVICES * SETTINGS.window_rows)

    for name in ("global_model", "local", "local_only"):
        sure = experiment.prequential[name].probability
        assert (sure[first_window] == 0.5).all()
        assert (sure[first_window[-1] + 1 :] != 0.5).all()


def test_the_models_learn_more_than_the_baselines_that_need_no_model(experiment):
    for part in (experiment.result.prequential, experiment.result.holdout):
        for name in ("global_model", "local", "local_only", "centralised"):
            assert getattr(part, name).roc_auc > part.zscore.roc_auc > part.majority.roc_auc - 0.1


def changed(data, **columns):
    """Return the data set with other columns."""
    return Dataset(**{**{name: getattr(data, name) for name in data.__slots__}, **columns})


def first_rows(data, share):
    """Return the first rows of each device: that share of them."""
    kept = np.repeat(np.arange(ROWS) < share * ROWS, DEVICES)
    names = ("device_index", "event_time", "values", "label")
    return changed(data, **{name: getattr(data, name)[kept] for name in names})


def assert_same_predictions(one, other, rows):
    for name in MODELS:
        for array in ("score", "probability", "predicted"):
            np.testing.assert_array_equal(
                getattr(one[name], array)[rows], getattr(other[name], array)[rows]
            )


def test_frozen_models_and_thresholds_know_no_label_of_the_rows_that_they_are_measured_on(
    experiment,
):
    data = dataset()
    held_out = np.repeat(np.arange(ROWS) >= 0.7 * ROWS, DEVICES)

    flipped = run_experiment(
        changed(data, label=np.where(held_out, 1.0 - data.label, data.label)), OPTIONS, quietly
    )

    assert_same_predictions(experiment.holdout, flipped.holdout, slice(None))
    for name in MODELS:
        one, other = (getattr(each.result.holdout, name) for each in (experiment, flipped))
        assert one.rows == other.rows == held_out.sum()
        assert one.accuracy + other.accuracy == pytest.approx(1.0)


def test_frozen_models_do_not_change_while_they_score(experiment):
    # The same first part: 280 of 400 rows of each device, and of 340.
    shorter = msgspec.structs.replace(OPTIONS, split="temporal:0.8235295")

    beginning = run_experiment(first_rows(dataset(), 0.85), shorter, quietly)

    assert beginning.result.holdout.local.rows == 60 * DEVICES
    assert experiment.result.holdout.local.rows == 120 * DEVICES
    assert_same_predictions(beginning.holdout, experiment.holdout, slice(340 * DEVICES))


def test_the_same_rows_and_seed_give_the_same_result_to_the_byte(experiment):
    again = run_experiment(dataset(), OPTIONS, quietly)

    assert msgspec.json.encode(again.result) == msgspec.json.encode(experiment.result)


def test_rows_without_a_label_count_in_no_accuracy():
    result = run_experiment(dataset(labelled=0.0), OPTIONS, quietly).result

    assert result.data.anomaly_rate is None
    for part in (result.prequential, result.holdout):
        for name in MODELS:
            found = getattr(part, name)
            assert found.rows_labelled == 0
            assert (found.accuracy, found.f1, found.roc_auc, found.log_loss) == (None,) * 4
            assert 0.0 <= found.agreement_with_zscore <= 1.0
        assert part.zscore.agreement_with_zscore == 1.0


def test_a_device_that_has_never_trained_is_scored_by_the_global_model():
    data = dataset()
    joined = changed(
        data,
        devices=[*data.devices, "once"],
        device_index=np.append(data.device_index, np.int32(DEVICES)),
        event_time=np.append(data.event_time, data.event_time[-1]),
        values=np.concatenate((data.values, [[1.0, 2.0]])),
        label=np.append(data.label, 1.0),
    )

    once = run_experiment(joined, OPTIONS, quietly).result.holdout.devices["once"]

    assert once.local.rows == 1
    assert once.local.roc_auc is None
    assert once.local.log_loss == once.global_model.log_loss > 0


@pytest.mark.parametrize(
    "split", ["0.7", "temporal:0", "temporal:1.0", "temporal:70", "random:0.7"]
)
def test_a_split_that_is_none_is_refused(split):
    with pytest.raises(ValueError, match="is no split"):
        split_share(split)


def test_the_split_is_by_each_devices_own_count_rounded_down():
    device = np.array([0, 0, 1, 0, 1, 0, 0, 1, 2])
    stream = Stream(["a", "b", "c"], device, device, np.zeros((9, 1)), np.zeros(9))

    first = stream.first_part(0.7)

    # 3 of 5, 2 of 3, 0 of 1.
    assert first.tolist() == [True, True, True, True, True, False, False, False, False]


def test_aligned_devices_start_together():
    time = np.array([0, 1000, 2000, 10**9, 10**9 + 1000, 10**9 + 1500])
    apart = changed(
        dataset(),
        device_index=np.array([1, 1, 1, 0, 0, 0], np.int32),
        event_time=time,
        values=np.zeros((6, 2)),
        label=np.zeros(6),
    )

    assert Stream.of(apart, Order.TIME).device.tolist() == [1, 1, 1, 0, 0, 0]
    aligned = Stream.of(apart, Order.ALIGNED)
    assert aligned.device.tolist() == [1, 0, 1, 0, 0, 1]
    assert aligned.event_time.tolist() == time[[0, 3, 1, 4, 5, 2]].tolist()


def test_batches_hold_the_rows_of_a_part_in_order():
    stream = Stream.of(dataset(rows=20), Order.TIME)
    part = np.arange(len(stream)) % 3 == 0

    batches = list(stream.batches(8, part))

    offsets = np.concatenate([batch.offset for batch in batches])
    np.testing.assert_array_equal(offsets, np.flatnonzero(part))
    assert max(map(len, batches)) == 8
    for batch in batches:
        names = [batch.devices[index] for index in batch.device_index]
        assert names == [stream.devices[device] for device in stream.device[batch.offset]]


def test_inputs_are_those_of_the_training_job():
    stream = Stream.of(dataset(rows=150), Order.TIME)

    inputs = np.concatenate([inputs for _, inputs in stream.inputs()])

    history, shared = empty_history(DEVICES, 2)
    expected = roll(history, shared, np.zeros(DEVICES, np.int64), stream.device, stream.values)
    assert inputs.shape == (150 * DEVICES, 2 * len(INPUT_KINDS))
    np.testing.assert_array_equal(inputs, expected)


def test_devices_with_few_rows_hardly_count():
    assert effective_devices(np.repeat(np.arange(7), 30)) == 7
    assert effective_devices(np.concatenate((np.repeat(np.arange(3), 1000), np.arange(3, 50)))) == 3
    assert effective_devices(np.zeros(5, np.int64)) == 1


rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(rows)
def test_figures_are_those_of_scikit_learn(rows):
    score, predicted, truth = (np.array(column) for column in zip(*rows, strict=True))

    found = measure(Predictions(score, score, predicted), truth * 1.0, predicted)

    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    assert found.log_loss == pytest.approx(metrics.log_loss(truth, score, labels=[False, True]))
    if truth.any():
        expected = metrics.precision_recall_fscore_support(
            truth, predicted, average="binary", zero_division=0
        )[:3]
        assert (found.precision, found.recall, found.f1) == pytest.approx(expected)
    else:
        assert (found.precision, found.recall, found.f1) == (None, None, None)
    if 0 < truth.sum() < len(truth):
        assert found.roc_auc == pytest.approx(metrics.roc_auc_score(truth, score))
    else:
        assert found.roc_auc is None


def test_agreement_is_over_the_rows_without_a_label_only():
    predicted = np.array([True, True, False, False])
    label = np.array([1.0, math.nan, math.nan, math.nan])
    by_rule = np.array([False, True, True, False])

    found = measure(Predictions(predicted * 1.0, predicted * 1.0, predicted), label, by_rule)

    assert found.rows_labelled == 1
    assert found.accuracy == 1.0
    assert found.agreement_with_zscore == pytest.approx(2 / 3)


@settings(deadline=None)
@given(rows)
def test_no_threshold_gives_a_better_f1_than_the_best(rows):
    score, _, truth = (np.array(column) for column in zip(*rows, strict=True))

    threshold = best_threshold(score, truth * 1.0)

    if truth.all() or not truth.any():
        assert threshold is None
        return
    f1 = [metrics.f1_score(truth, score >= each, zero_division=0) for each in set(score)]
    assert metrics.f1_score(truth, score >= threshold, zero_division=0) == pytest.approx(max(f1))


def test_a_device_without_both_classes_takes_the_fleets_threshold():
    logits = np.array([-2.0, 1.0, 3.0, 4.0, 5.0])
    label = np.array([0.0, 1.0, 0.0, 0.0, math.nan])
    device = np.array([0, 0, 1, 1, 2])

    thresholds = device_thresholds(logits, label, device, devices=3)

    # All labelled rows: 1 of 3 right from 1.0 on is the best F1, half way to -2.0.
    assert thresholds.tolist() == [-0.5, -0.5, -0.5]
    assert device_thresholds(logits, label * 0.0, device, devices=3).tolist() == [0.0, 0.0, 0.0]


def test_the_running_rate_is_laplaces_of_the_rows_before():
    assert running_rate(np.array([1.0, 0.0, 1.0])).tolist() == [1 / 2, 2 / 3, 2 / 4]


def test_the_centralised_model_is_scikit_learns_on_standardized_inputs_and_devices():
    random = np.random.default_rng(3)
    inputs, device = random.normal(5.0, 2.0, (200, 3)), random.integers(0, 4, 200)
    target = (inputs[:, 0] + device > 6.5) * 1.0

    logits = PooledModel(4, inputs, device, target).log_odds(inputs, device)

    standardized = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    table = np.hstack((standardized, np.eye(4)[device]))
    expected = LogisticRegression(max_iter=1000).fit(table, target).decision_function(table)
    assert logits == pytest.approx(expected, abs=1e-2)


@pytest.fixture
def files(tmp_path):
    data = dataset(rows=200)
    lines = ["time,device,a,b,label"]
    for device, time, values, label in zip(
        data.device_index, data.event_time, data.values, data.label, strict=True
    ):
        cells = ["" if math.isnan(value) else str(value) for value in values]
        lines.append(",".join([str(time), data.devices[device], *cells, str(label)]))
    lines.append("soon,device-0,1,2,0")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: generated\ndevice: {column: device}\ntime: {column: time, unit: ms}\n"
        "features: [a, b]\nlabel: {column: label}\n"
    )
    return ["experiment", "--data", str(tmp_path), "--spec", str(spec), "--window-rows", "20"]


def test_the_command_prints_one_json_object_and_draws_the_curves(files, tmp_path):
    picture = tmp_path / "curves.png"

    ran = CliRunner().invoke(app, [*files, "--json", "--plot", str(picture)])

    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert result["data"]["rows"] == 200 * DEVICES
    assert result["data"]["unreadable"] == {"no_time": 1}
    assert "rows.csv, line 802, column 'time': 'soon'" in ran.stderr
    assert (result["split"], result["strategy"], result["seed"]) == ("temporal:0.7", "fedavg", 0)
    names = {"global", "local", "local_only", "centralised", "majority", "zscore"}
    for part in ("prequential", "holdout"):
        assert result[part].keys() == names | {"devices"}
        assert result[part]["devices"].keys() == {f"device-{n}" for n in range(DEVICES)}
        for figures in (result[part], *result[part]["devices"].values()):
            for name in names:
                assert {
                    "accuracy", "precision", "recall", "f1", "roc_auc", "log_loss",
                } <= figures[name].keys()  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["fedmedian"], {"server_learning_rate": 1.0}),
        (
            ["fedtrimmedavg", "--strategy-option", "beta=0.3"],
            {"server_learning_rate": 1.0, "beta": 0.3},
        ),
    ],
)
def test_the_command_aggregates_by_the_strategy_that_it_is_given(files, given, options):
    ran = CliRunner().invoke(app, [*files, "--json", "--strategy", *given])

    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert (result["strategy"], result["strategy_options"]) == (given[0], options)
    assert result["versions"] > 1
    averaged = json.loads(CliRunner().invoke(app, [*files, "--json"]).stdout)
    assert result["holdout"]["global"] != averaged["holdout"]["global"]
    assert result["holdout"]["local_only"] == averaged["holdout"]["local_only"]


def test_the_command_prints_tables_for_people(files):
    ran = CliRunner().invoke(app, files)

    assert ran.exit_code == 0, ran.output
    assert "generated: 800 rows of 4 devices, 800 labelled" in ran.stdout
    for word in ("prequential", "holdout", "local only", "z-score rule", "roc auc", "device-3"):
        assert word in ran.stdout


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--split", "random:0.5", "is no split"),
        ("--strategy", "best", "there is no strategy"),
        ("--strategy-option", "server_learning_rate", "is no option"),
        ("--strategy-option", "rate=1", "unknown field"),
    ],
)
def test_an_option_that_means_nothing_is_refused_before_any_work(files, option, value, said):
    ran = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*files, option, value])

    assert ran.exit_code == 2
    assert said in ran.stderr
