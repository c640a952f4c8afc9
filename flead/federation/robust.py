"""A mean that a few devices cannot move far, whatever they send."""

from typing import NamedTuple

import numpy as np

from flead.features.rows import Floats


class TrimmedMean(NamedTuple):
    """Mean of each column, and the share of all counted values that each row has; they sum to 1."""

    mean: Floats
    shares: Floats


def trimmed_mean(values: Floats, cut: int) -> TrimmedMean:
    """Mean of each column without its `cut` lowest and `cut` highest values.

    With all left out but the one or two in the middle it is the median. Yin et al. 2018,
    "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML, definitions 1
    and 2. The same to the last bit for the same rows in the same order.

    Parameters
    ----------
    values
        Finite, of shape (rows, columns), at least one of each.
    cut
        Less than half of the rows. Of equal values earlier rows count as lower.

    Returns
    -------
    TrimmedMean
        Of shapes (columns,) and (rows,).
    """
    order = np.argsort(values, axis=0, kind="stable")
    counted = order[cut : len(values) - cut]
    total = np.zeros(values.shape[1])
    # One addition after the other: the order of numpy's own sums depends on the shape.
    for row in np.take_along_axis(values, counted, axis=0):
        total += row
    places = np.bincount(counted.ravel(), minlength=len(values))
    return TrimmedMean(total / len(counted), places / places.sum())
