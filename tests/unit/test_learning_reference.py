"""The vectorised trainer equals the design read literally: one device, one row after the other."""

import math
import statistics

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, log_loss

from flead.contracts.messages import GlobalModel, Hyperparameters, Moments, TrainingControl
from flead.contracts.schema import feature_schema
from flead.features.rows import RowBatch
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer

FEATURES = ["power", "flow"]
SETTINGS = Hyperparameters(
    learning_rate=0.07, alpha=2e-3, window_rows=35, local_epochs=2, ditto_pull=0.0
)


class Device:
    """The reference: state of one device, in plain Python and scikit-learn."""

    def __init__(self):
        self.past, self.window, self.counted = [], [], []
        self.personalized = self.previous = None
        self.slope = self.size = 0.0
        self.counted_slopes, self.multiplier = 0, 1.0
        self.closed = []

    def take(self, values, label, current):
        """Take one row; close the window when it is full."""
        if self.personalized is None and current is not None:
            self.personalized = self.previous = [*current.weights, current.intercept]
        self.window.append((self.inputs(values), label))
        self.past.append(values)
        if len(self.window) == SETTINGS.window_rows:
            self.close(current)

    def inputs(self, values):
        inputs = []
        for feature, value in enumerate(values):
            past = [row[feature] for row in self.past[-100:] if not math.isnan(row[feature])]
            mean = statistics.fmean(past) if past else math.nan
            deviation = statistics.pstdev(past) if past else math.nan
            z_score = math.nan if math.isnan(value) else 0.0
            if not math.isnan(value) and len(past) >= 30 and deviation > 0:
                z_score = min(10.0, max(-10.0, (value - mean) / deviation))
            inputs += [value, z_score, mean, deviation]
        return inputs

    def standardized(self, row, current):
        out = []
        for number, value in enumerate(row):
            own = [each[number] for each in self.counted if not math.isnan(each[number])]
            prior = None
            if current is not None and current.standardizer.count[number] >= 2:
                moments = current.standardizer
                variance = moments.m2[number] / moments.count[number]
                prior = (moments.mean[number], math.sqrt(variance))
            if len(own) >= 30 or (prior is None and len(own) >= 2):
                center, spread = statistics.fmean(own), statistics.pstdev(own)
            else:
                center, spread = prior or (0.0, 0.0)
            neutral = math.isnan(value) or spread == 0
            out.append(0.0 if neutral else min(10.0, max(-10.0, (value - center) / spread)))
        return out

    def close(self, current):
        rows = np.array([self.standardized(row, current) for row, _ in self.window])
        labels = [label for _, label in self.window]
        targets = [
            label
            if label is not None
            else int(any(abs(z) > 2.5 for z in row[1::4] if not math.isnan(z)))
            for row, label in self.window
        ]
        zero = [0.0] * (rows.shape[1] + 1)
        start = zero if current is None else [*current.weights, current.intercept]
        personalized = self.personalized or zero
        self.adapt(personalized, self.previous or zero, rows, labels)
        rate = SETTINGS.learning_rate * self.multiplier
        self.closed.append(
            {
                "rate": rate,
                "client": trained(start, rows, targets, rate),
                "global": None if current is None else scored(start, rows, labels),
                "personalized": scored(personalized, rows, labels),
            }
        )
        self.previous = personalized
        self.personalized = trained(personalized, rows, targets, rate)
        self.counted += [row for row, _ in self.window]
        self.window = []

    def adapt(self, personalized, previous, rows, labels):
        """Move the multiplier as docs/adaptation.md says."""
        known = [number for number, label in enumerate(labels) if label is not None]
        z, before = (rows[known] @ each[:-1] + each[-1] for each in (personalized, previous))
        error = 1 / (1 + np.exp(-z)) - np.array([labels[number] for number in known], float)
        size = np.linalg.norm(error) * np.linalg.norm(z - before)
        if size == 0.0:
            return
        self.counted_slopes += 1
        count = self.counted_slopes
        self.slope += (error @ (z - before) - self.slope) / min(count, 3)
        self.size += (size - self.size) / min(count, 1000)
        share = self.slope / self.size
        if count >= 5:
            power = -0.2 * share if share > 0 else 0.2 * 0.1 * max(0.0, -share - 0.1)
            faded = self.multiplier**0.7 if self.multiplier > 1 else self.multiplier
            self.multiplier = min(8.0, max(0.125, faded * math.exp(power)))


