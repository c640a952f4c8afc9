"""Metrics equal scikit-learn's, over labelled rows only."""

import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss

from flead.contracts.messages import Metrics
from flead.learning.metrics import SUMS, MetricSums, score
from flead.learning.sgd import logistic


def measure(logits, labels):
    """Sum up rows (rows, devices), one after the other."""
    sums = np.zeros((logits.shape[1], SUMS))
    for row, of_row in zip(logits, labels, strict=True):
        for device, (logit, label) in enumerate(zip(row, of_row, strict=True)):
            score(logit, label, sums[device])
    return MetricSums.of(sums)


def test_sums_equal_scikit_learn_on_the_labelled_rows_of_each_device():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (40, 3))
    labels = (generator.random((40, 3)) < 0.4).astype(np.float64)
    labels[generator.random((40, 3)) < 0.3] = math.nan

    sums = measure(logits, labels)

    for device in range(3):
        labelled = ~np.isnan(labels[:, device])
        truth = labels[labelled, device]
        sure = 1 / (1 + np.exp(-logits[labelled, device]))
        tn, fp, fn, tp = confusion_matrix(truth, sure >= 0.5).ravel()
        assert sums.rows[device] == labelled.sum()
        assert sums.log_loss_sum[device] == pytest.approx(
            log_loss(truth, sure, normalize=False), abs=1e-9
        )
        counts = (sums.tp[device], sums.fp[device], sums.tn[device], sums.fn[device])
        assert counts == (tp, fp, tn, fn)


def test_the_log_loss_of_sure_predictions_is_exact():
    sums = measure(np.array([[800.0, -800.0, 800.0]]), np.array([[0.0, 1.0, 1.0]]))

    assert sums.log_loss_sum.tolist() == [800.0, 800.0, 0.0]


def test_a_probability_of_one_half_counts_as_anomalous():
    sums = measure(np.zeros((1, 1)), np.ones((1, 1)))

    assert (sums.tp.item(), sums.fn.item()) == (1, 0)


def test_probabilities_do_not_overflow():
    assert [logistic(logit) for logit in (-1e4, 0.0, 1e4)] == [0.0, 0.5, 1.0]


def test_a_window_without_labels_has_no_metrics():
    logits = np.zeros((2, 2))
    labels = np.array([[math.nan, 1.0], [math.nan, 0.0]])

    unlabelled, labelled = measure(logits, labels).messages([7, 8])

    assert unlabelled is None
    assert labelled == Metrics(8, 2, pytest.approx(2 * math.log(2)), tp=1, fp=1, tn=0, fn=0)
