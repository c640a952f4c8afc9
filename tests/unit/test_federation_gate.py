"""Which candidates may take the place of their parent, by figures worked out elsewhere."""

import math

import numpy as np
import pytest
from scipy import stats

from flead.federation.gate import (
    Limits,
    PairedLoss,
    Verdict,
    compare,
    is_worse,
    judge_candidate,
)

LIMITS = Limits(min_rows=60, min_devices=3, alpha=0.05)


def pairs(own, reference, rows=20):
    return [
        PairedLoss(f"device-{number}", rows, rows * a, rows, rows * b)
        for number, (a, b) in enumerate(zip(own, reference, strict=True))
    ]


def test_the_comparison_is_scipys_paired_test_over_devices():
    generator = np.random.default_rng(5)
    own, reference = generator.gamma(2.0, 0.2, 40), generator.gamma(2.0, 0.2, 40)

    found = compare(pairs(own, reference))

    expected = stats.ttest_rel(own, reference, alternative="greater")
    assert (found.devices, found.rows) == (40, 800)
    assert found.mean_difference == pytest.approx(np.mean(own - reference), abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


def test_a_device_counts_once_however_many_rows_it_has():
    # Two devices lose .1 less each on 10 rows, one loses .1 more on 1,000.
    found = compare(
        [
            PairedLoss("a", 10, 4.0, 10, 5.0),
            PairedLoss("b", 10, 4.0, 10, 5.0),
            PairedLoss("c", 1000, 600.0, 1000, 500.0),
        ]
    )

    assert found.mean_difference == pytest.approx(-0.1 / 3)


@pytest.mark.parametrize(
    ("own", "reference", "verdict"),
    [
        # 1.2 against .3 everywhere, with some spread: t = 18.0, p = .0015
        ([1.1, 1.2, 1.3], [0.3, 0.3, 0.3], Verdict.REJECTED),
        ([0.2, 0.3, 0.1], [0.3, 0.3, 0.3], Verdict.PROMOTED),
        # A little worse on the mean, and within chance: t = .29, p = .40
        ([0.5, 0.2, 0.3], [0.3, 0.3, 0.3], Verdict.PROMOTED),
        # Equally much worse on every device: there is no spread to test against
        ([0.5, 0.5, 0.5], [0.25, 0.25, 0.25], Verdict.REJECTED),
        ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3], Verdict.PROMOTED),
        ([math.inf, 0.1, 0.1], [0.3, 0.3, 0.3], Verdict.REJECTED),
        # Not enough devices
        ([9.0, 9.0], [0.1, 0.2], Verdict.UNDECIDED),
    ],
)
def test_a_candidate_is_promoted_unless_it_is_worse_beyond_chance(own, reference, verdict):
    assert judge_candidate(compare(pairs(own, reference)), LIMITS) is verdict


@pytest.mark.parametrize("lie", [(1e6, 0.0), (0.0, 1e6)], ids=["against", "in favour"])
def test_one_device_that_lies_does_not_save_a_broken_candidate(lie):
    # 19 devices lose 1.5, 2 or 2.5 more; the lie counts for 10 nats.
    worse = np.resize([1.5, 2.0, 2.5], 19)
    limits = Limits(min_rows=1, min_devices=20, alpha=0.05)

    found = compare(pairs([*(0.3 + worse), lie[0]], [0.3] * 19 + [lie[1]]))

    bounded = [*worse, np.sign(lie[0] - lie[1]) * 10.0]
    expected = stats.ttest_1samp(bounded, 0.0, alternative="greater")
    assert found.mean_difference == pytest.approx(np.mean(bounded))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert judge_candidate(found, limits) is Verdict.REJECTED


def test_too_few_rows_decide_nothing():
    assert judge_candidate(compare(pairs([9.0] * 3, [0.1] * 3, rows=19)), LIMITS) is (
        Verdict.UNDECIDED
    )


def test_no_device_decides_nothing():
    assert compare([]) is None
    assert judge_candidate(None, LIMITS) is Verdict.UNDECIDED


def test_a_fleet_of_one_device_is_judged_by_its_mean():
    alone = Limits(min_rows=20, min_devices=1, alpha=0.05)
    assert judge_candidate(compare(pairs([0.4], [0.3])), alone) is Verdict.REJECTED
    assert judge_candidate(compare(pairs([0.3], [0.4])), alone) is Verdict.PROMOTED


@pytest.mark.parametrize(
    ("own", "worse"),
    [
        # .1 and 25 % of .3 are .1: a mean of .39 is below, .45 above
        ([0.38, 0.39, 0.40], False),
        ([0.44, 0.45, 0.46], True),
    ],
)
def test_a_margin_leaves_alone_what_is_only_a_little_worse(own, worse):
    margins = Limits(min_rows=1, min_devices=1, alpha=0.01, margin=0.1, relative_margin=0.25)
    assert is_worse(compare(pairs(own, [0.3, 0.3, 0.3])), margins) is worse
