"""Inputs are standardized by running moments: the device's own, or the fleet's."""

import math

import numpy as np
import pytest

from flead.features.spread import Spread
from flead.learning.moments import accumulate, standardize, standardizer

NAN = math.nan


def nothing(devices, inputs):
    return Spread(*(np.zeros((devices, inputs)) for _ in range(3)))


def test_windows_add_up_to_the_moments_of_all_rows():
    generator = np.random.default_rng(0)
    rows = generator.normal(1e4, 2.0, (90, 2, 3))
    rows[generator.random(rows.shape) < 0.2] = NAN

    running = nothing(2, 3)
    for window in np.split(rows, 9):
        running = accumulate(running, window)

    np.testing.assert_array_equal(running.rows, (~np.isnan(rows)).sum(axis=0))
    np.testing.assert_allclose(running.mean, np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(running.m2 / running.rows, np.nanvar(rows, axis=0), rtol=1e-9)


def test_an_input_that_is_never_there_is_not_counted():
    running = accumulate(nothing(1, 2), np.array([[[NAN, 1.0]], [[NAN, 3.0]]]))

    assert [part.tolist() for part in running] == [[[0, 2]], [[0, 2]], [[0, 2]]]


def test_the_capped_count_keeps_the_variance_and_forgets_the_past():
    old = np.zeros((1000, 1, 1))
    old[::2] = 2.0
    new = old + 50.0

    before = accumulate(nothing(1, 1), old, memory_rows=100)
    after = before
    for window in np.split(new, 20):
        after = accumulate(after, window, memory_rows=100)

    assert before.rows.item() == 100
    assert before.m2.item() / 100 == pytest.approx(1.0)
    assert after.rows.item() == 100
    assert after.mean.item() == pytest.approx(51.0, abs=0.05)


def spread(rows, mean, deviation):
    return Spread(
        np.array([rows]), np.array([mean]), np.array([np.array(rows) * np.array(deviation) ** 2])
    )


def fleet(rows, mean, deviation):
    return Spread(*(part[0] for part in spread(rows, mean, deviation)))


@pytest.mark.parametrize(
    ("own_rows", "prior", "expected"),
    [
        (30.0, fleet([500.0], [0.0], [1.0]), (14.0 - 10.0) / 2.0),
        (29.0, fleet([500.0], [4.0], [5.0]), (14.0 - 4.0) / 5.0),
        (29.0, fleet([1.0], [4.0], [0.0]), (14.0 - 10.0) / 2.0),
        (29.0, None, (14.0 - 10.0) / 2.0),
        (2.0, None, (14.0 - 10.0) / 2.0),
        (1.0, None, 0.0),
        (0.0, None, 0.0),
        (0.0, fleet([500.0], [4.0], [0.0]), 0.0),
    ],
    ids=[
        "own from 30 rows on", "the fleet's below", "own when the fleet has too few",
        "own without a fleet", "own from 2 rows on", "neutral below", "neutral without rows",
        "neutral without spread",
    ],
)  # fmt: skip
def test_moments_are_chosen_for_each_input(own_rows, prior, expected):
    own = spread([own_rows], [10.0], [2.0])

    standardized = standardize(np.array([[14.0]]), standardizer(own, prior))

    assert standardized.item() == pytest.approx(expected)


def test_missing_inputs_are_neutral_and_far_ones_clipped():
    own = spread([100.0] * 4, [0.0] * 4, [1.0, 1.0, 1.0, 0.0])

    standardized = standardize(np.array([[NAN, 11.0, -1e9, 3.0]]), standardizer(own, None))

    assert standardized.tolist() == [[0.0, 10.0, -10.0, 0.0]]
