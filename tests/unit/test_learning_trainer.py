"""Windows of a device are consecutive, and what an update says of one is true."""

import math
from itertools import pairwise

import numpy as np
import pytest

from flead.contracts.messages import (
    ClosedBy,
    GlobalModel,
    Hyperparameters,
    LabelSource,
    Moments,
    TrainingControl,
    TrainingState,
    Trial,
    UpdateStatus,
)
from flead.contracts.schema import feature_schema
from flead.features.rows import RowBatch
from flead.learning.cohorts import draw
from flead.learning.fleet import FleetState
from flead.learning.trainer import DAY_MS, LocalTrainer

FEATURES = ["power", "flow"]
INPUTS = 8


def stream(rows, devices=5, seed=0, unlabelled=0.2, first_offset=0, partition=0):
    """Rows of devices in random order; some without a label, some values missing, some far off."""
    generator = np.random.default_rng(seed)
    index = generator.integers(0, devices, rows).astype(np.int32)
    values = generator.normal(index[:, np.newaxis] * 10.0, 1.0, (rows, len(FEATURES)))
    anomalous = generator.random(rows) < 0.15
    values[anomalous, 0] += 5.0
    values[generator.random(values.shape) < 0.05] = math.nan
    label = anomalous.astype(np.float64)
    label[generator.random(rows) < unlabelled] = math.nan
    names = [f"device-{number}" for number in range(devices)]
    batch = RowBatch(
        names, index, np.full(rows, partition, np.int32), first_offset + np.arange(rows),
        1_000_000 + 100 * np.arange(rows), label, values,
    )  # fmt: skip
    return batch.select(np.arange(rows))


def model(version, weight=0.0, features=FEATURES):
    inputs = 4 * len(features)
    return GlobalModel(
        version=version, parent_version=version - 1, restored_version=None, status="promoted",
        aggregation_round=version, feature_schema=feature_schema(features),
        feature_names=list(features), weights=[weight] * inputs, intercept=weight,
        standardizer=Moments([0.0] * inputs, [0.0] * inputs, [0.0] * inputs), strategy="fedavg",
        num_devices=1, num_updates=1, total_samples=1, global_accuracy=None, global_loss=None,
        timestamp=0,
    )  # fmt: skip


def fleet(current=None, candidate=None, state=TrainingState.RUN, trials=(), **settings):
    control = TrainingControl(4, Hyperparameters(**settings), list(trials), state)
    return FleetState(current, candidate, control)


def parts(batch, sizes):
    bounds = np.minimum(np.cumsum([0, *sizes]), len(batch))
    return [batch.select(np.arange(*pair)) for pair in pairwise(bounds)]


def run(batches, state, trainer=None, now_ms=0):
    trainer = trainer or LocalTrainer(FEATURES)
    outcomes = [trainer.process(batch, now_ms, state) for batch in batches]
    outcomes.append(trainer.flush(now_ms, state))
    updates = [update for outcome in outcomes for update in outcome.updates]
    anomalies = [anomaly for outcome in outcomes for anomaly in outcome.anomalies]
    return updates, anomalies


def by_device(updates):
    grouped = {}
    for update in updates:
        grouped.setdefault(update.device_id, []).append(update)
    return grouped


def test_windows_account_for_every_row_of_every_device():
    batch = stream(1777)

    updates, _ = run(parts(batch, [400, 1, 700, 676]), fleet(window_rows=50))

    for number, name in enumerate(batch.devices):
        offsets = batch.offset[batch.device_index == number]
        times = batch.event_time[batch.device_index == number]
        labels = batch.label[batch.device_index == number]
        windows = by_device(updates)[name]
        assert [w.model_version for w in windows] == list(range(1, len(windows) + 1))
        for at, window in enumerate(windows):
            mine = slice(50 * at, min(50 * (at + 1), len(offsets)))
            labelled = int((~np.isnan(labels[mine])).sum())
            assert window.rows == len(offsets[mine]) == window.samples_processed
            assert (window.first_offset, window.last_offset) == (
                offsets[mine][0],
                offsets[mine][-1],
            )
            assert window.offset_sum == offsets[mine].sum()
            assert (window.window_start, window.window_end) == (times[mine][0], times[mine][-1])
            assert window.rows_labelled == labelled
            assert window.rows_pseudo_labelled == window.rows - labelled
            assert window.closed_by is (
                ClosedBy.COUNT if mine.stop - mine.start == 50 else ClosedBy.FLUSH
            )
        assert sum(w.rows for w in windows) == len(offsets)


