"""An experiment: the live system's learning on the rows of a data set, and what it is worth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from flead.contracts.messages import Hyperparameters
from flead.contracts.schema import INPUT_KINDS
from flead.datasets.reading import Dataset
from flead.features.rows import Floats
from flead.federation.strategy import make_strategy
from flead.learning.zscore import is_anomalous, z_scores
from flead.offline.deciding import EVEN_ODDS, decide, device_thresholds, majority, zscore
from flead.offline.figures import Predictions, measure
from flead.offline.learners import FrozenModels, Learners, RowLogits
from flead.offline.playing import (
    Mask,
    Order,
    Stream,
    effective_devices,
    natural_order,
    split_share,
)
from flead.offline.pooled import PooledModel, PooledStream
from flead.offline.results import DataSummary, Evaluation, ExperimentResult, PartResult
from flead.settings import Settings

Progress = Callable[[str, float], None]
"""Takes what is being done, and the share of it that is done."""

_POOLED_VALUES: Final = 40_000_000
"""Inputs that the centralised model of the holdout is fitted on at most: 320 MB."""


class ExperimentOptions(msgspec.Struct, frozen=True):
    """How an experiment is run.

    `order` is `natural_order` of the set when None; `round_updates` is `effective_devices` when
    None, an update of each device as in a fleet whose rounds take as long as its windows. `seed`
    draws the rows that the centralised model of the holdout is fitted on when there are too many:
    nothing else is random.
    """

    split: str = "temporal:0.7"
    order: Order | None = None
    strategy: str = "fedavg"
    strategy_options: dict[str, Any] = {}
    seed: int = 0
    hyperparameters: Hyperparameters = Hyperparameters()
    round_updates: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """The result, and the predictions of each model on all rows of the stream that it is of."""

    result: ExperimentResult
    stream: Stream
    prequential: dict[str, Predictions]
    holdout: dict[str, Predictions]


def run_experiment(dataset: Dataset, options: ExperimentOptions, progress: Progress) -> Experiment:
    """Learn from a data set as the live system does, and measure that against the baselines.

    `prequential` is the whole stream, each row scored before anything is trained on it, at even
    odds. `holdout` trains on the first part of each device only and scores the rest: frozen are the
    models, what they standardize by, and the decision threshold of each device, chosen on its first
    part; the rolling statistics of the inputs go on.

    Raises
    ------
    ValueError
        When there is no such split.
    msgspec.ValidationError
        When the strategy or an option of it is unknown, or the option out of range.
    """
    order = options.order or natural_order(dataset)
    share = split_share(options.split)
    stream = Stream.of(dataset, order)
    learners = _learners(stream, dataset.spec.features, options)
    return _Run(dataset, stream, stream.first_part(share), order, learners, options, progress).run()


def _learners(stream: Stream, features: list[str], options: ExperimentOptions) -> Learners:
    devices = effective_devices(stream.device)
    settings = msgspec.structs.replace(
        Settings.from_environment(), round_min_updates=options.round_updates or devices
    )
    return Learners(
        stream,
        features,
        options.hyperparameters,
        make_strategy(options.strategy, options.strategy_options),
        settings,
        # Half a window of each device: a new version soon reaches them all.
        batch_rows=max(1, options.hyperparameters.window_rows * devices // 2),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One experiment under way."""

    dataset: Dataset
    stream: Stream
    first: Mask
    order: Order
    learners: Learners
    options: ExperimentOptions
    progress: Progress

    def run(self) -> Experiment:
        """Learn four times, then go over the inputs for the rest, then measure."""
        learners, stream = self.learners, self.stream
        federated, alone = RowLogits(len(stream)), RowLogits(len(stream))
        loop = learners.federated(None, federated, self._doing("learning, prequential"))
        learners.alone(None, alone, self._doing("each device alone, prequential"))
        first = learners.federated(self.first, None, self._doing("learning, first part"))
        first_alone = learners.alone(self.first, None, self._doing("each device alone, first part"))
        frozen = {
            "global_model": learners.frozen_global(first),
            "local": learners.frozen_personalized(first.trainer, first),
            "local_only": learners.frozen_personalized(first_alone, None),
        }
        magnitude, flagged = self._z_scores()
        logits = {
            "global_model": federated.current,
            "local": federated.personalized,
            "local_only": alone.personalized,
            "centralised": self._pooled_stream(flagged),
        }
        even = np.full(len(stream.devices), EVEN_ODDS)
        prequential = {
            **{name: decide(each, stream.device, even) for name, each in logits.items()},
            "majority": majority(stream.label, None),
            "zscore": zscore(stream.label, magnitude, flagged, None),
        }
        holdout = {
            **self._decide_frozen(self._frozen_logits(frozen, flagged)),
            "majority": majority(stream.label, self.first),
            "zscore": zscore(stream.label, magnitude, flagged, self.first),
        }
        everywhere = np.ones(len(stream), np.bool_)
        result = ExperimentResult(
            data=_summary(self.dataset),
            split=self.options.split,
            order=self.order,
            strategy=self.options.strategy,
            strategy_options=msgspec.to_builtins(learners.strategy.options),
            seed=self.options.seed,
            hyperparameters=self.options.hyperparameters,
            round_updates=learners.settings.round_min_updates,
            versions=len(loop.models),
            updates_rejected={str(reason): n for reason, n in sorted(loop.rejected.items())},
            prequential=self._evaluate(prequential, flagged, everywhere, "measuring, prequential"),
            holdout=self._evaluate(holdout, flagged, ~self.first, "measuring, holdout"),
        )
        return Experiment(result, stream, prequential, holdout)

    def _doing(self, what: str) -> Callable[[float], None]:
        return lambda share: self.progress(what, share)

    def _z_scores(self) -> tuple[Floats, Mask]:
        """Largest |z| of each row, and whether the rule calls it anomalous."""
        magnitude, flagged = np.zeros(len(self.stream)), np.zeros(len(self.stream), np.bool_)
        for part, inputs in self.stream.inputs():
            magnitude[part] = np.nan_to_num(np.abs(z_scores(inputs))).max(axis=-1)
            flagged[part] = is_anomalous(inputs)
        return magnitude, flagged

    def _pooled_stream(self, flagged: Mask) -> Floats:
        """Log-odds of the centralised model that learns as rows come, a round's rows at a time."""
        stream, settings = self.stream, self.options.hyperparameters
        inputs_of_row = stream.values.shape[1] * len(INPUT_KINDS)
        model = PooledStream(len(stream.devices), inputs_of_row, settings, self.options.seed)
        target = _targets(stream, flagged)
        rows = settings.window_rows * self.learners.settings.round_min_updates
        logits = np.zeros(len(stream))
        for part, inputs in stream.inputs():
            for start in range(part.start, part.stop, rows):
                some = slice(start, min(start + rows, part.stop))
                logits[some] = model.test_then_train(
                    inputs[some.start - part.start : some.stop - part.start],
                    stream.device[some],
                    target[some],
                )
                self.progress("centralised, prequential", some.stop / len(stream))
        return logits

    def _frozen_logits(
        self, frozen: Mapping[str, FrozenModels], flagged: Mask
    ) -> dict[str, Floats]:
        """Log-odds of all rows by the frozen models and by a centralised one."""
        stream = self.stream
        what = "centralised, first part"
        self.progress(what, 0.0)
        chosen = self._drawn()
        inputs = np.concatenate([some[chosen[part]] for part, some in stream.inputs()])
        target = _targets(stream, flagged)[chosen]
        pooled = PooledModel(len(stream.devices), inputs, stream.device[chosen], target)
        del inputs
        self.progress(what, 1.0)
        logits = {name: np.empty(len(stream)) for name in (*frozen, "centralised")}
        for part, some in stream.inputs():
            for name, models in frozen.items():
                logits[name][part] = models.log_odds(some, stream.device[part])
            logits["centralised"][part] = pooled.log_odds(some, stream.device[part])
            self.progress("scoring with frozen models", part.stop / len(stream))
        return logits

    def _drawn(self) -> Mask:
        """Mark the rows of the first part that the centralised model is fitted on."""
        most = _POOLED_VALUES // (self.stream.values.shape[1] * len(INPUT_KINDS))
        places = np.flatnonzero(self.first)
        if len(places) > most:
            random = np.random.default_rng(self.options.seed)
            places = random.choice(places, most, replace=False)
        drawn = np.zeros(len(self.stream), np.bool_)
        drawn[places] = True
        return drawn

    def _decide_frozen(self, logits: Mapping[str, Floats]) -> dict[str, Predictions]:
        """Decide by thresholds chosen on the first part."""
        stream, first = self.stream, self.first
        label, device = stream.label[first], stream.device[first]
        decided = {}
        for name, each in logits.items():
            thresholds = device_thresholds(each[first], label, device, len(stream.devices))
            decided[name] = decide(each, stream.device, thresholds)
        return decided

    def _evaluate(
        self, predictions: Mapping[str, Predictions], flagged: Mask, rows: Mask, what: str
    ) -> PartResult:
        """Measure each model on some rows, for the fleet and for each device that has any."""
        stream = self.stream
        places = np.flatnonzero(rows)
        order = places[np.argsort(stream.device[places], kind="stable")]
        counts = np.bincount(stream.device[places], minlength=len(stream.devices))

        def figures(of: Any) -> dict[str, Any]:
            return {
                name: measure(each.select(of), stream.label[of], flagged[of])
                for name, each in predictions.items()
            }

        devices = {}
        for number, own in enumerate(np.split(order, np.cumsum(counts)[:-1])):
            if len(own):
                devices[stream.devices[number]] = Evaluation(**figures(own))
            self.progress(what, (number + 1) / len(stream.devices))
        return PartResult(**figures(places), devices=devices)


def _targets(stream: Stream, flagged: Mask) -> Floats:
    """Return what is trained on: the label, or what the z-score rule says without one."""
    return np.where(np.isnan(stream.label), flagged, stream.label)


def _summary(dataset: Dataset) -> DataSummary:
    labelled = dataset.label[~np.isnan(dataset.label)]
    return DataSummary(
        name=dataset.spec.name,
        rows=len(dataset),
        rows_labelled=len(labelled),
        anomaly_rate=float(labelled.mean()) if len(labelled) else None,
        devices=len(dataset.devices),
        features=dataset.spec.features,
        unreadable={str(reason): n for reason, n in dataset.unreadable.counts.items()},
    )
