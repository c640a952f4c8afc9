"""Devices move their own learning rate, rest, wake, and take back what a bad model taught them."""

import math

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import (
    Hyperparameters,
    ModelFeedback,
    TrainingControl,
    TrainingState,
    Trial,
    UpdateStatus,
)
from flead.learning.adaptation import CLOSED_LOOP, OPEN_LOOP, Adaptation
from flead.learning.drift import PageHinkley
from flead.learning.fleet import FleetState
from flead.learning.multiplier import LEAST, MOST
from flead.learning.plateau import Patience
from flead.learning.rate import FRESH, MULTIPLIER, RateRule, follow_slope
from flead.learning.trainer import LocalTrainer
from tests.unit.test_learning_trainer import FEATURES, by_device, model, stream

RATE = Hyperparameters().learning_rate


def fleet(
    current=None,
    revision=4,
    state=TrainingState.RUN,
    trials=(),
    fleet_revision=None,
    **settings,
):
    settings = {"window_rows": 20} | settings
    control = TrainingControl(
        revision, Hyperparameters(**settings), list(trials), state, fleet_revision
    )
    return FleetState(current, None, control)


def trained(rows=2000, adaptation=None, state=None, **of_stream):
    """Return a trainer of two devices that has had so many rows, and its updates."""
    of_stream = {"devices": 2, "unlabelled": 0.0} | of_stream
    trainer = LocalTrainer(FEATURES, adaptation=adaptation or CLOSED_LOOP)
    return trainer, trainer.process(stream(rows, **of_stream), 0, state or fleet()).updates


def feedback(device, version, log_loss):
    return ModelFeedback(device, version, "run", 0, 10, 0.5, 0.5, log_loss, 0.5)


def next_rates(trainer, state=None, rows=400, adaptation=CLOSED_LOOP, **of_stream):
    """Multiplier of each device's first window among the next rows."""
    of_stream = {"devices": 2, "unlabelled": 0.0, "first_offset": 10_000} | of_stream
    copy = LocalTrainer.from_bytes(trainer.to_bytes(), FEATURES, adaptation=adaptation)
    updates = copy.process(stream(rows, **of_stream), 0, state or fleet()).updates
    return {name: mine[0].learning_rate / RATE for name, mine in by_device(updates).items()}


def test_the_rate_follows_the_derivative_of_the_loss_by_the_size_of_the_last_step():
    random = np.random.default_rng(3)
    rows, label = random.normal(size=(30, 5)), random.integers(0, 2, 30)
    before, after = random.normal(size=(2, 5))

    def loss(share):
        logits = rows @ (before + share * (after - before))
        return (np.logaddexp(0.0, logits) - label * logits).sum()

    derivative = (loss(1.0 + 1e-6) - loss(1.0 - 1e-6)) / 2e-6
    error = 1.0 / (1.0 + np.exp(-(rows @ after))) - label
    size = math.sqrt((error**2).sum() * ((rows @ (after - before)) ** 2).sum())
    assert derivative == pytest.approx(error @ (rows @ (after - before)), rel=1e-6)
    rule, rate = RateRule(gain=0.2, min_windows=1.0), FRESH.copy()

    follow_slope(rate, abs(derivative), size, rule)

    assert rate[MULTIPLIER] == pytest.approx(math.exp(-0.2 * abs(derivative) / size))


def test_the_multiplier_stays_within_an_eighth_and_eight():
    shrunk, grown = FRESH.copy(), FRESH.copy()
    for _ in range(1000):
        follow_slope(shrunk, 1.0, 1.0, RateRule())
        follow_slope(grown, -1.0, 1.0, RateRule(fade=0.0))

    assert (shrunk[MULTIPLIER], grown[MULTIPLIER]) == (LEAST, MOST) == (1 / 8, 8)


def test_a_rate_above_the_fleets_fades_when_nothing_asks_for_it():
    rate = FRESH.copy()
    for _ in range(10):
        follow_slope(rate, -1.0, 1.0, RateRule(fade=0.0))
    assert rate[MULTIPLIER] > 1.1

    for _ in range(20):
        follow_slope(rate, 0.0, 1.0, RateRule())

    assert rate[MULTIPLIER] == pytest.approx(1.0, abs=0.01)


