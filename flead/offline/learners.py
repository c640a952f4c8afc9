"""The live system's learning on a stream: with the federation, and each device alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.contracts.schema import INPUT_KINDS
from flead.features.rows import Floats, Integers, RowBatch
from flead.federation.strategy import Strategy
from flead.learning.fleet import FleetState, PublishedModel
from flead.learning.scoring import score_rows
from flead.learning.trainer import LocalTrainer, WindowObserver
from flead.learning.windows import CURRENT, PERSONALIZED, ClosedWindows
from flead.offline.loop import OfflineLoop
from flead.offline.playing import Mask, Stream
from flead.settings import Settings

Share = Callable[[float], None]
"""Takes the share of the work that is done."""

_NOW_MS = 0
"""Time stands still: windows close by count, and at the end of the stream."""


@dataclass(slots=True, eq=False)
class RowLogits:
    """Log-odds of each row of a stream as its window closed, before any training on it.

    An observer of a trainer. `current` is the global model's, 0 before the first one, and
    `personalized` the device's.
    """

    rows: int
    current: Floats = field(init=False)
    personalized: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.current, self.personalized = np.zeros(self.rows), np.zeros(self.rows)

    def __call__(self, closed: ClosedWindows, offsets: Integers) -> None:
        """Take what the models made of the rows of closed windows."""
        within = np.arange(len(offsets))[:, np.newaxis] < closed.lengths
        rows = offsets[within]
        self.current[rows] = closed.logits[..., CURRENT][within]
        self.personalized[rows] = closed.logits[..., PERSONALIZED][within]


class FrozenModels(NamedTuple):
    """Models of the devices of a stream as they are; the first axis of arrays is the device.

    `moments` (devices, 3, inputs) and `prior` (3, inputs) standardize, `weights` is
    (devices, inputs + 1).
    """

    moments: Floats
    prior: Floats
    weights: Floats

    def log_odds(self, inputs: Floats, device: Integers) -> Floats:
        """Log-odds of rows (rows, inputs)."""
        return score_rows(inputs, device, self.moments, self.prior, self.weights)


@dataclass(frozen=True, slots=True)
class Learners:
    """Learns from a stream, or a part of it, in batches of `batch_rows`."""

    stream: Stream
    features: list[str]
    hyperparameters: Hyperparameters
    strategy: Strategy
    settings: Settings
    batch_rows: int

    def federated(
        self, part: Mask | None, observer: WindowObserver | None, done: Share
    ) -> OfflineLoop:
        """Run devices and federation to the end of the rows."""
        loop = OfflineLoop(self.features, self._control, self.strategy, self.settings, observer)
        self._play(part, lambda batch: loop.process(batch, _NOW_MS), done)
        loop.finish(_NOW_MS)
        return loop

    def alone(
        self, part: Mask | None, observer: WindowObserver | None, done: Share
    ) -> LocalTrainer:
        """Run devices that never see a global model to the end of the rows."""
        trainer = LocalTrainer(self.features, observer=observer)
        fleet = FleetState(None, None, self._control)
        self._play(part, lambda batch: trainer.process(batch, _NOW_MS, fleet), done)
        trainer.flush(_NOW_MS, fleet)
        return trainer

    def frozen_personalized(self, trainer: LocalTrainer, loop: OfflineLoop | None) -> FrozenModels:
        """Take each device's model as it is, for a device without rows what it would start with."""
        current = self._newest(loop)
        models = FrozenModels(
            np.zeros((len(self.stream.devices), 3, self._inputs)),
            current.prior,
            np.tile(current.weights, (len(self.stream.devices), 1)),
        )
        names, moments, weights = trainer.personalized()
        number = {name: number for number, name in enumerate(self.stream.devices)}
        of_device = np.array([number[name] for name in names], np.int64)
        models.moments[of_device] = moments
        models.weights[of_device] = weights
        return models

    def frozen_global(self, loop: OfflineLoop) -> FrozenModels:
        """Take the newest global model, which each device standardizes for by its own moments."""
        own = self.frozen_personalized(loop.trainer, loop)
        weights = np.tile(self._newest(loop).weights, (len(self.stream.devices), 1))
        return own._replace(weights=weights)

    @property
    def _control(self) -> TrainingControl:
        return TrainingControl(0, self.hyperparameters)

    @property
    def _inputs(self) -> int:
        return len(self.features) * len(INPUT_KINDS)

    def _newest(self, loop: OfflineLoop | None) -> PublishedModel:
        """Return the newest global model, the zero model when there is none."""
        if loop is not None and loop.models:
            return PublishedModel.of(loop.models[-1])
        return PublishedModel(0, "", np.zeros(self._inputs + 1), np.zeros((3, self._inputs)))

    def _play(self, part: Mask | None, process: Callable[[RowBatch], object], done: Share) -> None:
        rows = len(self.stream) if part is None else int(part.sum())
        for number, batch in enumerate(self.stream.batches(self.batch_rows, part)):
            process(batch)
            if number % 50 == 0:
                done(number * self.batch_rows / rows)
        done(1.0)
