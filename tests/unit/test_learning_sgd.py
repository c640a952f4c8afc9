"""Training equals scikit-learn's SGDClassifier."""

import doctest

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from flead.learning import sgd
from flead.learning.sgd import train

INPUTS = 7


def window(seed, length):
    generator = np.random.default_rng(seed)
    rows = np.clip(generator.normal(0, 3, (length, INPUTS)), -10, 10)
    targets = (generator.random(length) < 0.3).astype(np.float64)
    return generator.normal(0, 1, INPUTS + 1), rows, targets


def trained(weights, rows, targets, rate, alpha, epochs=1, pull=0.0, anchor=None):
    model = weights.copy()
    anchor = np.zeros_like(weights) if anchor is None else anchor
    train(model, rows, targets, rate, alpha, epochs, pull, anchor)
    return model


def by_scikit_learn(weights, rows, targets, learning_rate, alpha, epochs):
    model = SGDClassifier(
        loss="log_loss", penalty="l2", alpha=alpha, learning_rate="constant", eta0=learning_rate,
        shuffle=False,
    )  # fmt: skip
    model.partial_fit(np.zeros((1, rows.shape[1])), [0], classes=[0, 1])
    model.coef_, model.intercept_ = weights[np.newaxis, :-1].copy(), weights[-1:].copy()
    for _ in range(epochs):
        model.partial_fit(rows, targets)
    return np.append(model.coef_[0], model.intercept_)


@pytest.mark.parametrize("length", [50, 13, 1])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.3, 20.0])
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_a_window_equals_scikit_learn(rate, alpha, epochs, length):
    weights, rows, targets = window(3, length)

    made = trained(weights, rows, targets, rate, alpha, epochs)

    expected = by_scikit_learn(weights, rows, targets, rate, alpha, epochs)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-9)


def test_the_pull_adds_dittos_proximal_step():
    weights, rows, targets = window(6, 4)
    anchor = np.linspace(-1, 1, len(weights))
    rate, alpha, strength = 0.1, 1e-2, 0.7

    made = trained(weights, rows, targets, rate, alpha, pull=strength, anchor=anchor)

    expected = weights.copy()
    for row, target in zip(rows, targets, strict=True):
        with_one = np.append(row, 1.0)
        error = 1 / (1 + np.exp(-expected @ with_one)) - target
        penalty = alpha * np.append(expected[:-1], 0.0)
        expected -= rate * (error * with_one + penalty + strength * (expected - anchor))
    np.testing.assert_allclose(made, expected, atol=1e-12)


def test_a_pull_beyond_the_anchor_stops_there():
    anchor = np.full(INPUTS + 1, 0.25)
    nothing = np.zeros(INPUTS + 1)

    made = trained(nothing, np.zeros((1, INPUTS)), np.array([0.5]), 10.0, 0.0, 1, 1.0, anchor)

    np.testing.assert_allclose(made, anchor)


def test_the_example_in_the_documentation_is_right():
    assert doctest.testmod(sgd) == (0, 4)
