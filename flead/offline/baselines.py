"""What a model must beat: predictors that need no model."""

import math

import numpy as np
from numpy.typing import NDArray

from flead.features.rows import Floats


def base_rate_entropy(labels: Floats) -> float:
    """Mean log loss of the best constant probability, known in hindsight.

    `labels` are 0 and 1, of shape (rows,).
    """
    rate = float(labels.mean())
    return -sum(share * math.log(share) for share in (rate, 1.0 - rate) if share > 0)


def calibrated_rule_losses(flagged: NDArray[np.bool_], labels: Floats) -> Floats:
    """Log loss of each row by a yes-no rule with its two probabilities learned as rows come.

    The fairest form of a rule that has no probability: that of a row is the share of anomalies
    among the rows before it of which the rule said the same, by Laplace's rule of succession.

    Parameters
    ----------
    flagged
        What the rule said of each row, in the order of time, of shape (rows,).
    labels
        0 or 1, of shape (rows,).

    Returns
    -------
    Losses in nats, of shape (rows,).
    """
    losses = np.empty(len(labels))
    for said in (False, True):
        rows = flagged == said
        truth = labels[rows]
        anomalies_before = np.cumsum(truth) - truth
        sure = (1.0 + anomalies_before) / (2.0 + np.arange(len(truth)))
        losses[rows] = -np.log(np.where(truth == 1.0, sure, 1.0 - sure))
    return losses
