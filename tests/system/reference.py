"""An independent reading of the learning: one device, one row at a time, with scikit-learn.

It shares nothing with `flead.features` and `flead.learning`, so that what the running system made
can be checked against it.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, log_loss

from flead.contracts.messages import Hyperparameters
from flead.messaging.reading import Record


@dataclass
class DeviceHistory:
    """All valid rows of a device in offset order, with the inputs of each."""

    features: list[str]
    offsets: list[int] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    inputs: list[list[float]] = field(default_factory=list)

    def add(self, offset: int, message: dict[str, Any]) -> None:
        row = [
            math.nan if message["features"].get(name) is None else message["features"][name]
            for name in self.features
        ]
        self.inputs.append(inputs_of(row, self.values[-100:]))
        self.values.append(row)
        self.offsets.append(offset)
        self.labels.append(message["label"])


def inputs_of(row: list[float], history: list[list[float]]) -> list[float]:
    """Value, z-score, rolling mean and rolling deviation of each feature."""
    inputs: list[float] = []
    for feature, value in enumerate(row):
        past = [each[feature] for each in history if not math.isnan(each[feature])]
        mean = float(np.mean(past)) if past else math.nan
        deviation = float(np.std(past)) if past else math.nan
        z_score = math.nan
        if not math.isnan(value):
            usable = len(past) >= 30 and deviation > 0
            z_score = float(np.clip((value - mean) / deviation, -10, 10)) if usable else 0.0
        inputs += [value, z_score, mean, deviation]
    return inputs


def moments_of(inputs: list[list[float]], width: int) -> tuple[np.ndarray, ...]:
    """Count, mean and M2 of each input over rows, missing ones left out."""
    columns = np.array(inputs, dtype=float).reshape(-1, width)
    count = np.sum(~np.isnan(columns), axis=0).astype(float)
    present = [column[~np.isnan(column)] for column in columns.T]
    mean = np.array([column.mean() if column.size else 0.0 for column in present])
    m2 = np.array(
        [((column - column.mean()) ** 2).sum() if column.size else 0.0 for column in present]
    )
    return count, mean, m2


def standardized(
    inputs: list[list[float]], own: tuple[np.ndarray, ...], fleet: tuple[np.ndarray, ...] | None
) -> np.ndarray:
    """Scale inputs by the device's moments, the fleet's while the device has fewer than 30 rows."""
    out = np.zeros((len(inputs), len(inputs[0])))
    for row, values in enumerate(inputs):
        for column, value in enumerate(values):
            moments = [own] if own[0][column] >= 30 else [m for m in (fleet, own) if m is not None]
            usable = [m for m in moments if m[0][column] >= 2]
            if math.isnan(value) or not usable:
                continue
            count, mean, m2 = (part[column] for part in usable[0])
            deviation = math.sqrt(m2 / count)
            if deviation > 0:
                out[row, column] = np.clip((value - mean) / deviation, -10, 10)
    return out


def trained(
    weights: np.ndarray, intercept: float, x: np.ndarray, y: list[int], settings: Hyperparameters
) -> tuple[np.ndarray, float]:
    """Return what scikit-learn's SGD makes of a model."""
    model = SGDClassifier(
        loss="log_loss",
        penalty="l2",
        alpha=settings.alpha,
        learning_rate="constant",
        eta0=settings.learning_rate,
        shuffle=False,
    )
    model.partial_fit(np.zeros((1, x.shape[1])), [0], classes=[0, 1])
    model.coef_ = weights.reshape(1, -1).copy()
    model.intercept_ = np.array([intercept])
    for _ in range(settings.local_epochs):
        model.partial_fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def personalized_from(
    weights: np.ndarray, intercept: float, x: np.ndarray, y: list[int], settings: Hyperparameters,
    anchor: tuple[np.ndarray, float],
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Return what SGD with the pull to a global model makes of a personalized model.

    The gradient of log loss, L2 penalty (not of the intercept) and Ditto's proximal term, row by
    row (Li et al. 2021, ICML, algorithm 1).
    """
    model, target = np.array([*weights, intercept]), np.array([*anchor[0], anchor[1]])
    for row, label in list(zip(x, y, strict=True)) * settings.local_epochs:
        with_one = np.append(row, 1.0)
        error = 1 / (1 + np.exp(-model @ with_one)) - label
        penalty = settings.alpha * np.append(model[:-1], 0.0)
        pull = settings.ditto_pull * (model - target)
        model = model - settings.learning_rate * (error * with_one + penalty + pull)
    return model[:-1], float(model[-1])


def metrics_of(
    weights: np.ndarray, intercept: float, x: np.ndarray, y: list[int]
) -> dict[str, Any]:
    """Score a model on labelled rows by scikit-learn, as sums."""
    probability = 1 / (1 + np.exp(-(x @ weights + intercept)))
    tn, fp, fn, tp = confusion_matrix(y, probability >= 0.5, labels=[0, 1]).ravel()
    return {
        "rows": len(y),
        "log_loss_sum": log_loss(y, probability, labels=[0, 1], normalize=False),
        "tp": int(tp), "fp": int(fp), "tn": int(tn), "fn": int(fn),
    }  # fmt: skip


def histories(records: list[Record], features: list[str]) -> dict[str, DeviceHistory]:
    """Collect the records of the telemetry topic, in offset order, by device."""
    devices: dict[str, DeviceHistory] = {}
    for record in records:
        message = json.loads(record.value or b"")
        history = devices.setdefault(message["device_id"], DeviceHistory(features))
        history.add(record.offset, message)
    return devices
