"""Training equals scikit-learn's SGDClassifier, device by device."""

import doctest

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from flead.learning import sgd
from flead.learning.sgd import train


def windows(seed, lengths, inputs=7):
    generator = np.random.default_rng(seed)
    shape = (max(lengths), len(lengths))
    rows = np.clip(generator.normal(0, 3, (*shape, inputs)), -10, 10)
    targets = (generator.random(shape) < 0.3).astype(np.float64)
    weights = generator.normal(0, 1, (2, len(lengths), inputs + 1))
    return weights, rows, targets, np.array(lengths)


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


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_windows_of_different_lengths_equal_scikit_learn(rate, alpha, epochs):
    weights, rows, targets, lengths = windows(3, [50, 50, 31, 13, 13, 1])

    trained = train(weights, rows, targets, lengths, learning_rate=rate, alpha=alpha, epochs=epochs)

    for device, length in enumerate(lengths):
        for model in range(2):
            expected = by_scikit_learn(
                weights[model, device], rows[:length, device], targets[:length, device], rate,
                alpha, epochs,
            )  # fmt: skip
            np.testing.assert_allclose(trained[model, device], expected, rtol=0, atol=1e-9)


def test_each_device_may_have_its_own_learning_rate():
    weights, rows, targets, lengths = windows(4, [20, 20, 9])
    rates = np.array([0.5, 0.01, 0.1])

    trained = train(weights, rows, targets, lengths, learning_rate=rates, alpha=1e-3)

    for device, (rate, length) in enumerate(zip(rates, lengths, strict=True)):
        expected = by_scikit_learn(
            weights[0, device], rows[:length, device], targets[:length, device], rate, 1e-3, 1
        )
        np.testing.assert_allclose(trained[0, device], expected, rtol=0, atol=1e-9)


def test_a_device_trains_alike_to_the_bit_alone_and_among_others():
    weights, rows, targets, lengths = windows(5, [50, 40, 40, 3])
    settings = {"learning_rate": 0.1, "alpha": 1e-3, "epochs": 2}

    together = train(weights, rows, targets, lengths, **settings)

    for device in range(len(lengths)):
        one = slice(device, device + 1)
        rows_of_it = slice(0, lengths[device])
        alone = train(
            weights[:, one], rows[rows_of_it, one], targets[rows_of_it, one], lengths[one],
            **settings,
        )  # fmt: skip
        np.testing.assert_array_equal(together[:, one], alone)


def test_the_pull_adds_dittos_proximal_step_for_the_models_that_have_it():
    weights, rows, targets, lengths = windows(6, [4, 2])
    anchor = np.linspace(-1, 1, weights.shape[-1])
    rate, alpha, strength = 0.1, 1e-2, 0.7

    trained = train(
        weights, rows, targets, lengths, learning_rate=rate, alpha=alpha,
        pull=np.array([0.0, strength]), anchor=anchor,
    )  # fmt: skip

    for device, length in enumerate(lengths):
        expected = weights[1, device].copy()
        for row, target in zip(rows[:length, device], targets[:length, device], strict=True):
            with_one = np.append(row, 1.0)
            error = 1 / (1 + np.exp(-expected @ with_one)) - target
            penalty = alpha * np.append(expected[:-1], 0.0)
            gradient = error * with_one + penalty + strength * (expected - anchor)
            expected = expected - rate * gradient
        np.testing.assert_allclose(trained[1, device], expected, atol=1e-12)
        plain = train(weights, rows, targets, lengths, learning_rate=rate, alpha=alpha)
        np.testing.assert_array_equal(trained[0], plain[0])


def test_a_pull_beyond_the_anchor_stops_there():
    weights, rows, targets, lengths = windows(7, [1])
    anchor = np.full(weights.shape[-1], 0.25)

    trained = train(
        np.zeros_like(weights), np.zeros_like(rows), np.full_like(targets, 0.5), lengths,
        learning_rate=10.0, alpha=0.0, pull=1.0, anchor=anchor,
    )  # fmt: skip

    np.testing.assert_allclose(trained, np.broadcast_to(anchor, trained.shape))


def test_the_weights_that_were_given_stay_as_they_are():
    weights, rows, targets, lengths = windows(8, [5])
    before = weights.copy()

    train(weights, rows, targets, lengths, learning_rate=0.1, alpha=0.1)

    np.testing.assert_array_equal(weights, before)


def test_the_example_in_the_documentation_is_right():
    assert doctest.testmod(sgd) == (0, 2)
