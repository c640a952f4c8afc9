"""Cohorts are compared as SciPy and statsmodels do, by device."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from flead.storage.outcomes import DeviceLoss
from flead.tuning.judging import judge, outcomes, watch

LIMITS = {"alpha": 0.05, "min_devices": 20}


def arm(seed, mean, devices=40):
    return np.random.default_rng(seed).normal(mean, 0.1, devices)


def test_an_outcome_is_the_mean_loss_of_the_trial_minus_that_before():
    before = [DeviceLoss("a", None, 40, 20.0), DeviceLoss("b", None, 50, 10.0)]
    during = [DeviceLoss("a", "t", 50, 20.0), DeviceLoss("b", "t", 40, 12.0)]

    assert outcomes(before, during, 30) == pytest.approx({"a": 0.4 - 0.5, "b": 0.3 - 0.2})


def test_a_device_with_too_few_rows_in_either_period_is_left_out():
    before = [DeviceLoss("a", None, 29, 1.0), DeviceLoss("b", None, 30, 1.0)]
    during = [DeviceLoss("a", "t", 90, 1.0), DeviceLoss("b", "t", 29, 1.0)]
    during += [DeviceLoss("new", "t", 90, 1.0)]

    assert outcomes(before, during, 30) == {}


def test_p_values_are_those_of_the_rank_test_corrected_for_all_trials():
    control, first, second = arm(1, 0.0, 200), arm(2, -0.04), arm(3, -0.02)

    judgement = judge(control, {"a": first, "b": second}, **LIMITS)

    expected = [
        stats.mannwhitneyu(each, control, alternative="less").pvalue for each in (first, second)
    ]
    assert [arm.p_value for arm in judgement.arms] == pytest.approx(expected)
    corrected = multipletests(expected, method="holm")[1]
    assert [arm.p_holm for arm in judgement.arms] == pytest.approx(list(corrected))
    assert judgement.arms[0].mean_difference == pytest.approx(first.mean() - control.mean())


def test_holm_multiplies_the_smallest_p_value_by_the_number_of_trials():
    judgement = judge(arm(1, 0.0), {"a": arm(2, -0.05), "b": arm(3, 0.1)}, **LIMITS)

    first, second = judgement.arms
    assert first.p_holm == pytest.approx(2 * first.p_value)
    assert second.p_holm == pytest.approx(second.p_value)


def test_the_trial_that_beats_the_control_by_most_wins():
    trials = {"a": arm(2, -0.2), "b": arm(3, -0.4), "c": arm(4, 0.1)}

    assert judge(arm(1, 0.0), trials, **LIMITS).winner == "b"


def test_a_trial_that_is_no_better_than_chance_does_not_win():
    judgement = judge(arm(1, 0.0), {"a": arm(1, 0.0), "b": arm(5, 0.3)}, **LIMITS)

    assert judgement.is_conclusive
    assert judgement.winner is None


def test_a_device_that_lies_about_its_loss_has_one_vote():
    control, honest = arm(1, 0.0), arm(2, 0.02)
    honest[0] = -1e6

    assert judge(control, {"a": honest}, **LIMITS).winner is None


@pytest.mark.parametrize(("control", "trial"), [(19, 40), (40, 19), (0, 40)])
def test_a_cohort_with_too_few_devices_is_not_compared(control, trial):
    judgement = judge(arm(1, 0.0, control), {"a": arm(2, -1.0, trial)}, **LIMITS)

    assert not judgement.is_conclusive
    assert (judgement.winner, judgement.arms[0].p_value) == (None, None)


def test_a_small_trial_does_not_weaken_the_correction_of_the_others():
    judgement = judge(arm(1, 0.0), {"a": arm(2, -0.05), "b": arm(3, -0.05, 5)}, **LIMITS)

    assert judgement.arms[0].p_holm == judgement.arms[0].p_value


def test_a_fleet_that_became_worse_is_seen_by_the_signed_rank_test():
    changes = arm(1, 0.1)

    watched = watch(changes, **LIMITS)

    assert watched.p_value == pytest.approx(stats.wilcoxon(changes, alternative="greater").pvalue)
    assert watched.is_worse


@pytest.mark.parametrize("changes", [arm(1, -0.1), np.zeros(40), arm(1, 5.0, 19)])
def test_a_better_an_equal_and_a_fleet_of_too_few_devices_are_not_worse(changes):
    assert not watch(changes, **LIMITS).is_worse
