"""Counts, means and sums of squared deviations, and how they merge."""

import math
from typing import Final

from flead.compiling import compiled

ROUNDING: Final = 1e-12
"""A standard deviation below this share of the mean is the rounding of equal values, hence 0."""


@compiled
def merge(
    rows: float, mean: float, m2: float, more_rows: float, more_mean: float, more_m2: float
) -> tuple[float, float, float]:
    """Count, mean and squared deviations of the union of two disjoint sets of values.

    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.
    """
    total = rows + more_rows
    share = more_rows / max(total, 1.0)
    delta = more_mean - mean
    return total, mean + delta * share, m2 + more_m2 + delta * delta * rows * share


@compiled
def standard_deviation(rows: float, mean: float, m2: float) -> float:
    """Take the population standard deviation: exactly 0 where it is only rounding."""
    deviation = math.sqrt(m2 / max(rows, 1.0))
    return deviation if deviation > ROUNDING * abs(mean) else 0.0