def trained(weights, rows, targets, rate):
    model = SGDClassifier(
        loss="log_loss", penalty="l2", alpha=SETTINGS.alpha, learning_rate="constant",
        eta0=rate, shuffle=False,
    )  # fmt: skip
    model.partial_fit(rows[:1] * 0, [0], classes=[0, 1])
    model.coef_, model.intercept_ = np.array([weights[:-1]]), np.array(weights[-1:])
    for _ in range(SETTINGS.local_epochs):
        model.partial_fit(rows, targets)
    return [*model.coef_[0], model.intercept_[0]]


def scored(weights, rows, labels):
    known = [number for number, label in enumerate(labels) if label is not None]
    truth = [labels[number] for number in known]
    sure = 1 / (1 + np.exp(-(rows[known] @ weights[:-1] + weights[-1])))
    tn, fp, fn, tp = confusion_matrix(truth, sure >= 0.5, labels=[0, 1]).ravel()
    return len(truth), log_loss(truth, sure, normalize=False, labels=[0, 1]), tp, fp, tn, fn


def published(version, generator):
    inputs = 4 * len(FEATURES)
    return GlobalModel(
        version=version, parent_version=version - 1, restored_version=None, status="promoted",
        aggregation_round=version, feature_schema=feature_schema(FEATURES),
        feature_names=FEATURES, weights=generator.normal(0, 0.5, inputs).tolist(),
        intercept=-1.0, strategy="fedavg", num_devices=1, num_updates=1, total_samples=1,
        standardizer=Moments([90.0] * inputs, [2.0] * inputs, [300.0] * inputs),
        global_accuracy=None, global_loss=None, timestamp=0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_updates_equal_the_row_by_row_reference(seed):
    generator = np.random.default_rng(seed)
    rows, devices = 1400, 4
    index = generator.integers(0, devices, rows).astype(np.int32)
    labels = (generator.random(rows) < 0.2) * 1.0
    values = generator.normal(index[:, np.newaxis], 1.0, (rows, 2)) + 4.0 * labels[:, np.newaxis]
    values[generator.random(values.shape) < 0.08] = math.nan
    labels[generator.random(rows) < 0.3] = math.nan
    # The first global model comes when devices have trained without one, the second later.
    models = [None, published(1, generator), published(2, generator)]
    batches = np.split(np.arange(rows), [400, 900])

    trainer = LocalTrainer(FEATURES)
    references = [Device() for _ in range(devices)]
    updates = []
    for batch, current in zip(batches, models, strict=True):
        state = FleetState(current, None, TrainingControl(0, SETTINGS))
        everything = RowBatch(
            list("abcd"), index, np.zeros(rows, np.int32), np.arange(rows), np.arange(rows),
            labels, values,
        )  # fmt: skip
        updates += trainer.process(everything.select(batch), 0, state).updates
        for row in batch:
            label = None if math.isnan(labels[row]) else int(labels[row])
            references[index[row]].take(values[row].tolist(), label, current)

    compared = 0
    for name, reference in zip("abcd", references, strict=True):
        mine = [update for update in updates if update.device_id == name]
        for update, expected in zip(mine, reference.closed, strict=True):
            compared += 1
            made = [*update.weights, update.intercept]
            np.testing.assert_allclose(made, expected["client"], rtol=0, atol=1e-9)
            assert update.learning_rate == pytest.approx(expected["rate"], rel=1e-9)
            for metrics, figures in (
                (update.global_metrics, expected["global"]),
                (update.personalized_metrics, expected["personalized"]),
            ):
                if figures is None:
                    assert metrics is None
                    continue
                assert metrics.rows == figures[0]
                assert metrics.log_loss_sum == pytest.approx(figures[1], abs=1e-9)
                assert (metrics.tp, metrics.fp, metrics.tn, metrics.fn) == figures[2:]
        counted = np.array(reference.counted)
        np.testing.assert_array_equal(mine[-1].moments.count, (~np.isnan(counted)).sum(axis=0))
        np.testing.assert_allclose(mine[-1].moments.mean, np.nanmean(counted, axis=0), rtol=1e-12)
    assert compared == len(updates) > 30
    assert len({update.learning_rate for update in updates}) > 10
