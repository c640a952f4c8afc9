"""One round: judge the updates, aggregate those that count, describe the model that comes out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from flead.contracts.messages import GlobalModel, Metrics, ModelStatus, Moments
from flead.features.rows import Floats
from flead.federation.admission import AdmissionContext, RejectReason, judge
from flead.federation.strategy import Strategy
from flead.federation.updates import Update, in_order


@dataclass(frozen=True, slots=True)
class JudgedUpdate(Generic[Update]):
    """An update with why it was rejected or, accepted, its share in the new model."""

    received: Update
    reason: RejectReason | None
    share: float | None


@dataclass(frozen=True, slots=True)
class RoundResult(Generic[Update]):
    """All updates in (partition, offset) order, and the new weights, None when none counted."""

    judged: list[JudgedUpdate[Update]]
    weights: Floats | None

    @property
    def accepted(self) -> list[Update]:
        """The updates that counted."""
        return [judged.received for judged in self.judged if judged.reason is None]


def run_round(
    updates: Iterable[Update], context: AdmissionContext, strategy: Strategy
) -> RoundResult[Update]:
    """Judge the updates of a round and aggregate the accepted ones.

    Pure: the same updates, bases and options give the same bytes. The parent is the base of
    `context.parent_version`, the zero model for 0.

    Raises
    ------
    KeyError
        When the parent is not among the bases.
    """
    ordered = in_order(updates)
    reasons = [judge(received.update, context) for received in ordered]
    accepted = [
        received for received, reason in zip(ordered, reasons, strict=True) if reason is None
    ]
    if not accepted:
        judged = [JudgedUpdate(*pair, None) for pair in zip(ordered, reasons, strict=True)]
        return RoundResult(judged, None)
    version = context.parent_version
    parent = context.bases[version] if version else np.zeros(context.dimension + 1)
    aggregate = strategy.aggregate(parent, accepted, context.bases)
    shares = iter(aggregate.shares.tolist())
    judged = [
        JudgedUpdate(received, reason, next(shares) if reason is None else None)
        for received, reason in zip(ordered, reasons, strict=True)
    ]
    return RoundResult(judged, aggregate.weights)


def describe_model(
    weights: Floats,
    accepted: Sequence[Update],
    standardizer: Moments,
    strategy: Strategy,
    *,
    version: int,
    parent_version: int,
    aggregation_round: int,
    feature_schema: str,
    features: Sequence[str],
    status: ModelStatus,
    timestamp: int,
) -> GlobalModel:
    """Describe the outcome of a round as a message.

    `global_accuracy` and `global_loss` are the parent's, over the labelled rows of the accepted
    updates that scored it.
    """
    accuracy, loss = mean_scores(
        score
        for received in accepted
        # A parent that this round has promoted was scored as the candidate.
        for score in (received.update.global_metrics, received.update.candidate_metrics)
        if score is not None and score.version == parent_version
    )
    return GlobalModel(
        version=version,
        parent_version=parent_version,
        restored_version=None,
        status=status,
        aggregation_round=aggregation_round,
        feature_schema=feature_schema,
        feature_names=list(features),
        weights=weights[:-1].tolist(),
        intercept=float(weights[-1]),
        standardizer=standardizer,
        strategy=strategy.name,
        num_devices=len({received.update.device_id for received in accepted}),
        num_updates=len(accepted),
        total_samples=sum(received.update.samples_processed for received in accepted),
        global_accuracy=accuracy,
        global_loss=loss,
        timestamp=timestamp,
    )


def mean_scores(scores: Iterable[Metrics]) -> tuple[float | None, float | None]:
    """Accuracy and mean log loss over the rows of all the sums, None without rows."""
    known = list(scores)
    rows = sum(score.rows for score in known)
    if not rows:
        return None, None
    hits = sum(score.tp + score.tn for score in known)
    return hits / rows, sum(score.log_loss_sum for score in known) / rows
