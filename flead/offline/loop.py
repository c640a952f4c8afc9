"""Devices and federation joined: rows in, global model versions out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flead.contracts.messages import (
    GlobalModel,
    LocalUpdate,
    ModelStatus,
    Moments,
    TrainingControl,
)
from flead.contracts.schema import feature_schema, input_names
from flead.features.rows import Floats, RowBatch
from flead.federation.admission import AdmissionContext, RejectReason
from flead.federation.round import describe_model, run_round
from flead.federation.standardizer import merge_moments
from flead.federation.strategy import Strategy
from flead.federation.updates import model_vector
from flead.learning.adaptation import CLOSED_LOOP, Adaptation
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer, Outcome, WindowObserver
from flead.settings import Settings


@dataclass(frozen=True, slots=True)
class OfflineUpdate:
    """An update at the place that it would have in a topic of one partition."""

    partition: int
    offset: int
    update: LocalUpdate


class OfflineLoop:
    """Trains devices on batches of rows and aggregates as soon as a round has its updates.

    Every aggregate is promoted at once and is what the next batch starts from. `models` holds all
    versions, `rejected` counts the updates that did not count.

    Parameters
    ----------
    features
        The feature list.
    control
        Hyperparameters and trials.
    strategy
        How updates are aggregated.
    settings
        `round_min_updates`, `max_updates_per_round` and the limits of admission count, times do
        not.
    observer
        Told of the windows as they close.
    adaptation
        How devices adapt by themselves.
    """

    def __init__(
        self,
        features: Sequence[str],
        control: TrainingControl,
        strategy: Strategy,
        settings: Settings,
        observer: WindowObserver | None = None,
        adaptation: Adaptation = CLOSED_LOOP,
    ) -> None:
        self.models: list[GlobalModel] = []
        self.rejected: Counter[RejectReason] = Counter()
        self.trainer = LocalTrainer(features, observer=observer, adaptation=adaptation)
        self._features = list(features)
        self._schema = feature_schema(features)
        self._inputs = len(input_names(features))
        self._control = control
        self._strategy = strategy
        self._settings = settings
        self._waiting: list[OfflineUpdate] = []
        self._received = 0
        self._newest_moments: dict[str, Moments] = {}
        self._bases: dict[int, Floats] = {}
        self._fleet = FleetState(None, None, control)

    def adopt(self, control: TrainingControl) -> None:
        """Let the devices train with other hyperparameters and trials from the next batch on."""
        self._control = control
        self._fleet = FleetState(self._fleet.global_model, None, control)

    def process(self, batch: RowBatch, now_ms: int) -> Outcome:
        """Take a batch of rows and close what is due; then run the rounds that are ready.

        Times are milliseconds of the same clock in all calls.
        """
        outcome = self.trainer.close_due(now_ms, self._fleet)
        outcome.extend(self.trainer.process(batch, now_ms, self._fleet))
        self._receive(outcome.updates)
        while len(self._waiting) >= self._settings.round_min_updates:
            self._run_round(now_ms)
        return outcome

    def finish(self, now_ms: int) -> Outcome:
        """Close all open windows and aggregate what is left."""
        outcome = self.trainer.flush(now_ms, self._fleet)
        self._receive(outcome.updates)
        while self._waiting:
            self._run_round(now_ms)
        return outcome

    def _receive(self, updates: list[LocalUpdate]) -> None:
        for update in updates:
            self._waiting.append(OfflineUpdate(0, self._received, update))
            self._received += 1

    def _run_round(self, now_ms: int) -> None:
        limit = self._settings.max_updates_per_round
        updates, self._waiting = self._waiting[:limit], self._waiting[limit:]
        parent_version = self.models[-1].version if self.models else 0
        context = AdmissionContext(
            feature_schema=self._schema,
            dimension=self._inputs,
            parent_version=parent_version,
            bases=self._bases,
            max_staleness=self._settings.max_staleness,
            max_update_norm=self._settings.max_update_norm,
        )
        result = run_round(updates, context, self._strategy)
        self.rejected.update(judged.reason for judged in result.judged if judged.reason)
        if result.weights is None:
            return
        for received in result.accepted:
            self._newest_moments[received.update.device_id] = received.update.moments
        newest = [self._newest_moments[device] for device in sorted(self._newest_moments)]
        version = parent_version + 1
        model = describe_model(
            result.weights,
            result.accepted,
            merge_moments(newest, self._inputs),
            self._strategy,
            version=version,
            parent_version=parent_version,
            aggregation_round=version,
            feature_schema=self._schema,
            features=self._features,
            status=ModelStatus.PROMOTED,
            timestamp=now_ms,
        )
        self.models.append(model)
        self._bases[version] = model_vector(model.weights, model.intercept)
        # Updates of older bases are too stale to count.
        self._bases.pop(version - self._settings.max_staleness - 1, None)
        self._fleet = FleetState(model, None, self._control)
