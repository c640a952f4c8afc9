"""Sequential stochastic gradient descent of logistic regression, many devices at once."""

import numpy as np
from numpy.typing import NDArray

from flead.features.rows import Floats, Integers


def train(
    weights: Floats,
    inputs: Floats,
    targets: Floats,
    lengths: Integers,
    *,
    learning_rate: float | Floats,
    alpha: float,
    epochs: int = 1,
    pull: float | Floats = 0.0,
    anchor: Floats | None = None,
) -> Floats:
    """Train the models of each device on its rows, one row after the other.

    Row i of all devices is one vector step. For each device this equals
    `SGDClassifier(loss="log_loss", penalty="l2", alpha=alpha, learning_rate="constant",
    eta0=learning_rate, shuffle=False).partial_fit`, called `epochs` times: the gradient is taken at
    the weights before the step, the penalty shrinks them by max(0, 1 - learning_rate * alpha) and
    spares the intercept, then the gradient is added (scikit-learn, `_sgd_fast.pyx`, `_plain_sgd`).

    Parameters
    ----------
    weights
        Models of each device, the intercept last, of shape (models, devices, inputs + 1).
    inputs
        Standardized rows, of shape (rows, devices, inputs); anything finite beyond a device's
        length.
    targets
        0 or 1, of shape (rows, devices).
    lengths
        Rows of each device, longest first, of shape (devices,).
    learning_rate
        Of all devices, or of each, of shape (devices,).
    alpha
        L2 penalty.
    epochs
        Passes over the rows.
    pull
        Of all models, or of each, of shape (models,): strength λ of the pull to the anchor, each
        step -learning_rate * λ * (weights - anchor). Ditto's proximal term (Li et al. 2021, "Ditto:
        Fair and Robust Federated Learning Through Personalization", ICML, algorithm 1). The step is
        at most the whole way.
    anchor
        Model that the pull is to, of shape (inputs + 1,).

    Returns
    -------
    Trained weights, a new array of the shape of `weights`.

    Example
    -------
    >>> rows = np.array([[[1.0]], [[-1.0]]])
    >>> train(np.zeros((1, 1, 2)), rows, np.array([[1.0], [0.0]]), np.array([2]),
    ...       learning_rate=0.5, alpha=0.0).round(4).tolist()
    [[[0.5, 0.0]]]
    """
    rate = np.broadcast_to(np.asarray(learning_rate, np.float64), lengths.shape)
    trained = weights.copy()
    keep = np.ones_like(weights)
    keep[..., :-1] = np.maximum(0.0, 1.0 - rate * alpha)[:, np.newaxis]
    drift = _pull_to(anchor, rate, pull, keep)
    # With expit(z) = (1 + tanh(z / 2)) / 2, which cannot overflow, the step along a row is
    # rate / 2 * (±1 - tanh(z / 2)).
    rows = np.concatenate((inputs, np.ones((*inputs.shape[:2], 1))), axis=-1)
    half_rows = 0.5 * rows
    rows *= (0.5 * rate)[:, np.newaxis]
    signs = 2.0 * targets - 1.0
    # Shorter windows end earlier: rows between two ends train the same devices.
    ends = np.unique(lengths)
    for _ in range(epochs):
        for first, last in zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True):
            count = int(np.count_nonzero(lengths > first))
            _descend(
                trained[:, :count],
                half_rows[first:last, :count],
                rows[first:last, :count],
                signs[first:last, :count],
                keep[:, :count],
                None if drift is None else drift[:, :count],
            )
    return trained


def _descend(
    weights: Floats,
    half_rows: Floats,
    rated_rows: Floats,
    signs: Floats,
    keep: Floats,
    drift: Floats | None,
) -> None:
    """Train models in place, one row after the other; few devices make each call's cost count."""
    step = np.empty_like(weights)
    error = np.empty(weights.shape[:2])
    along = error[..., np.newaxis]
    for half_row, rated_row, sign in zip(half_rows, rated_rows, signs, strict=True):
        np.vecdot(weights, half_row, out=error)
        np.tanh(error, out=error)
        np.subtract(sign, error, out=error)
        np.multiply(along, rated_row, out=step)
        weights *= keep
        weights += step
        if drift is not None:
            weights += drift


def _pull_to(
    anchor: Floats | None, rate: Floats, pull: float | Floats, keep: Floats
) -> NDArray[np.float64] | None:
    """Share of the anchor that each step adds; takes the same share from what `keep` keeps."""
    if anchor is None or not np.any(pull):
        return None
    strength = np.broadcast_to(np.asarray(pull, np.float64), keep.shape[:1])
    share = np.minimum(1.0, strength[:, np.newaxis] * rate)[..., np.newaxis]
    keep -= share
    np.maximum(keep, 0.0, out=keep)
    return share * anchor
