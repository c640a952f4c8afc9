"""From log-odds and rules to decisions: thresholds that are chosen on the first part only."""

import numpy as np

from flead.features.rows import Floats, Integers
from flead.learning.scoring import probability
from flead.offline.baselines import calibrated_rule, running_rate
from flead.offline.figures import Predictions, best_threshold
from flead.offline.playing import Mask

EVEN_ODDS = 0.0
"""Log-odds from which the live system calls a row anomalous."""

EVEN_PROBABILITY = 0.5
"""The probability of these."""


def decide(logits: Floats, device: Integers, thresholds: Floats) -> Predictions:
    """Call a row anomalous from its device's threshold on; both are log-odds.

    `thresholds` is (devices,); ranks are by the log-odds as they are.
    """
    return Predictions(logits, probability(logits), logits >= thresholds[device])


def device_thresholds(logits: Floats, label: Floats, device: Integers, devices: int) -> Floats:
    """Choose each device's threshold for the best F1 on its own rows.

    That of the whole fleet for a device whose rows are not of both classes, and even odds when the
    fleet's are not.

    Parameters
    ----------
    logits, label, device
        Of the rows to choose on; label is 0, 1 or nan (left out).
    devices
        How many devices there are.

    Returns
    -------
    Thresholds in log-odds, of shape (devices,).
    """
    labelled = ~np.isnan(label)
    logits, label, device = logits[labelled], label[labelled], device[labelled]
    of_fleet = best_threshold(logits, label)
    thresholds = np.full(devices, EVEN_ODDS if of_fleet is None else of_fleet)
    order = np.argsort(device, kind="stable")
    ends = np.cumsum(np.bincount(device, minlength=devices))
    for number, rows in enumerate(np.split(order, ends[:-1])):
        own = best_threshold(logits[rows], label[rows])
        if own is not None:
            thresholds[number] = own
    return thresholds


def majority(label: Floats, first: Mask | None) -> Predictions:
    """Predict the more frequent class with its share.

    Of the rows before each row, by Laplace's rule of succession, or of the `first` ones.
    """
    sure = np.full(len(label), EVEN_PROBABILITY)
    labelled = ~np.isnan(label)
    if first is None:
        sure[labelled] = running_rate(label[labelled])
    else:
        sure[:] = _share_of_anomalies(label[first & labelled])
    return Predictions(sure, sure, sure > EVEN_PROBABILITY)


def zscore(label: Floats, z_score: Floats, flagged: Mask, first: Mask | None) -> Predictions:
    """Predict what the z-score rule says; rank by |z|.

    The rule's two probabilities are the shares of anomalies among the rows of which it says the
    same: those before each row, or the `first` ones.
    """
    sure = np.full(len(label), EVEN_PROBABILITY)
    labelled = ~np.isnan(label)
    if first is None:
        sure[labelled] = calibrated_rule(flagged[labelled], label[labelled])
    else:
        for said in (False, True):
            sure[flagged == said] = _share_of_anomalies(label[first & labelled & (flagged == said)])
    return Predictions(z_score, sure, flagged)


def _share_of_anomalies(label: Floats) -> float:
    """By Laplace's rule of succession, so that it is never 0 or 1."""
    return float((1.0 + label.sum()) / (2.0 + len(label)))
