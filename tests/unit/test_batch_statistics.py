"""A day's statistics against numpy, its drift against scipy and a table worked out by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from flead.analysis.drift import bin_edges, drift_of, shares_up_to
from flead.analysis.statistics import PERCENTS, FeatureStatistics, describe


def test_a_feature_is_described_as_numpy_describes_the_values_that_are_there():
    values = np.random.default_rng(1).gamma(2.0, size=1_000)
    with_gaps = np.insert(values, [3, 500], np.nan)

    found = describe(with_gaps)

    assert found.count == 1_000
    assert found.missing_share == pytest.approx(2 / 1_002, rel=1e-12)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-12)
    assert found.quantiles == pytest.approx(np.percentile(values, range(0, 101, 5)), rel=1e-12)


def test_the_figures_of_a_few_values_are_those_worked_out_by_hand():
    found = describe(np.array([4.0, np.nan, 2.0, 6.0]))

    # mean (2 + 4 + 6) / 3; variance (4 + 0 + 4) / 3; p25 lies half way from 2 to 4
    assert (found.count, found.missing_share, found.mean) == (3, 0.25, 4.0)
    assert found.std == pytest.approx((8 / 3) ** 0.5)
    quantiles = dict(zip(PERCENTS, found.quantiles, strict=True))
    assert [quantiles[percent] for percent in (0, 25, 50, 75, 100)] == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_a_feature_without_a_value_has_no_figure_but_its_missing_share():
    assert describe(np.full(5, np.nan)) == FeatureStatistics(0, 1.0, None, None, None, None)


def test_equal_values_have_no_spread():
    assert describe(np.full(7, 0.1)).std == 0.0


def test_one_day_before_is_compared_by_its_deciles():
    before = np.arange(101.0)
    now = np.concatenate((np.full(50, 5.0), np.full(50, 95.0)))

    # Half of the rows in the first of ten bins, half in the last; a tenth in each before.
    by_hand = jensenshannon([0.5] + [0.0] * 8 + [0.5], [0.1] * 10, base=2)
    assert bin_edges([describe(before)]) == pytest.approx(np.arange(10.0, 100.0, 10.0))
    assert drift_of(now, [describe(before)]) == pytest.approx(by_hand, rel=1e-12)


def test_days_before_are_mixed_by_their_counts():
    days = [describe(np.arange(0.0, 101.0)), describe(np.tile(np.arange(100.0, 201.0), 3))]

    # Of 404 values a quarter lies evenly in 0 to 100, three quarters evenly in 100 to 200.
    assert shares_up_to(days, np.array([50.0, 100.0, 150.0, 200.0])) == pytest.approx(
        [0.125, 0.25, 0.625, 1.0]
    )
    by_hand = [40.0, 80.0, *(100 + 100 * (share - 0.25) / 0.75 for share in np.arange(0.3, 1, 0.1))]
    assert bin_edges(days) == pytest.approx(by_hand)


def test_the_same_distribution_has_drifted_next_to_nothing():
    rng = np.random.default_rng(2)
    days = [describe(rng.normal(size=20_000)) for _ in range(7)]

    assert drift_of(rng.normal(size=20_000), days) < 0.02
    assert drift_of(rng.normal(1.0, size=20_000), days) > 0.2


@pytest.mark.parametrize("moved", [4.0, 6.0])
def test_a_constant_that_becomes_another_has_drifted_wholly_in_both_directions(moved):
    before = [describe(np.full(100, 5.0))]

    assert drift_of(np.full(100, 5.0), before) == 0.0
    assert drift_of(np.full(100, moved), before) == pytest.approx(1.0)


def test_a_switch_is_compared_by_how_often_it_has_each_value():
    before = describe(np.repeat([0.0, 1.0], [97, 3]))

    assert before.frequencies == [(0.0, 97), (1.0, 3)]
    assert drift_of(np.repeat([0.0, 1.0], [97, 3]), [before]) == pytest.approx(0.0, abs=1e-6)
    assert drift_of(np.repeat([0.0, 1.0], [50, 50]), [before]) == pytest.approx(
        jensenshannon([0.5, 0.5], [0.97, 0.03], base=2), rel=1e-9
    )


def test_a_value_that_many_of_different_rows_share_is_a_bin_of_its_own():
    values = np.concatenate((np.zeros(500), np.linspace(1.0, 2.0, 500)))

    edges = bin_edges([describe(values)])

    assert edges[:2].tolist() == [np.nextafter(0.0, -1.0), 0.0]
    assert drift_of(np.concatenate((np.full(500, -1.0), values[500:])), [describe(values)]) > 0.5


@pytest.mark.parametrize(("now", "before"), [(29, 100), (100, 29), (100, 0)])
def test_few_values_on_either_side_have_no_distance(now, before):
    rng = np.random.default_rng(3)
    days = [describe(rng.normal(size=before))] if before else []

    assert drift_of(rng.normal(size=now), days) is None