def test_a_rate_that_is_far_too_high_is_lowered_and_the_devices_do_better_for_it():
    rate = 100 * RATE
    _, updates = trained(4000, state=fleet(learning_rate=rate))
    _, unchanged = trained(4000, OPEN_LOOP, state=fleet(learning_rate=rate))

    def loss(these):
        last = [each.personalized_metrics for each in these[-40:]]
        return sum(each.log_loss_sum for each in last) / sum(each.rows for each in last)

    assert {update.learning_rate for update in unchanged} == {rate}
    assert max(update.learning_rate for update in updates[-20:]) <= rate / 4
    assert loss(updates) < 0.8 * loss(unchanged)


def test_windows_without_labels_move_no_rate_and_rest_no_device():
    keen = Adaptation(RateRule(min_windows=1.0), Patience(windows=1.0))

    _, updates = trained(2000, keen, unlabelled=1.0)

    assert {update.learning_rate for update in updates} == {RATE}
    assert {update.status for update in updates} == {UpdateStatus.TRAINING}


def test_other_hyperparameters_begin_at_the_fleets_rate():
    trainer, _ = trained(4000)

    before, after = next_rates(trainer), next_rates(trainer, fleet(revision=5))

    assert all(rate != 1.0 for rate in before.values())
    assert set(after.values()) == {1.0}


def test_a_trial_is_at_its_own_rate_and_leaves_that_of_the_device_as_it_was():
    trainer, _ = trained(4000)
    everyone = Trial("all", 1.0, Hyperparameters(window_rows=20, learning_rate=RATE))
    on_trial = fleet(revision=5, trials=[everyone], fleet_revision=4)

    before = next_rates(trainer)
    tried = trainer.process(stream(4000, devices=2, first_offset=20_000), 0, on_trial).updates
    after = next_rates(trainer, fleet(revision=6, fleet_revision=4), first_offset=30_000)

    assert all(rate != 1.0 for rate in before.values())
    assert {update.learning_rate for update in tried} == {RATE}
    assert {update.hyperparameters_revision for update in tried} == {5}
    assert after == pytest.approx(before, rel=0.2)


def test_devices_without_a_trial_keep_their_rate_while_others_try():
    trainer, _ = trained(4000)
    nobody = Trial("none", 0.0, Hyperparameters(learning_rate=1.0))

    before = next_rates(trainer)
    while_others_try = fleet(revision=5, trials=[nobody], fleet_revision=4)
    updates = trainer.process(stream(4000, devices=2, first_offset=20_000), 0, while_others_try)

    for name, mine in by_device(updates.updates).items():
        assert {u.learning_rate for u in mine} == {mine[0].learning_rate}
        assert mine[0].learning_rate / RATE == pytest.approx(before[name], rel=0.2)


def test_a_paused_fleet_moves_no_rate():
    trainer, _ = trained(4000)
    before = next_rates(trainer)

    paused = stream(1000, devices=2, unlabelled=0.0, first_offset=20_000)
    updates = trainer.process(paused, 0, fleet(state=TrainingState.PAUSE)).updates

    for name, mine in by_device(updates).items():
        assert {u.status for u in mine} == {UpdateStatus.PAUSED}
        assert len({u.learning_rate for u in mine}) == 1
        assert mine[0].learning_rate / RATE == pytest.approx(before[name], rel=0.5)


def test_feedback_of_a_bad_model_halves_a_rate_once_and_good_feedback_nothing():
    trainer, _ = trained(1000, OPEN_LOOP)

    def rates():
        return list(next_rates(trainer, rows=60, adaptation=OPEN_LOOP).values())

    def take(*messages):
        trainer.take_feedback(messages, fleet())
        return rates()

    assert take(feedback("device-0", 3, 0.1), feedback("device-1", 3, None)) == [1.0, 1.0]
    assert take(feedback("device-0", 5, 9.0), feedback("nobody", 5, 9.0)) == [0.5, 1.0]
    assert take(feedback("device-0", 5, 9.0), feedback("device-0", 4, 9.0)) == [0.5, 1.0]
    assert take(feedback("device-1", 7, 9.0), feedback("device-1", 6, 9.0)) == [0.5, 0.25]
    for version in range(8, 20):
        take(feedback("device-0", version, 9.0))
    assert rates() == [LEAST, 0.25]


def test_feedback_during_a_trial_is_noted_and_lowers_no_rate():
    trainer, _ = trained(1000, OPEN_LOOP)
    everyone = Trial("all", 1.0, Hyperparameters(window_rows=20))

    trainer.take_feedback([feedback("device-0", 5, 9.0)], fleet(trials=[everyone]))
    trainer.take_feedback([feedback("device-0", 5, 9.0)], fleet())

    assert next_rates(trainer, rows=60, adaptation=OPEN_LOOP)["device-0"] == 1.0


