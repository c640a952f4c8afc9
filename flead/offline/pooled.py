"""Centralised learning with scikit-learn: what the data of all devices in one place would give."""

import math

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression, SGDClassifier

from flead.contracts.messages import Hyperparameters
from flead.features.rows import Floats, Integers
from flead.learning.moments import accumulate, choose, standardize


class PooledData:
    """Inputs of all devices as one table: standardized as one, with a column that says each device.

    Parameters
    ----------
    devices
        How many devices there are.
    inputs
        Inputs of a row.
    """

    def __init__(self, devices: int, inputs: int) -> None:
        self._devices = devices
        self._moments = np.zeros((3, inputs))

    def learn(self, inputs: Floats) -> None:
        """Count rows (rows, inputs), nan where missing, into mean and deviation."""
        accumulate(self._moments, inputs, math.inf)

    def table(self, inputs: Floats, device: Integers) -> sparse.csr_matrix:
        """Lay rows out: their standardized inputs, 0 where missing, and their device."""
        scale = np.empty((2, inputs.shape[1]))
        choose(self._moments, np.zeros_like(self._moments), scale)
        standardized = np.empty_like(inputs)
        standardize(inputs, scale, standardized)
        which = (np.ones(len(device)), (np.arange(len(device)), device))
        of_device = sparse.csr_matrix(which, shape=(len(device), self._devices))
        return sparse.hstack((sparse.csr_matrix(standardized), of_device), format="csr")


class PooledStream:
    """Logistic regression by stochastic gradient descent on the rows of all devices as they come.

    scikit-learn's `SGDClassifier` with the devices' learning rate and penalty.
    """

    def __init__(self, devices: int, inputs: int, settings: Hyperparameters, seed: int) -> None:
        self._data = PooledData(devices, inputs)
        self._model = SGDClassifier(
            loss="log_loss",
            alpha=settings.alpha,
            learning_rate="constant",
            eta0=settings.learning_rate,
            shuffle=False,
            random_state=seed,
        )
        self._started = False

    def test_then_train(self, inputs: Floats, device: Integers, target: Floats) -> Floats:
        """Log-odds of rows, before the model is trained on them."""
        logits = np.zeros(len(target))
        if self._started:
            logits = self._model.decision_function(self._data.table(inputs, device))
        self._data.learn(inputs)
        self._model.partial_fit(self._data.table(inputs, device), target, classes=[0.0, 1.0])
        self._started = True
        return logits


class PooledModel:
    """scikit-learn's `LogisticRegression` on rows of all devices in one place."""

    def __init__(self, devices: int, inputs: Floats, device: Integers, target: Floats) -> None:
        self._data = PooledData(devices, inputs.shape[1])
        self._data.learn(inputs)
        self._model: LogisticRegression | None = None
        if 0 < target.sum() < len(target):
            self._model = LogisticRegression(max_iter=1000)
            self._model.fit(self._data.table(inputs, device), target)

    def log_odds(self, inputs: Floats, device: Integers) -> Floats:
        """Log-odds of rows; even when the model has not seen both classes."""
        if self._model is None:
            return np.zeros(len(device))
        return np.asarray(self._model.decision_function(self._data.table(inputs, device)))
