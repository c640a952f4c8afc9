"""Standardizing by a device's own running moments.

Normalisation statistics stay local, as in FedBN (Li et al. 2021, "FedBN: Federated Learning on
Non-IID Features via Local Batch Normalization", ICLR).
"""

from typing import Final, NamedTuple

import numpy as np

from flead.contracts.schema import Z_CLIP
from flead.features.rows import Floats
from flead.features.spread import Spread, merge, spread_along, standard_deviation

MIN_OWN_ROWS: Final = 30
"""Rows of an input below which the fleet's moments serve, if there are any."""

MIN_ROWS: Final = 2
"""Rows of an input below which it is neutral."""

MEMORY_ROWS: Final = 2_000
"""Cap of the count: older rows fade, so that the moments follow a device that changes."""


class Standardizer(NamedTuple):
    """`mean` and `inverse_deviation` of inputs; the latter is 0 where an input is neutral."""

    mean: Floats
    inverse_deviation: Floats


def accumulate(running: Spread, inputs: Floats, memory_rows: float = MEMORY_ROWS) -> Spread:
    """Add a window to the running moments of each device.

    Parameters
    ----------
    running
        Moments of each device, arrays of shape (devices, inputs).
    inputs
        Rows of each device's window, nan where missing or where a window is shorter than the
        longest; of shape (rows, devices, inputs).
    memory_rows
        Cap of the count. Above it, count and squared deviations shrink together, which keeps the
        variance and lets every further row weigh the same.
    """
    merged = merge(running, spread_along(inputs, axis=0))
    fade = np.minimum(1.0, memory_rows / np.maximum(merged.rows, 1.0))
    return Spread(merged.rows * fade, merged.mean, merged.m2 * fade)


def standardizer(own: Spread, prior: Spread | None) -> Standardizer:
    """Choose each input's moments: the device's own, the fleet's while it has few rows.

    Parameters
    ----------
    own
        Moments of each device, arrays of shape (devices, inputs).
    prior
        Moments of the fleet, arrays of shape (inputs,), None when there are none.

    Returns
    -------
    Standardizer
        Of shape (devices, inputs): from `own` at `MIN_OWN_ROWS` counted rows, else from `prior`,
        else from `own` at `MIN_ROWS`, else neutral. No spread is neutral too.
    """
    chosen = own
    if prior is not None:
        use_prior = (own.rows < MIN_OWN_ROWS) & (prior.rows >= MIN_ROWS)
        chosen = Spread(*(np.where(use_prior, *pair) for pair in zip(prior, own, strict=True)))
    deviation = standard_deviation(chosen)
    usable = (chosen.rows >= MIN_ROWS) & (deviation > 0)
    return Standardizer(chosen.mean, np.where(usable, 1.0 / np.where(usable, deviation, 1.0), 0.0))


def standardize(inputs: Floats, by: Standardizer) -> Floats:
    """Center and scale inputs, 0 where missing or neutral, clipped to ±`Z_CLIP`.

    The shapes of `inputs` and of `by` broadcast.
    """
    standardized = inputs - by.mean
    standardized *= by.inverse_deviation
    np.clip(standardized, -Z_CLIP, Z_CLIP, out=standardized)
    return np.nan_to_num(standardized, copy=False, nan=0.0)