EAGER = Adaptation(patience=Patience(memory=5.0, windows=5.0, tolerance=0.5))
"""Rests soon."""


def test_a_device_that_has_learned_rests_and_still_scores_and_reports():
    trainer, updates = trained(8000, EAGER)
    resting = [update for update in updates if update.status is UpdateStatus.CONVERGED]

    assert len(resting) > 20
    assert sum(update.rows for update in updates) >= 8000 - 2 * 20
    for update in resting:
        assert (update.trained, update.weights, update.intercept) == (False, None, None)
        assert update.samples_processed == 0
        assert update.personalized_metrics.rows == update.rows == 20
    woken = trainer.process(
        stream(400, devices=2, unlabelled=0.0, first_offset=9000), 0, fleet(revision=5)
    ).updates
    assert {update.status for update in by_device(woken)["device-0"][:3]} == {UpdateStatus.TRAINING}


def test_a_device_that_rests_changes_no_model():
    trainer, updates = trained(8000, EAGER)
    while any(
        mine[-1].status is not UpdateStatus.CONVERGED for mine in by_device(updates).values()
    ):
        more = stream(40, devices=2, unlabelled=0.0, first_offset=20_000 + len(updates) * 40)
        updates += trainer.process(more, 0, fleet()).updates
    before = dict(zip(*trainer.personalized()[::2], strict=True))

    more = stream(45, devices=2, unlabelled=0.0, first_offset=900_000)
    resting = trainer.process(more, 0, fleet()).updates

    after = dict(zip(*trainer.personalized()[::2], strict=True))
    for update in resting:
        same = np.array_equal(before[update.device_id], after[update.device_id])
        assert same == (update.status is UpdateStatus.CONVERGED)
    assert any(update.status is UpdateStatus.CONVERGED for update in resting)


def test_a_drift_is_told_and_wakes():
    alert = EAGER._replace(drift=PageHinkley(tolerance=0.05, threshold=1.0))
    trainer, before = trained(8000, alert)
    drifted = stream(1000, devices=2, unlabelled=0.0, first_offset=9000, seed=1)
    drifted.label[:] = 1.0 - drifted.label

    updates = trainer.process(drifted, 0, fleet()).updates

    fired = [update for update in updates if update.status is UpdateStatus.DRIFTING]
    assert {update.device_id for update in fired} == {"device-0", "device-1"}
    assert all(update.trained and update.weights for update in fired)
    assert UpdateStatus.CONVERGED in {update.status for update in before}


def take_back(trainer, restored, first_offset):
    """Let both devices adopt a model, and train nothing."""
    rows = stream(40, devices=2, first_offset=first_offset)
    trainer.process(rows, 0, fleet(restored, state=TrainingState.PAUSE))


def test_a_rollback_takes_back_what_was_learned_beside_the_bad_versions():
    trainer, _ = trained(1000, state=fleet(model(1, 0.1)))
    _, _, good = trainer.personalized()

    def see(current, first_offset):
        rows = stream(400, devices=2, unlabelled=0.0, first_offset=first_offset)
        trainer.process(rows, 0, fleet(current))
        return trainer.personalized()[2]

    misled = see(model(2, -5.0), 20_000)
    restored = msgspec.structs.replace(model(3, 0.1), restored_version=1)
    take_back(trainer, restored, 30_000)

    assert not np.array_equal(misled, good)
    np.testing.assert_array_equal(trainer.personalized()[2], good)
    again = see(restored, 40_000)
    assert not np.array_equal(again, good)


def test_a_rollback_leaves_devices_alone_that_never_met_a_bad_version():
    trainer, _ = trained(1000, state=fleet(model(1, 0.1)))
    _, _, good = trainer.personalized()
    later = msgspec.structs.replace(model(3, 0.1), restored_version=1)

    take_back(trainer, later, 30_000)

    np.testing.assert_array_equal(trainer.personalized()[2], good)


def test_a_rollback_by_several_versions_goes_back_to_the_newest_snapshot():
    trainer, _ = trained(1000, state=fleet(model(1, 0.1)))
    trainer.process(stream(400, devices=2, first_offset=20_000), 0, fleet(model(2, -1.0)))
    _, _, at_adoption = trainer.personalized()
    trainer.process(stream(400, devices=2, first_offset=30_000), 0, fleet(model(3, -5.0)))
    restored = msgspec.structs.replace(model(4, 0.1), restored_version=1)

    take_back(trainer, restored, 40_000)

    np.testing.assert_array_equal(trainer.personalized()[2], at_adoption)
