"""Figures of an evaluation, from sums that may be added up over devices.

Fawcett (2006), "An introduction to ROC analysis", Pattern Recognition Letters 27, defines accuracy,
precision, recall and F1 by the four counts; Brier (1950), "Verification of forecasts expressed in
terms of probability", Monthly Weather Review 78, the mean squared error of probabilities.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from flead.features.rows import Floats, Integers

BINS: Final = 10
"""Bins of probability of equal width that calibration is counted in; 1 is in the last."""

Mask = NDArray[np.bool_]


class Counts(NamedTuple):
    """Labelled rows by what they are and what they were called."""

    tp: int
    fp: int
    tn: int
    fn: int


class Rates(msgspec.Struct, frozen=True):
    """Figures of decisions; those that are not defined on the rows are None."""

    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


def rates(counts: Counts) -> Rates:
    """Return the figures of four counts.

    Equal to scikit-learn's `accuracy_score` and `precision_recall_fscore_support` with
    `zero_division=0`, but None where scikit-learn says 0 only because there is nothing to find:
    accuracy without rows, the others without an anomaly among them.
    """
    tp, fp, tn, fn = counts
    rows, anomalies, found = tp + fp + tn + fn, tp + fn, tp + fp
    accuracy = (tp + tn) / rows if rows else None
    if not anomalies:
        return Rates(accuracy, None, None, None)
    precision = tp / found if found else 0.0
    return Rates(accuracy, precision, tp / anomalies, 2 * tp / (found + anomalies))


def baselines(by_zscore: Counts) -> Mapping[str, Mapping[str, int | float | None]]:
    """Return counts and figures of two rules on the same rows.

    Parameters
    ----------
    by_zscore
        What the z-score rule makes of the rows; to call every row normal needs no more.
    """
    tp, fp, tn, fn = by_zscore
    rules = {"always_normal": Counts(0, 0, tn + fp, tp + fn), "zscore": by_zscore}
    return {
        name: counts._asdict() | msgspec.structs.asdict(rates(counts))
        for name, counts in rules.items()
    }


def mean(total: float, rows: int) -> float | None:
    """Return the mean of a sum, None without rows."""
    return total / rows if rows else None


def bins_of(probability: Floats) -> Integers:
    """Return the bin of calibration of each probability, of shape (rows,)."""
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def roc_auc(score: Floats, positive: Mask, group: Integers, groups: int) -> Floats:
    """Area under the ROC curve of each group of rows, nan for one that lacks a class.

    Mann and Whitney (1947), "On a test of whether one of two random variables is stochastically
    larger than the other": the share of pairs of an anomaly and a normal row in which the anomaly
    has the higher score, ties counted half. Equal to scikit-learn's `roc_auc_score`.

    Parameters
    ----------
    score
        Ranks the rows, of shape (rows,).
    positive
        Whether each row is an anomaly, of shape (rows,).
    group
        Of each row, from 0 to `groups` - 1, of shape (rows,).

    Returns
    -------
    Areas of shape (groups,).
    """
    order = np.lexsort((score, group))
    score, positive, group = score[order], positive[order], group[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (score[1:] != score[:-1]) | (group[1:] != group[:-1])
    first = np.flatnonzero(is_first)
    after = np.append(first[1:], len(order))
    tie = np.cumsum(is_first) - 1
    begin = np.searchsorted(group, np.arange(groups))
    # Ranks from 1 on in each group; tied rows share the mean of theirs.
    rank = ((first + after + 1) / 2)[tie] - begin[group]
    anomalies = np.bincount(group[positive], minlength=groups)
    normal = np.bincount(group[~positive], minlength=groups)
    above = np.bincount(group[positive], rank[positive], groups)
    pairs = np.where((anomalies > 0) & (normal > 0), anomalies * normal, np.nan)
    return np.asarray((above - anomalies * (anomalies + 1) / 2) / pairs)