@pytest.mark.parametrize("sizes", [[1] * 900, [450, 450], [37] * 25, [10, 880, 10]])
def test_the_same_stream_gives_the_same_updates_however_it_is_cut(sizes):
    batch = stream(900)
    state = fleet(model(3, 0.1), model(4, -0.2), window_rows=40)

    whole = run([batch], state)
    cut = run(parts(batch, sizes), state)

    for made, expected in zip(cut, whole, strict=True):
        assert sorted(made, key=repr) == sorted(expected, key=repr)


def test_a_restored_trainer_goes_on_as_if_nothing_had_happened():
    first, second = parts(stream(1000), [437, 563])
    state = fleet(model(1, 0.3), window_rows=30)
    kept = LocalTrainer(FEATURES)
    kept.process(first, 5, state)

    restored = LocalTrainer.from_bytes(kept.to_bytes(), FEATURES)

    assert restored.to_bytes() == kept.to_bytes()
    assert restored.next_deadline_ms() == kept.next_deadline_ms()
    assert run([second], state, restored, 9) == run([second], state, kept, 9)


def test_a_window_closes_when_its_oldest_row_has_waited():
    trainer = LocalTrainer(FEATURES)
    state = fleet(window_seconds=60.0)
    trainer.process(stream(20, devices=4), 1_000, state)
    trainer.process(stream(20, devices=4, first_offset=20), 30_000, state)

    first = trainer.next_deadline_ms()
    assert 1_000 + 45_000 <= first <= 1_000 + 60_000
    assert trainer.close_due(first - 1, state).updates == []
    due = trainer.close_due(first, state).updates
    assert [update.closed_by for update in due] == [ClosedBy.TIME]
    assert due[0].timestamp == first
    rest = trainer.close_due(61_000, state).updates
    assert sum(update.rows for update in due + rest) == 40
    assert trainer.next_deadline_ms() is None


def test_windows_of_different_devices_are_spread_over_a_quarter_of_the_time():
    trainer = LocalTrainer(FEATURES)
    state = fleet(window_seconds=100.0)
    trainer.process(stream(4000, devices=400), 0, fleet(window_rows=1000, window_seconds=100.0))

    closed = [len(trainer.close_due(1000 * second, state).updates) for second in range(75, 101)]

    assert sum(closed) == 400
    assert max(closed[1:]) <= 40


def test_a_full_window_starts_the_clock_of_the_next_one_anew():
    trainer = LocalTrainer(FEATURES)
    state = fleet(window_rows=10, window_seconds=60.0)
    trainer.process(stream(8, devices=1), 0, state)

    trainer.process(stream(4, devices=1, first_offset=8), 40_000, state)

    assert 85_000 <= trainer.next_deadline_ms() <= 100_000


def test_a_client_starts_at_the_global_model_and_the_personalized_one_at_its_first():
    trainer = LocalTrainer(FEATURES)
    untrained = {"learning_rate": 1e-300, "alpha": 0.0, "window_rows": 20}
    (none,) = trainer.process(stream(20, devices=1), 0, fleet(**untrained)).updates
    (first,) = trainer.process(
        stream(20, devices=1, first_offset=20), 0, fleet(model(7, 0.5), **untrained)
    ).updates

    assert none.base_version == 0
    assert [*none.weights, none.intercept] == pytest.approx([0.0] * (INPUTS + 1), abs=1e-200)
    assert none.global_metrics is None
    assert (first.base_version, first.weights, first.intercept) == (7, [0.5] * INPUTS, 0.5)
    assert first.global_metrics.version == 7
    assert first.personalized_metrics.version == 1
    # Half of nothing: the personalized model had started from zero before version 7 came.
    assert first.personalized_metrics.log_loss_sum == pytest.approx(
        first.rows_labelled * math.log(2)
    )


