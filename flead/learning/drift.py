"""When a device's loss has risen for good: the Page-Hinkley test."""

import math
from typing import Final, NamedTuple

import numpy as np

from flead.compiling import compiled
from flead.features.rows import Floats

COUNT, MEAN, SUM, LEAST, FIRED = range(5)
"""Columns of the test's sums, of shape (devices, 5)."""

FRESH: Final = np.array([0.0, 0.0, 0.0, math.inf, 0.0])


class PageHinkley(NamedTuple):
    """Settings of the test.

    `tolerance` is the rise of the mean that is not looked for, `threshold` the sum of what lies
    above it from which on the test fires, and `min_values` the values before which it does not.
    """

    tolerance: float = 0.1
    threshold: float = 2.0
    min_values: float = 10.0


@compiled
def has_drifted(sums: Floats, value: float, settings: PageHinkley) -> bool:
    """Take a device's next value and say whether the mean has risen.

    Page 1954, "Continuous inspection schemes", Biometrika 41, in the form of Hinkley 1971: with
    s_t = s_(t-1) + (x_t - mean_t - tolerance), it fires where s_t - min s exceeds the threshold,
    and starts anew with the next value. Equals river's `PageHinkley(mode="up", alpha=1)`.

    Parameters
    ----------
    sums
        Of the device, of shape (5,), `FRESH` at first. Changed.
    value
        The next one.
    settings
        Of the test.
    """
    if sums[FIRED] != 0.0:
        sums[:] = FRESH
    sums[COUNT] += 1.0
    sums[MEAN] += (value - sums[MEAN]) / sums[COUNT]
    sums[SUM] += value - sums[MEAN] - settings.tolerance
    sums[LEAST] = min(sums[LEAST], sums[SUM])
    if sums[COUNT] >= settings.min_values and sums[SUM] - sums[LEAST] > settings.threshold:
        sums[FIRED] = 1.0
    return bool(sums[FIRED] != 0.0)
