"""Inputs are standardized by running moments: the device's own, or the fleet's."""

import math

import numpy as np
import pytest

from flead.learning.moments import MEMORY_ROWS, accumulate, choose, standardize

NAN = math.nan


def test_windows_add_up_to_the_moments_of_all_rows():
    generator = np.random.default_rng(0)
    rows = generator.normal(1e4, 2.0, (90, 3))
    rows[generator.random(rows.shape) < 0.2] = NAN

    running = np.zeros((3, 3))
    for window in np.split(rows, 9):
        accumulate(running, window, MEMORY_ROWS)

    count, mean, m2 = running
    np.testing.assert_array_equal(count, (~np.isnan(rows)).sum(axis=0))
    np.testing.assert_allclose(mean, np.nanmean(rows, axis=0), rtol=1e-12)
    np.testing.assert_allclose(m2 / count, np.nanvar(rows, axis=0), rtol=1e-9)


def test_an_input_that_is_never_there_is_not_counted():
    running = np.zeros((3, 2))

    accumulate(running, np.array([[NAN, 1.0], [NAN, 3.0]]), MEMORY_ROWS)

    assert running.tolist() == [[0, 2], [0, 2], [0, 2]]


def test_the_capped_count_keeps_the_variance_and_forgets_the_past():
    old = np.zeros((1000, 1))
    old[::2] = 2.0
    running = np.zeros((3, 1))

    accumulate(running, old, 100.0)
    count, _, m2 = running.copy()
    for window in np.split(old + 50.0, 20):
        accumulate(running, window, 100.0)

    assert count.item() == 100
    assert m2.item() / 100 == pytest.approx(1.0)
    assert running[0].item() == 100
    assert running[1].item() == pytest.approx(51.0, abs=0.05)


def moments(rows, mean, deviation):
    return np.array([rows, mean, np.array(rows) * np.array(deviation) ** 2])


def standardized(row, own, prior=None):
    scale = np.empty((2, own.shape[1]))
    choose(own, np.zeros_like(own) if prior is None else prior, scale)
    out = np.empty((1, own.shape[1]))
    standardize(np.array([row]), scale, out)
    return out[0].tolist()


@pytest.mark.parametrize(
    ("own_rows", "prior", "expected"),
    [
        (30.0, moments([500.0], [0.0], [1.0]), (14.0 - 10.0) / 2.0),
        (29.0, moments([500.0], [4.0], [5.0]), (14.0 - 4.0) / 5.0),
        (29.0, moments([1.0], [4.0], [0.0]), (14.0 - 10.0) / 2.0),
        (29.0, None, (14.0 - 10.0) / 2.0),
        (2.0, None, (14.0 - 10.0) / 2.0),
        (1.0, None, 0.0),
        (0.0, None, 0.0),
        (0.0, moments([500.0], [4.0], [0.0]), 0.0),
    ],
    ids=[
        "own from 30 rows on", "the fleet's below", "own when the fleet has too few",
        "own without a fleet", "own from 2 rows on", "neutral below", "neutral without rows",
        "neutral without spread",
    ],
)  # fmt: skip
def test_moments_are_chosen_for_each_input(own_rows, prior, expected):
    own = moments([own_rows], [10.0], [2.0])

    assert standardized([14.0], own, prior) == [pytest.approx(expected)]


def test_missing_inputs_are_neutral_and_far_ones_clipped():
    own = moments([100.0] * 4, [0.0] * 4, [1.0, 1.0, 1.0, 0.0])

    assert standardized([NAN, 11.0, -1e9, 3.0], own) == [0.0, 10.0, -10.0, 0.0]