def test_a_device_that_saw_a_global_model_before_its_first_window_starts_there():
    trainer = LocalTrainer(FEATURES)
    settings = {"learning_rate": 1e-300, "window_rows": 20}
    trainer.process(stream(5, devices=1), 0, fleet(model(7, 0.5), **settings))

    (update,) = trainer.process(
        stream(15, devices=1, first_offset=5), 0, fleet(model(8, -9.0), **settings)
    ).updates

    assert update.base_version == 8
    assert update.global_metrics.log_loss_sum != update.personalized_metrics.log_loss_sum
    # All inputs are neutral in a first window without a fleet: only the intercept scores.
    positives = update.personalized_metrics.tp + update.personalized_metrics.fn
    negatives = update.rows_labelled - positives
    assert update.personalized_metrics.log_loss_sum == pytest.approx(
        positives * math.log1p(math.exp(-0.5)) + negatives * math.log1p(math.exp(0.5))
    )


def test_models_of_another_feature_list_do_not_count():
    stranger = model(7, 0.5, features=["other"])

    updates, _ = run([stream(200)], fleet(stranger, stranger))

    assert {update.base_version for update in updates} == {0}
    assert {update.candidate_metrics for update in updates} == {None}


@pytest.mark.parametrize(
    ("known", "version", "limit"),
    [
        ({}, 2**63 - 1, 1_000_000_000),
        ({"current": 7}, 1_000_008, 1_000_007),
        ({"current": 7, "candidate": 8}, 1_000_009, 1_000_008),
    ],
)
def test_a_version_that_would_shut_out_all_later_ones_is_implausible(known, version, limit):
    state = fleet(**{name: model(number) for name, number in known.items()})

    with pytest.raises(ValueError, match=f"version {version} is implausible: at most {limit} was"):
        state.check_plausible(model(version))

    assert state.check_plausible(model(limit)) is None


def test_a_candidate_is_scored_beside_the_global_model_but_not_trained():
    plain, _ = run([stream(300)], fleet(model(3)))
    updates, _ = run([stream(300)], fleet(model(3), model(4, 0.5)))
    overtaken, _ = run([stream(300)], fleet(model(4), model(4, 0.5)))

    assert {update.candidate_metrics.version for update in updates} == {4}
    assert [update.weights for update in updates] == [update.weights for update in plain]
    assert {update.candidate_metrics for update in overtaken} == {None}


def test_a_paused_fleet_scores_and_does_not_train():
    trainer = LocalTrainer(FEATURES)
    run([stream(300)], fleet(model(1, 0.1)), trainer)
    twin = LocalTrainer.from_bytes(trainer.to_bytes(), FEATURES)
    more = stream(300, first_offset=300)

    paused, _ = run([more], fleet(model(1, 0.1), state=TrainingState.PAUSE), trainer)
    trained, _ = run([more], fleet(model(1, 0.1)), twin)

    for update, other in zip(paused, trained, strict=True):
        assert (update.trained, update.weights, update.intercept) == (False, None, None)
        assert (update.status, update.samples_processed) == (UpdateStatus.PAUSED, 0)
        assert update.global_metrics == other.global_metrics
        assert update.moments == other.moments
    once_more = stream(300, first_offset=600)
    again, _ = run([once_more], fleet(state=TrainingState.PAUSE), trainer)
    assert (
        again[0].personalized_metrics.log_loss_sum != trained[0].personalized_metrics.log_loss_sum
    )


@pytest.mark.parametrize(
    ("unlabelled", "source"),
    [(0.0, LabelSource.LABEL), (1.0, LabelSource.ZSCORE), (0.5, LabelSource.MIXED)],
)
def test_the_source_of_the_labels_is_named_and_metrics_count_true_ones_only(unlabelled, source):
    updates, _ = run([stream(500, devices=2, unlabelled=unlabelled)], fleet(model(1)))

    assert {update.label_source for update in updates} == {source}
    for update in updates:
        if source is LabelSource.ZSCORE:
            assert update.global_metrics is update.personalized_metrics is update.accuracy is None
        else:
            metrics = update.personalized_metrics
            assert metrics.rows == update.rows_labelled
            assert update.accuracy == (metrics.tp + metrics.tn) / metrics.rows


def test_devices_of_a_trial_train_with_its_settings_and_say_so():
    trial = Trial("hot", 0.5, Hyperparameters(learning_rate=2.0, window_rows=10))
    state = fleet(trials=[trial], window_rows=20)

    updates, _ = run([stream(2000, devices=20)], state)

    for update in updates:
        tried = draw(update.device_id, 4) < 0.5
        assert update.trial == ("hot" if tried else None)
        if tried:
            assert update.learning_rate == 2.0
        else:
            assert 1 / 8 <= update.learning_rate / Hyperparameters().learning_rate <= 8
        assert update.hyperparameters_revision == 4
        if update.closed_by is ClosedBy.COUNT:
            assert update.rows == (10 if tried else 20)
    assert {update.trial for update in updates} == {"hot", None}


