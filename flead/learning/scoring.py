"""Rows by models that are not trained on them: log-odds, and the probabilities of these."""

import numpy as np

from flead.compiling import compiled
from flead.features.rows import Floats, Integers
from flead.learning.moments import choose, standardize
from flead.learning.sgd import log_odds


def score_rows(
    inputs: Floats, device: Integers, moments: Floats, prior: Floats, models: Floats
) -> Floats:
    """Log-odds of rows by the models and moments of their devices as they are.

    Parameters
    ----------
    inputs
        Rows, nan where missing, of shape (rows, inputs).
    device
        Device of each row, an index in the arrays below, of shape (rows,).
    moments, prior
        Of the devices, of shape (devices, 3, inputs), and of the fleet, of shape (3, inputs).
    models
        Of the devices, the intercept last, of shape (devices, inputs + 1).

    Returns
    -------
    Log-odds of shape (rows,).
    """
    logits = np.empty(len(device))
    _score(inputs, device, moments, prior, models, logits)
    return logits


def probability(logits: Floats) -> Floats:
    """Logistic function, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


@compiled
def _score(
    inputs: Floats,
    device: Integers,
    moments: Floats,
    prior: Floats,
    models: Floats,
    logits: Floats,
) -> None:
    scale = np.empty((2, inputs.shape[1]))
    row = np.empty((1, inputs.shape[1]))
    for number in range(len(device)):
        choose(moments[device[number]], prior, scale)
        standardize(inputs[number : number + 1], scale, row)
        logits[number] = log_odds(models[device[number]], row[0])
