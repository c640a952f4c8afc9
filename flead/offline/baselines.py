"""What a model must beat: predictors that need no model."""

import math

import numpy as np
from numpy.typing import NDArray

from flead.features.rows import Floats

Mask = NDArray[np.bool_]


def base_rate_entropy(labels: Floats) -> float:
    """Mean log loss of the best constant probability, known in hindsight.

    `labels` are 0 and 1, of shape (rows,).
    """
    rate = float(labels.mean())
    return -sum(share * math.log(share) for share in (rate, 1.0 - rate) if share > 0)


def running_rate(labels: Floats) -> Floats:
    """Share of anomalies among the rows before each row, by Laplace's rule of succession.

    `labels` are 0 and 1, of shape (rows,).
    """
    before = np.cumsum(labels) - labels
    return np.asarray((1.0 + before) / (2.0 + np.arange(len(labels))))


def calibrated_rule(flagged: Mask, labels: Floats) -> Floats:
    """Probability of each row by a yes-no rule, learned as rows come.

    The fairest form of a rule that has no probability: that of a row is the share of anomalies
    among the rows before it of which the rule said the same, by Laplace's rule of succession.

    Parameters
    ----------
    flagged
        What the rule said of each row, in the order of time, of shape (rows,).
    labels
        0 or 1, of shape (rows,).
    """
    probability = np.empty(len(labels))
    for said in (False, True):
        rows = flagged == said
        probability[rows] = running_rate(labels[rows])
    return probability


def calibrated_rule_losses(flagged: Mask, labels: Floats) -> Floats:
    """Log loss of each row by `calibrated_rule`, in nats, of shape (rows,)."""
    sure = calibrated_rule(flagged, labels)
    return np.asarray(-np.log(np.where(labels == 1.0, sure, 1.0 - sure)))
