"""Sums over labelled rows that accuracy, loss and F1 are made of."""

import math
from typing import Final, NamedTuple

import numpy as np

from flead.compiling import compiled
from flead.contracts.messages import Metrics
from flead.features.rows import Floats, Integers
from flead.learning.sgd import logistic

THRESHOLD: Final = 0.5
"""Probability from which a row counts as predicted anomalous."""

SUMS: Final = 6
"""Length of the array that `score` adds to: rows, log loss, and tp, fp, tn, fn."""


class MetricSums(NamedTuple):
    """Sums of each device's window, arrays of shape (devices,)."""

    rows: Integers
    log_loss_sum: Floats
    tp: Integers
    fp: Integers
    tn: Integers
    fn: Integers

    @classmethod
    def of(cls, sums: Floats) -> "MetricSums":
        """Take what `score` has added up, of shape (devices, SUMS)."""
        rows, log_loss, *counts = sums.T
        return cls(rows.astype(np.int64), log_loss, *(each.astype(np.int64) for each in counts))

    def messages(self, versions: list[int]) -> list[Metrics | None]:
        """Describe each window as scored by its model version, None where no row had a label."""
        columns = zip(versions, *(column.tolist() for column in self), strict=True)
        return [Metrics(*sums) if sums[1] else None for sums in columns]


@compiled
def score(logit: float, label: float, sums: Floats) -> None:
    """Add a row that the model has not been trained on to the sums, of shape (SUMS,).

    The log loss is ln(1 + exp(z)) - y z, exact for sure predictions too. `label` is 0, 1 or nan; a
    row without a label counts nowhere.
    """
    if math.isnan(label):
        return
    sums[0] += 1.0
    sums[1] += max(logit, 0.0) + math.log1p(math.exp(-abs(logit))) - label * logit
    predicted = logistic(logit) >= THRESHOLD
    if label == 1.0:
        sums[2 if predicted else 5] += 1.0
    else:
        sums[3 if predicted else 4] += 1.0
