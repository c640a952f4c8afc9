"""Figures of an evaluation by scikit-learn, None where there is nothing to measure."""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

CLASSES = [0, 1]


def decided_by_scikit_learn(said: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Return counts and rates of decisions."""
    tn, fp, fn, tp = confusion_matrix(labels, said, labels=CLASSES).ravel().tolist()
    rates = precision_recall_fscore_support(labels, said, average="binary", zero_division=0)
    precision, recall, f1, _ = rates if tp + fn else (None,) * 4
    return {
        "tp": tp, "fp": fp, "tn": tn, "fn": fn,
        "accuracy": accuracy_score(labels, said),
        "precision": precision, "recall": recall, "f1": f1,
    }  # fmt: skip


def by_scikit_learn(log_odds: np.ndarray, labels: np.ndarray) -> Mapping[str, float | None]:
    """Return the figures of a model, of which the log-odds lie within ±36."""
    sure = expit(log_odds)
    has_both = len(np.unique(labels)) == len(CLASSES)
    return decided_by_scikit_learn(sure >= 0.5, labels) | {
        "roc_auc": roc_auc_score(labels, log_odds) if has_both else None,
        # Both columns, for 1 - p loses the digits of a sure prediction.
        "log_loss": log_loss(labels, np.column_stack([expit(-log_odds), sure]), labels=CLASSES),
        "brier": brier_score_loss(labels, sure, labels=CLASSES),
    }
