"""The fleet's standardizer: moments of all devices as one."""

from collections.abc import Sequence

import numpy as np

from flead.contracts.messages import Moments


def merge_moments(newest: Sequence[Moments], inputs: int) -> Moments:
    """Merge the newest moments of each device, as if all their rows had been counted in one place.

    Moments travel as cumulative values, so the newest of each device hold all that it has sent.
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", in the form for
    many parts: the deviations inside the parts, and those of the parts' means.

    Parameters
    ----------
    newest
        One of each device, in a fixed order, for a sum depends on it in the last digits.
    inputs
        Inputs of a model, for when there is no device.

    Raises
    ------
    ValueError
        When moments are of another number of inputs.
    """
    parts = np.array([(part.count, part.mean, part.m2) for part in newest], np.float64)
    count, mean, m2 = parts.reshape(len(newest), 3, inputs).transpose(1, 0, 2)
    total = count.sum(axis=0)
    merged = (count * mean).sum(axis=0) / np.maximum(total, 1.0)
    deviation = mean - merged
    spread = m2.sum(axis=0) + (count * deviation * deviation).sum(axis=0)
    return Moments(total.tolist(), merged.tolist(), spread.tolist())
