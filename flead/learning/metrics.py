"""Sums over labelled rows that accuracy, loss and F1 are made of."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import Metrics
from flead.features.rows import Floats, Integers

THRESHOLD: Final = 0.5
"""Probability from which a row counts as predicted anomalous."""


class MetricSums(NamedTuple):
    """Sums of each device's window, arrays of shape (devices,)."""

    rows: Integers
    log_loss_sum: Floats
    tp: Integers
    fp: Integers
    tn: Integers
    fn: Integers

    def messages(self, versions: list[int]) -> list[Metrics | None]:
        """Describe each window as scored by its model version, None where no row had a label."""
        columns = zip(versions, *(column.tolist() for column in self), strict=True)
        return [Metrics(*sums) if sums[1] else None for sums in columns]


def probability(logits: Floats) -> Floats:
    """Logistic function, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


def measure(logits: Floats, labels: Floats) -> MetricSums:
    """Score a model on rows that it has not been trained on.

    Parameters
    ----------
    logits
        Log-odds of each row, at least one, of shape (rows, devices).
    labels
        0 or 1, nan for a row without a label, which counts nowhere; of shape (rows, devices).

    Returns
    -------
    MetricSums
        The log loss is ln(1 + exp(z)) - y z, exact for sure predictions too.
    """
    labelled = ~np.isnan(labels)
    positive = labels == 1.0
    negative = labels == 0.0
    predicted = probability(logits) >= THRESHOLD
    loss = np.logaddexp(0.0, logits) - np.where(positive, logits, 0.0)

    def count(of: NDArray[np.bool_]) -> Integers:
        return np.asarray(of.sum(axis=0, dtype=np.int64))

    return MetricSums(
        rows=count(labelled),
        # One row after the other: the order of numpy's own sums depends on the shape.
        log_loss_sum=np.where(labelled, loss, 0.0).cumsum(axis=0)[-1],
        tp=count(predicted & positive),
        fp=count(predicted & negative),
        tn=count(~predicted & negative),
        fn=count(~predicted & positive),
    )