def test_a_window_never_spans_partitions():
    trainer = LocalTrainer(FEATURES)
    state = fleet()
    old = stream(30, devices=2, partition=0, first_offset=500)
    new = stream(30, devices=2, partition=3)
    both = RowBatch(
        old.devices, *(
            np.concatenate((getattr(old, name), getattr(new, name)))
            for name in ("device_index", "partition", "offset", "event_time", "label", "values")
        ),
    )  # fmt: skip

    updates, _ = run([both], state, trainer)

    windows = by_device(updates)["device-0"]
    assert [window.input_partition for window in windows] == [0, 3]
    assert sum(update.offset_sum for update in updates) == both.offset.sum()


def test_an_empty_batch_changes_nothing():
    trainer = LocalTrainer(FEATURES)
    before = trainer.to_bytes()

    outcome = trainer.process(stream(0), 0, fleet())

    assert (outcome.updates, outcome.anomalies) == ([], [])
    assert trainer.to_bytes() == before
    assert trainer.next_deadline_ms() is None
    assert trainer.flush(0, fleet()).updates == []


def test_anomalies_name_the_farthest_feature_and_the_personalized_probability():
    values = np.zeros((62, 2))
    values[:61] = np.tile([[1.0, 10.0], [3.0, 30.0]], (31, 1))[:61]
    values[61] = [2.0 + 6.0, 20.0 - 40.0]
    batch = RowBatch(
        ["a"], np.zeros(62, np.int32), np.full(62, 2, np.int32), np.arange(100, 162),
        np.arange(62), np.full(62, math.nan), values,
    )  # fmt: skip
    trainer = LocalTrainer(FEATURES)

    _, anomalies = run([batch], fleet(model(9, 0.0), window_rows=62), trainer)

    (anomaly,) = anomalies
    mean, deviation = values[:61].mean(axis=0), values[:61].std(axis=0)
    z_power, z_flow = (values[61] - mean) / deviation
    assert (anomaly.device_id, anomaly.partition, anomaly.offset) == ("a", 2, 161)
    assert anomaly.event_time == 61
    assert (anomaly.feature, anomaly.value) == ("power", 8.0)
    assert anomaly.z_score == pytest.approx(z_power)
    assert anomaly.features == {"power": pytest.approx(z_power), "flow": pytest.approx(z_flow)}
    assert (anomaly.probability, anomaly.model_version) == (0.5, 9)


def test_a_device_that_has_been_silent_for_too_long_is_forgotten_and_starts_anew():
    state = fleet(window_rows=20)
    batch = stream(600, devices=2)
    of_device = [batch.select(batch.device_index == number) for number in range(2)]
    trainer, alone = LocalTrainer(FEATURES, device_ttl_days=2), LocalTrainer(FEATURES)
    for day, rows in enumerate(of_device, start=1):
        trainer.process(rows, day * DAY_MS, state)
        trainer.flush(day * DAY_MS, state)

    early = trainer.close_due(3 * DAY_MS - 1, state)
    due = trainer.next_deadline_ms()
    late = trainer.close_due(3 * DAY_MS, state)
    back = trainer.process(of_device[0], 3 * DAY_MS, state)

    assert (early.evicted, late.evicted, due) == (0, 1, 3 * DAY_MS)
    assert trainer.devices == 2
    assert back.updates == alone.process(of_device[0], 3 * DAY_MS, state).updates
    stayed = trainer.process(of_device[1], 3 * DAY_MS, state).updates
    assert min(update.model_version for update in stayed) > 1


def test_a_device_with_an_open_window_is_not_forgotten_before_it_closes():
    trainer = LocalTrainer(FEATURES, device_ttl_days=1e-9)
    state = fleet(window_rows=50, window_seconds=60)
    trainer.process(stream(3, devices=1), 1_000, state)

    waiting = trainer.close_due(2_000, state)
    closed = trainer.close_due(1_000 + 60_000, state)

    assert (waiting.evicted, len(waiting.updates)) == (0, 0)
    assert (closed.evicted, len(closed.updates)) == (1, 1)
    assert trainer.devices == 0
