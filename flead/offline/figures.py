"""How good predictions are: the figures of an experiment."""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import precision_recall_curve

from flead.features.rows import Floats, Integers

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one model says of rows, arrays of shape (rows,).

    `score` ranks the rows, `probability` is that of an anomaly, `predicted` the decision.
    """

    score: Floats
    probability: Floats
    predicted: Mask

    def select(self, rows: Mask | Integers) -> "Predictions":
        """Return those of some rows."""
        return Predictions(self.score[rows], self.probability[rows], self.predicted[rows])


class Figures(msgspec.Struct, frozen=True):
    """Figures of one model on some rows; those that are not defined on them are None.

    All but `agreement_with_zscore` are over the rows with a label, that one over the rows without:
    the share in which the model says the same as the z-score rule. It is no accuracy.
    """

    rows: int
    rows_labelled: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    log_loss: float | None
    agreement_with_zscore: float | None


def measure(predictions: Predictions, label: Floats, by_zscore: Mask) -> Figures:
    """Compare predictions with labels.

    Equal to scikit-learn's `accuracy_score`, `precision_recall_fscore_support(zero_division=0)`,
    `roc_auc_score` and `log_loss`, which take too long for each device of a large fleet. Precision,
    recall and F1 are None without an anomaly among the rows, the area under the ROC curve is
    without both classes.

    Parameters
    ----------
    label
        0 or 1, nan for a row without a label, of shape (rows,).
    by_zscore
        Whether the z-score rule calls each row anomalous, of shape (rows,).
    """
    labelled = ~np.isnan(label)
    of = predictions.select(labelled)
    truth = label[labelled] == 1.0
    anomalies = int(truth.sum())
    accuracy = precision = recall = f1 = log_loss = agreement = None
    if len(truth):
        accuracy = float((of.predicted == truth).mean())
        log_loss = _log_loss(of.probability, truth)
    if anomalies:
        found, hits = int(of.predicted.sum()), int((of.predicted & truth).sum())
        precision = hits / found if found else 0.0
        recall = hits / anomalies
        f1 = 2 * hits / (found + anomalies)
    if not labelled.all():
        same = predictions.predicted[~labelled] == by_zscore[~labelled]
        agreement = float(same.mean())
    return Figures(
        rows=len(label),
        rows_labelled=len(truth),
        accuracy=accuracy,
        precision=precision,
        recall=recall,
        f1=f1,
        roc_auc=_roc_auc(of.score, truth),
        log_loss=log_loss,
        agreement_with_zscore=agreement,
    )


def _log_loss(probability: Floats, truth: Mask) -> float:
    """Mean log loss in nats; probabilities are kept the machine's precision off 0 and 1."""
    precision = np.finfo(np.float64).eps
    sure = np.clip(probability, precision, 1.0 - precision)
    return float(-np.log(np.where(truth, sure, 1.0 - sure)).mean())


def _roc_auc(score: Floats, truth: Mask) -> float | None:
    """Area under the ROC curve, from the ranks of the anomalies; None without both classes.

    Mann and Whitney (1947): the share of pairs of an anomaly and a normal row in which the anomaly
    has the higher score, ties counted half.
    """
    anomalies = int(truth.sum())
    normal = len(truth) - anomalies
    if not anomalies or not normal:
        return None
    ranks = rankdata(score)[truth].sum()
    return float((ranks - anomalies * (anomalies + 1) / 2) / anomalies / normal)


def best_threshold(score: Floats, truth: Floats) -> float | None:
    """Score from which on to call rows anomalous so that F1 is best, None without both classes.

    Half way to the next lower score, so that it does not hang on one row's last digits.
    """
    if not 0 < truth.sum() < len(truth):
        return None
    precision, recall, thresholds = precision_recall_curve(truth, score)
    both = precision + recall
    f1 = 2 * precision * recall / np.where(both > 0, both, 1.0)
    best = int(np.argmax(f1[:-1]))
    below = thresholds[best - 1] if best else thresholds[best] - 1.0
    return float((thresholds[best] + below) / 2)
