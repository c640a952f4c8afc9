"""Standardizing by a device's own running moments.

Normalisation statistics stay local, as in FedBN (Li et al. 2021, "FedBN: Federated Learning on
Non-IID Features via Local Batch Normalization", ICLR). The moments of inputs are an array of shape
(3, inputs): rows counted, mean, and squared deviations from it.
"""

import math
from typing import Final

from flead.compiling import compiled
from flead.contracts.schema import Z_CLIP
from flead.features.rows import Floats
from flead.features.spread import merge, standard_deviation

MIN_OWN_ROWS: Final = 30
"""Rows of an input below which the fleet's moments serve, if there are any."""

MIN_ROWS: Final = 2
"""Rows of an input below which it is neutral."""

MEMORY_ROWS: Final = 20_000
"""Cap of the count: older rows fade, so that the moments follow a device that changes."""


@compiled
def accumulate(moments: Floats, inputs: Floats, memory_rows: float) -> None:
    """Add a window to the running moments of a device.

    Parameters
    ----------
    moments
        Of shape (3, inputs). Changed.
    inputs
        Rows of the window, nan where missing, of shape (rows, inputs).
    memory_rows
        Cap of the count. Above it, count and squared deviations shrink together, which keeps the
        variance and lets every further row weigh the same.
    """
    for column in range(inputs.shape[1]):
        rows, total = 0.0, 0.0
        for row in range(inputs.shape[0]):
            value = inputs[row, column]
            if not math.isnan(value):
                rows += 1.0
                total += value
        mean = total / max(rows, 1.0)
        m2 = 0.0
        for row in range(inputs.shape[0]):
            value = inputs[row, column]
            if not math.isnan(value):
                m2 += (value - mean) * (value - mean)
        rows, mean, m2 = merge(
            moments[0, column], moments[1, column], moments[2, column], rows, mean, m2
        )
        fade = min(1.0, memory_rows / max(rows, 1.0))
        moments[0, column] = rows * fade
        moments[1, column] = mean
        moments[2, column] = m2 * fade


@compiled
def choose(own: Floats, prior: Floats, scale: Floats) -> None:
    """Choose what each input is standardized by: the device's own, the fleet's with few rows.

    Parameters
    ----------
    own
        Moments of the device, of shape (3, inputs).
    prior
        Moments of the fleet, of shape (3, inputs); all 0 when there are none.
    scale
        Written, of shape (2, inputs): the mean, and 1 over the deviation, 0 for a neutral input.
        From `own` at `MIN_OWN_ROWS` counted rows, else from `prior`, else from `own` at `MIN_ROWS`,
        else neutral. No spread is neutral too.
    """
    for column in range(own.shape[1]):
        chosen = own
        if own[0, column] < MIN_OWN_ROWS and prior[0, column] >= MIN_ROWS:
            chosen = prior
        rows, mean = chosen[0, column], chosen[1, column]
        deviation = standard_deviation(rows, mean, chosen[2, column])
        scale[0, column] = mean
        scale[1, column] = 1.0 / deviation if rows >= MIN_ROWS and deviation > 0.0 else 0.0


@compiled
def standardize(inputs: Floats, scale: Floats, out: Floats) -> None:
    """Write centered and scaled inputs, 0 where missing or neutral, clipped to ±`Z_CLIP`.

    `inputs` and `out` are (rows, inputs), `scale` is what `choose` wrote.
    """
    for row in range(inputs.shape[0]):
        for column in range(inputs.shape[1]):
            value = (inputs[row, column] - scale[0, column]) * scale[1, column]
            out[row, column] = 0.0 if math.isnan(value) else min(max(value, -Z_CLIP), Z_CLIP)
