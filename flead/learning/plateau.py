"""When a device has learned what it can: its training rests until there is reason to go on."""

import math
from typing import Final, NamedTuple

import numpy as np

from flead.compiling import compiled
from flead.features.rows import Floats

LOSS, WINDOWS, GAIN, BEST, SINCE_BEST, RESTING, IDLE, VERSION = range(8)
"""Columns of a device's progress, of shape (devices, 8)."""

FRESH: Final = np.array([0.0, 0.0, 0.0, math.inf, 0.0, 0.0, 0.0, 0.0])


class Patience(NamedTuple):
    """Settings of the plateau.

    The loss is averaged over `memory` labelled windows. Training rests after `windows` of them
    without a relative improvement by `tolerance`, for `max_idle_windows` at most; infinite windows
    never rest. A global model wakes a device when its loss is lower by the share `margin`.
    """

    memory: float = 20.0
    tolerance: float = 0.01
    windows: float = 100.0
    max_idle_windows: float = 50.0
    margin: float = 0.1


@compiled
def take_loss(progress: Floats, loss: float, gain: float, patience: Patience) -> None:
    """Average a labelled window's mean loss, and count the windows since it was clearly lower.

    `gain` is by how much the last training has lowered it: the loss of the same rows by the model
    before that, less `loss`.
    """
    progress[WINDOWS] += 1.0
    weight = max(1.0 / progress[WINDOWS], 1.0 / patience.memory)
    progress[LOSS] += (loss - progress[LOSS]) * weight
    progress[GAIN] += (gain - progress[GAIN]) * weight
    progress[SINCE_BEST] += 1.0
    if progress[LOSS] < progress[BEST] * (1.0 - patience.tolerance):
        progress[BEST] = progress[LOSS]
        progress[SINCE_BEST] = 0.0


@compiled
def rests(
    progress: Floats, version: int, is_better: bool, drifted: bool, patience: Patience
) -> bool:
    """Decide whether a device rests on the window that it has just scored.

    It begins to rest on a plateau (Prechelt 1998, "Early stopping, but when?", criterion UP) on
    which training does not pay either: the model is no better on the next window than the one
    before its last training. A drift, a new and better global model and the time wake it.

    Parameters
    ----------
    progress
        Of the device, of shape (8,). Changed.
    version, is_better
        The promoted model, and whether it scored the window clearly better than the personalized.
    drifted
        Whether the drift test has fired.
    patience
        Settings.
    """
    if progress[RESTING] != 0.0:
        progress[IDLE] += 1.0
        is_new = version > progress[VERSION]
        if drifted or (is_new and is_better) or progress[IDLE] > patience.max_idle_windows:
            progress[BEST:] = FRESH[BEST:]
    elif drifted:
        progress[:] = FRESH
    elif progress[SINCE_BEST] >= patience.windows and progress[GAIN] <= 0.0:
        progress[RESTING] = 1.0
        progress[VERSION] = version
    return bool(progress[RESTING] != 0.0)
