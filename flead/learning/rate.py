"""Each device's own learning rate: a multiplier of the fleet's, moved by the device's own loss."""

import math
from typing import Final, NamedTuple

import numpy as np

from flead.compiling import compiled
from flead.features.rows import Floats
from flead.learning.multiplier import LEAST, MOST

MULTIPLIER, SLOPE, SIZE, WINDOWS = range(4)
"""Columns of a device's rate, of shape (devices, 4)."""

FRESH: Final = np.array([1.0, 0.0, 0.0, 0.0])


class RateRule(NamedTuple):
    """Settings of the rule.

    Parameters
    ----------
    gain
        By how much the multiplier's logarithm falls at a slope of 1; 0 keeps it as it is.
    growth, doubt
        It grows by this share of the gain, and only for what the slope is below minus `doubt`.
    fade
        Above 1 its logarithm loses this share with each labelled window: a rate above the fleet's
        is for a change, and costs a model that has followed it its calibration.
    slope_windows, size_windows
        Labelled windows that the slope and its size are averaged over: the size over so many that
        windows in which nothing happens weigh little.
    min_windows
        Labelled windows before it moves.
    """

    gain: float = 0.2
    growth: float = 0.1
    doubt: float = 0.1
    fade: float = 0.3
    slope_windows: float = 3.0
    size_windows: float = 1000.0
    min_windows: float = 5.0


@compiled
def follow_slope(rate: Floats, slope: float, size: float, rule: RateRule) -> None:
    """Move a device's multiplier against the slope of its prequential loss.

    The last training moved the log-odds of the window's row i from z'_i to z_i. As a function of
    the size of that step, the loss of the window has the slope h = Σ (p_i - y_i) (z_i - z'_i) over
    its labelled rows: positive when a smaller step would have been better. With the size
    s = √(Σ (p_i - y_i)² Σ (z_i - z'_i)²), both averaged, the multiplier m becomes
    m exp(-gain h / s): hypergradient descent (Baydin et al. 2018, "Online Learning Rate Adaptation
    with Hypergradient Descent", ICLR) with windows as the steps, in the multiplicative normalised
    form of Almeida et al. 1998, "Parameter adaptation in stochastic optimization". That it grows
    slower than it shrinks is the bold driver's (Battiti 1989, Complex Systems 3).

    Parameters
    ----------
    rate
        Of the device, of shape (4,). Changed.
    slope, size
        h and s of a window with labelled rows; size 0 when nothing was trained before it.
    rule
        Settings.
    """
    if size <= 0.0:
        return
    rate[WINDOWS] += 1.0
    first = 1.0 / rate[WINDOWS]
    rate[SLOPE] += (slope - rate[SLOPE]) * max(first, 1.0 / rule.slope_windows)
    rate[SIZE] += (size - rate[SIZE]) * max(first, 1.0 / rule.size_windows)
    if rate[WINDOWS] < rule.min_windows:
        return
    share = rate[SLOPE] / rate[SIZE]
    move = share if share > 0.0 else rule.growth * min(0.0, share + rule.doubt)
    if rate[MULTIPLIER] > 1.0:
        rate[MULTIPLIER] **= 1.0 - rule.fade
    rate[MULTIPLIER] = min(max(rate[MULTIPLIER] * math.exp(-rule.gain * move), LEAST), MOST)
