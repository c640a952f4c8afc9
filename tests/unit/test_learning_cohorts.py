"""Trials take their share of the fleet, anew at each revision."""

import numpy as np
import pytest

from flead.contracts.messages import Hyperparameters, TrainingControl, Trial
from flead.learning.cohorts import assign, cohorts_of, draw

FAST, SLOW = Hyperparameters(learning_rate=1.0), Hyperparameters(learning_rate=0.001)
DEVICES = [f"pump-{number:05d}" for number in range(4000)]


def control(revision=1, fractions=(0.1, 0.3)):
    names = ["fast", "slow"][: len(fractions)]
    trials = [
        Trial(name, fraction, settings)
        for name, fraction, settings in zip(names, fractions, (FAST, SLOW), strict=False)
    ]
    return TrainingControl(revision, Hyperparameters(), trials)


def test_each_trial_has_its_fraction_of_the_devices():
    cohort = assign(control(), DEVICES)

    shares = np.bincount(cohort) / len(DEVICES)
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.03)
    assert [each.trial for each in cohorts_of(control())] == [None, "fast", "slow"]
    assert cohorts_of(control())[2].hyperparameters == SLOW


def test_cohorts_of_two_revisions_are_independent():
    first, second = (assign(control(revision, (0.5,)), DEVICES) for revision in (1, 2))

    assert (first & second).mean() == pytest.approx(0.25, abs=0.03)


def test_a_device_stays_in_its_cohort_whoever_asks():
    together = assign(control(), DEVICES)

    assert [assign(control(), [device]).item() for device in DEVICES[:50]] == together[:50].tolist()


def test_without_trials_all_train_with_the_fleets_settings():
    assert assign(control(fractions=()), DEVICES[:3]).tolist() == [0, 0, 0]


def test_draws_fill_the_unit_interval():
    draws = np.sort([draw(device, 9) for device in DEVICES])

    assert draws[0] >= 0
    assert draws[-1] < 1
    assert np.abs(draws - np.arange(4000) / 4000).max() < 0.03
