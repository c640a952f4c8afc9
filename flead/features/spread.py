"""Counts, means and sums of squared deviations, and how they merge."""

from typing import Final, NamedTuple

import numpy as np

from flead.features.rows import Floats

ROUNDING: Final = 1e-12
"""A standard deviation below this share of the mean is the rounding of equal values, hence 0."""


class Spread(NamedTuple):
    """Arrays of one shape: values counted, their mean, and the sum of squared deviations from it.

    `mean` and `m2` are 0 where `rows` is 0.
    """

    rows: Floats
    mean: Floats
    m2: Floats


def spread_along(values: Floats, axis: int) -> Spread:
    """Count, mean and squared deviations of the values along an axis, nan left out.

    Two passes: deviations are taken from the mean, so that no digits cancel.
    """
    present = ~np.isnan(values)
    rows = present.sum(axis, dtype=np.float64)
    mean = np.where(present, values, 0.0).sum(axis) / np.maximum(rows, 1.0)
    deviation = np.where(present, values - np.expand_dims(mean, axis), 0.0)
    deviation *= deviation
    return Spread(rows, mean, deviation.sum(axis))


def merge(first: Spread, second: Spread) -> Spread:
    """Spread of the union of two disjoint sets of values.

    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.
    """
    rows = first.rows + second.rows
    share = second.rows / np.maximum(rows, 1.0)
    delta = second.mean - first.mean
    return Spread(
        rows,
        first.mean + delta * share,
        first.m2 + second.m2 + delta * delta * first.rows * share,
    )


def standard_deviation(spread: Spread) -> Floats:
    """Take the population standard deviation: exactly 0 where it is only rounding."""
    deviation = np.sqrt(spread.m2 / np.maximum(spread.rows, 1.0))
    return np.where(deviation > ROUNDING * np.abs(spread.mean), deviation, 0.0)
