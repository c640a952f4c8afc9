"""How far the distribution of a feature has moved from that of the days before."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from scipy.spatial.distance import jensenshannon

from flead.analysis.statistics import PERCENTS, FeatureStatistics
from flead.features.rows import Floats

MIN_ROWS: Final = 30
"""Values, now and before, below which a distance would be the noise of few rows."""

BINS: Final = 10

SHARES: Final = np.array(PERCENTS) / 100.0


def drift_of(values: Floats, before: Sequence[FeatureStatistics]) -> float | None:
    """Jensen-Shannon distance (base 2, from 0 for none to 1) of a day's values to the days before.

    The days before are one distribution: theirs, weighted by their counts, each even between the
    quantiles that are kept, or exact where few values are different. Its deciles bound the bins;
    each bin's share before is what that distribution gives it, its share now is counted. Lin
    (1991), "Divergence measures based on the Shannon entropy"; the distance is
    `scipy.spatial.distance.jensenshannon`.

    Parameters
    ----------
    values
        Of the day, nan where missing, of shape (rows,).
    before
        Statistics of the feature on earlier days.

    Returns
    -------
    float or None
        None with fewer than `MIN_ROWS` values on either side.
    """
    there = values[~np.isnan(values)]
    known = [day for day in before if day.quantiles is not None]
    if min(len(there), sum(day.count for day in known)) < MIN_ROWS:
        return None
    edges = bin_edges(known)
    expected = np.diff(shares_up_to(known, edges), prepend=0.0, append=1.0)
    place = np.searchsorted(edges, there, side="left")
    found = np.bincount(place, minlength=len(edges) + 1) / len(there)
    return float(jensenshannon(found, expected, base=2))


def bin_edges(days: Sequence[FeatureStatistics]) -> Floats:
    """Edges between the bins: the inner deciles of the mixture of days.

    A bin includes its upper edge. A value that many rows share, so that it is a decile with a share
    of its own, is a bin of its own: another edge is right below it.

    Returns
    -------
    Increasing edges of shape (edges,), `BINS` - 1 of them for values that are all different.
    """
    places = np.unique(np.concatenate([_distribution(day)[0] for day in days]))
    below, up_to = _shares(days, places, "left"), _shares(days, places, "right")
    wanted = np.arange(1, BINS) / BINS
    end = np.minimum(np.searchsorted(up_to, wanted), len(places) - 1)
    start = np.maximum(end - 1, 0)
    # From one place to the next the mixture grows evenly, at a place it may jump.
    width = np.maximum(below[end] - up_to[start], 0.0)
    part = np.divide(wanted - up_to[start], width, out=np.ones(len(wanted)), where=width > 0.0)
    deciles = places[start] + np.clip(part, 0.0, 1.0) * (places[end] - places[start])
    jumps = _shares(days, deciles, "right") > _shares(days, deciles, "left")
    return np.unique(np.concatenate((deciles, np.nextafter(deciles[jumps], -np.inf))))


def shares_up_to(days: Sequence[FeatureStatistics], places: Floats) -> Floats:
    """Share of the mixture of days at or below each place; of the shape of `places`."""
    return _shares(days, places, "right")


def _shares(
    days: Sequence[FeatureStatistics], places: Floats, side: Literal["left", "right"]
) -> Floats:
    """Share below each place (`left`), or at or below it (`right`)."""
    total = np.zeros(len(places))
    for day in days:
        known, below, up_to = _distribution(day)
        steps = np.column_stack((below, up_to)).ravel()
        share = np.interp(places, np.repeat(known, 2), steps, left=0.0, right=1.0)
        at = np.minimum(np.searchsorted(known, places), len(known) - 1)
        exact = known[at] == places
        share[exact] = (below if side == "left" else up_to)[at[exact]]
        total += day.count * share
    return total / sum(day.count for day in days)


def _distribution(day: FeatureStatistics) -> tuple[Floats, Floats, Floats]:
    """Return places, and the shares below and up to each; from place to place it grows evenly."""
    if day.frequencies is not None:
        known, counts = np.array(day.frequencies).T
        up_to = np.cumsum(counts) / day.count
        return known, np.append(0.0, up_to[:-1]), up_to
    quantiles = np.array(day.quantiles)
    known = np.unique(quantiles)
    below = SHARES[np.searchsorted(quantiles, known, "left")]
    return known, below, SHARES[np.searchsorted(quantiles, known, "right") - 1]
