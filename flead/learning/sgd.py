"""Logistic regression: its log-odds, and its sequential stochastic gradient descent."""

import math

from flead.compiling import compiled
from flead.features.rows import Floats


@compiled
def log_odds(weights: Floats, row: Floats) -> float:
    """Log-odds of a row (inputs,) by a model (inputs + 1,), the intercept last."""
    total = weights[-1]
    for column in range(len(row)):
        total += weights[column] * row[column]
    return float(total)


@compiled
def logistic(logit: float) -> float:
    """Probability of log-odds, without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * logit))


@compiled
def train(
    weights: Floats,
    rows: Floats,
    targets: Floats,
    learning_rate: float,
    alpha: float,
    epochs: int,
    pull: float,
    anchor: Floats,
) -> None:
    """Train a model on rows, one after the other.

    Equals `SGDClassifier(loss="log_loss", penalty="l2", alpha=alpha, learning_rate="constant",
    eta0=learning_rate, shuffle=False).partial_fit`, called `epochs` times: the gradient is taken at
    the weights before the step, the penalty shrinks them by max(0, 1 - learning_rate * alpha) and
    spares the intercept, then the gradient is added (scikit-learn, `_sgd_fast.pyx`, `_plain_sgd`).

    Parameters
    ----------
    weights
        The model, the intercept last, of shape (inputs + 1,). Changed.
    rows
        Standardized rows, finite, of shape (rows, inputs).
    targets
        0 or 1, of shape (rows,).
    learning_rate, alpha, epochs
        Step size, L2 penalty, passes over the rows.
    pull
        Strength λ of the pull to the anchor, each step -learning_rate * λ * (weights - anchor):
        Ditto's proximal term (Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through
        Personalization", ICML, algorithm 1). The step is at most the whole way.
    anchor
        Model that the pull is to, of shape (inputs + 1,).

    Example
    -------
    >>> import numpy as np
    >>> model = np.zeros(2)
    >>> train(model, np.array([[1.0], [-1.0]]), np.array([1.0, 0.0]), 0.5, 0.0, 1, 0.0, np.zeros(2))
    >>> model.round(4).tolist()
    [0.5, 0.0]
    """
    inputs = rows.shape[1]
    share = min(1.0, pull * learning_rate)
    keep = max(0.0, max(0.0, 1.0 - learning_rate * alpha) - share)
    for _ in range(epochs):
        for number in range(rows.shape[0]):
            row = rows[number]
            step = learning_rate * (targets[number] - logistic(log_odds(weights, row)))
            for column in range(inputs):
                weights[column] = weights[column] * keep + step * row[column]
            weights[-1] = weights[-1] * (1.0 - share) + step
            if share > 0.0:
                for column in range(inputs + 1):
                    weights[column] += share * anchor[column]
