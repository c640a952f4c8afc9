"""What the values of one feature were like over a day."""

from typing import Final

import msgspec
import numpy as np

from flead.features.rows import Floats
from flead.features.spread import ROUNDING

PERCENTS: Final = tuple(range(0, 101, 5))
"""Of the quantiles that are kept: p00, p05, ..., p100."""

MAX_DISTINCT: Final = 20
"""Different values up to which each is kept with its count: those of a switch or a state."""


class FeatureStatistics(msgspec.Struct, frozen=True):
    """Statistics of a feature over the rows of one device and day.

    `count` values are there and `missing_share` of the rows has none. Mean, population standard
    deviation and quantiles (21, of `PERCENTS`, linear between the values) are None without a value.
    `frequencies` are the values, increasing, each with its count, where at most `MAX_DISTINCT` are
    different.
    """

    count: int
    missing_share: float
    mean: float | None
    std: float | None
    quantiles: list[float] | None
    frequencies: list[tuple[float, int]] | None


def describe(values: Floats) -> FeatureStatistics:
    """Describe the values of a feature, nan where missing, of shape (rows,) with at least one row.

    Equal to numpy's `mean`, `std` and `percentile` over the values that are there.
    """
    there = np.sort(values[~np.isnan(values)])
    if not len(there):
        return FeatureStatistics(0, 1.0, None, None, None, None)
    mean = float(there.mean())
    std = float(there.std())
    return FeatureStatistics(
        count=len(there),
        missing_share=1.0 - len(there) / len(values),
        mean=mean,
        # as `flead.features.spread.standard_deviation`: equal values have none
        std=std if std > ROUNDING * abs(mean) else 0.0,
        quantiles=np.percentile(there, PERCENTS).tolist(),
        frequencies=_frequencies(there),
    )


def _frequencies(increasing: Floats) -> list[tuple[float, int]] | None:
    first = np.flatnonzero(np.diff(increasing, prepend=np.nan))
    if len(first) > MAX_DISTINCT:
        return None
    counts = np.diff(first, append=len(increasing))
    return list(zip(increasing[first].tolist(), counts.tolist(), strict=True))
