"""Each device's own learning rate: a multiplier of the fleet's, moved by the device's own loss."""

import math
from typing import Final, NamedTuple

import numpy as np

from flead.compiling import compiled
from flead.features.rows import Floats

MULTIPLIER, SLOPE, SIZE, WINDOWS = range(4)
"""Columns of a device's rate, of shape (devices, 4)."""

FRESH: Final = np.array([1.0, 0.0, 0.0, 0.0])

LEAST: Final = 1 / 8
MOST: Final = 8.0


class RateRule(NamedTuple):
    """Settings of the rule.

    `gain` is the step of the multiplier's logarithm at a slope of 1, 0 keeps it at 1; `memory` the
    windows that the slope is averaged over; `min_windows` those before which nothing moves.
    """

    gain: float = 0.2
    memory: float = 10.0
    min_windows: float = 5.0
    size_memory: float = 100.0
    growth: float = 1.0
    doubt: float = 0.0
    pull: float = 0.0


@compiled
def follow_slope(rate: Floats, slope: float, size: float, rule: RateRule) -> None:
    """Move a device's multiplier against the slope of its prequential loss.

    A step of training moved the log-odds of the next window's row i from z'_i to z_i. The loss of
    that window, as a function of the size of the step, has the slope h = Σ (p_i - y_i) (z_i - z'_i)
    over its labelled rows: positive when a smaller step would have been better. The multiplier m
    becomes m exp(-gain h / s) with s = √(Σ (p_i - y_i)² Σ (z_i - z'_i)²), both averaged over the
    last windows: hypergradient descent (Baydin et al. 2018, "Online Learning Rate Adaptation with
    Hypergradient Descent", ICLR) in the multiplicative, normalised form of Almeida et al. 1998
    ("Parameter adaptation in stochastic optimization"), with windows as the steps.

    Parameters
    ----------
    rate
        Of the device, of shape (4,). Changed.
    slope, size
        h and s of a window with labelled rows.
    rule
        Settings.
    """
    if size <= 0.0:
        return
    rate[WINDOWS] += 1.0
    weight = max(1.0 / rate[WINDOWS], 1.0 / rule.memory)
    rate[SLOPE] += (slope - rate[SLOPE]) * weight
    rate[SIZE] += (size - rate[SIZE]) * max(1.0 / rate[WINDOWS], 1.0 / rule.size_memory)
    if rate[WINDOWS] >= rule.min_windows:
        power = -rule.gain * rate[SLOPE] / rate[SIZE]
        if power > 0.0:
            power = rule.growth * max(0.0, power - rule.gain * rule.doubt)
        move = math.exp(power)
        moved = rate[MULTIPLIER] ** (1.0 - rule.pull) * move
        rate[MULTIPLIER] = min(max(moved, LEAST), MOST)
