"""The loop learns: devices, admission and aggregation in one process, by the live code."""

import math

import numpy as np
import pytest

from flead.contracts.messages import Hyperparameters, TrainingControl, UpdateStatus
from flead.contracts.simulation import FEATURES
from flead.features.decoding import TelemetryDecoder
from flead.federation.admission import RejectReason
from flead.federation.artifact import artifact_bytes
from flead.federation.strategy import FedAvg
from flead.fleet.simulator import Simulator
from flead.learning.adaptation import CLOSED_LOOP, Adaptation
from flead.learning.drift import PageHinkley
from flead.learning.plateau import Patience
from flead.offline.baselines import base_rate_entropy, calibrated_rule_losses
from flead.offline.loop import OfflineLoop
from flead.settings import Settings

DEVICES = 60


def telemetry(seed, rows_of_device, devices=DEVICES):
    """Batches of a simulated fleet as they come from one partition of the topic."""
    simulator = Simulator(
        devices=devices, rate_per_minute=13 * devices, anomaly_rate=0.15, seed=seed
    )
    left, offset = rows_of_device * devices, 0
    for rows in simulator.batches():
        messages = rows[:left].encode()
        count = len(messages)
        batch, rejected = TelemetryDecoder(FEATURES).decode(
            [key for key, _ in messages], [value for _, value in messages],
            np.zeros(count, np.int32), np.arange(offset, offset + count),
            np.zeros(count, np.int64),
        )  # fmt: skip
        assert not rejected
        # Batches of a tenth of a window of each device, so that versions reach the devices in time.
        for part in np.array_split(np.arange(count), max(1, count // (5 * devices))):
            yield batch.select(part)
        left -= count
        offset += count
        if not left:
            return


def run(batches, adaptation=CLOSED_LOOP):
    """Run the loop on windows closed by count; return it, its updates and its anomalies."""
    loop = OfflineLoop(
        FEATURES, TrainingControl(1, Hyperparameters()), FedAvg(),
        # Rounds of two windows of each device.
        Settings(round_min_updates=2 * DEVICES), adaptation=adaptation,
    )  # fmt: skip
    outcomes = [loop.process(batch, now_ms=0) for batch in batches]
    outcomes.append(loop.finish(now_ms=0))
    updates = [update for outcome in outcomes for update in outcome.updates]
    anomalies = [anomaly for outcome in outcomes for anomaly in outcome.anomalies]
    return loop, updates, anomalies


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_later_versions_beat_earlier_ones_the_base_rate_and_the_z_score_rule(seed):
    batches = list(telemetry(seed, rows_of_device=1150))
    labels = np.concatenate([batch.label for batch in batches])
    device = np.concatenate([np.array(b.devices, object)[b.device_index] for b in batches])

    loop, updates, anomalies = run(batches)

    flagged = np.zeros(len(labels), dtype=bool)
    flagged[[anomaly.offset for anomaly in anomalies]] = True
    rule_losses = calibrated_rule_losses(flagged, labels)
    rows_of_device = {name: np.flatnonzero(device == name) for name in set(device)}

    def scored_by(versions):
        """Mean prequential loss of the versions, and the rows that they scored."""
        scores, rows = [], []
        for update in updates:
            if update.global_metrics is None or update.global_metrics.version not in versions:
                continue
            mine = rows_of_device[update.device_id]
            window = (mine >= update.first_offset) & (mine <= update.last_offset)
            scores.append(update.global_metrics)
            rows.append(mine[window])
        row = np.concatenate(rows)
        assert sum(score.rows for score in scores) == len(row) > 50 * DEVICES
        return sum(score.log_loss_sum for score in scores) / len(row), row

    early, _ = scored_by({2, 3})
    late, rows = scored_by({8, 9, 10})
    assert len(loop.models) >= 10
    assert late < early
    assert late < base_rate_entropy(labels[rows])
    assert late < rule_losses[rows].mean()


def test_every_row_is_in_one_window_of_one_update():
    batches = list(telemetry(4, rows_of_device=120))

    _, updates, _ = run(batches)

    assert sum(update.rows for update in updates) == 120 * DEVICES
    assert sum(update.offset_sum for update in updates) == sum(range(120 * DEVICES))


def test_a_fleet_in_which_most_devices_rest_still_makes_versions():
    # Devices rest soon, and only time wakes them.
    rests = Patience(memory=1.0, windows=2.0, tolerance=0.9, margin=1.0)
    soon = Adaptation(patience=rests, drift=PageHinkley(threshold=math.inf))

    loop, updates, _ = run(telemetry(4, rows_of_device=900), soon)

    resting = [update for update in updates if update.status is UpdateStatus.CONVERGED]
    # 30 windows of each device: a round takes those of two, whether they were trained or not.
    assert len(updates) == 30 * DEVICES
    assert len(resting) > 0.5 * len(updates)
    assert loop.rejected == {RejectReason.NOT_TRAINED: len(resting)}
    # A round of which every update rests makes none.
    assert 5 < len(loop.models) < 15
    assert min(model.num_updates for model in loop.models) < DEVICES / 2


def test_the_same_rows_give_the_same_models_to_the_byte():
    first, second = (run(telemetry(5, rows_of_device=210))[0] for _ in range(2))

    assert len(first.models) >= 2
    assert [artifact_bytes(model) for model in first.models] == [
        artifact_bytes(model) for model in second.models
    ]


def test_rounds_take_no_more_updates_than_allowed_and_continue_each_other():
    batches = list(telemetry(6, rows_of_device=110))
    loop = OfflineLoop(
        FEATURES, TrainingControl(1, Hyperparameters(window_rows=50)), FedAvg(),
        Settings(round_min_updates=30, max_updates_per_round=40),
    )  # fmt: skip
    for batch in batches:
        loop.process(batch, now_ms=0)
    loop.finish(now_ms=0)

    assert [model.version for model in loop.models] == list(range(1, len(loop.models) + 1))
    assert [model.parent_version for model in loop.models] == list(range(len(loop.models)))
    assert max(model.num_updates for model in loop.models) <= 40
    assert sum(model.num_updates for model in loop.models) == 3 * DEVICES


def test_the_base_rates_entropy():
    assert base_rate_entropy(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(
        -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    )
    assert base_rate_entropy(np.zeros(3)) == 0.0


def test_the_rules_probabilities_come_from_the_rows_before():
    losses = calibrated_rule_losses(
        np.array([True, False, True, True, False]), np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    )

    # Flagged: 1/2 right, then 2/3, then 3/4 of an anomaly; the others: 1/2, then 1/3.
    assert losses == pytest.approx(-np.log([1 / 2, 1 / 2, 2 / 3, 1 / 4, 1 / 3]))
