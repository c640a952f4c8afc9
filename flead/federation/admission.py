"""Which updates count. Nothing that a device sends is trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from flead.contracts.messages import LabelSource, LocalUpdate, Metrics
from flead.features.rows import Floats
from flead.federation.updates import change_of

MAX_WINDOW_ROWS: Final = 10_000
"""Rows of the longest window that can be asked for: more would outweigh the fleet by a lie."""

MAX_ROW_LOSS: Final = 1e6
"""Nats that a row can plausibly cost: its logit, of inputs that are clipped. Sums stay finite."""


class RejectReason(StrEnum):
    """Why an update is stored but not averaged; the first that applies, in this order."""

    UNKNOWN_SCHEMA = "unknown_schema"
    NOT_TRAINED = "not_trained"
    TRIAL = "trial"
    DIMENSION = "dimension"
    NOT_FINITE = "not_finite"
    IMPLAUSIBLE = "implausible"
    ROLLED_BACK_BASE = "rolled_back_base"
    UNKNOWN_BASE = "unknown_base"
    STALE_BASE = "stale_base"
    NORM = "norm"


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """What updates are judged against.

    Parameters
    ----------
    feature_schema
        Of the models that are aggregated.
    dimension
        Inputs of a model.
    parent_version
        Global model that the round continues, 0 for none.
    bases
        Weights of the promoted versions of this schema, the intercept last: at least the newest
        `max_staleness` + 1 up to the parent, if there are so many. Version 0, the zero model, need
        not be there.
    rolled_back
        Versions that were taken back.
    max_staleness
        Versions among `bases` by which an update's base may be behind the parent.
    max_update_norm
        Largest Euclidean norm of the change of weights and intercept.
    """

    feature_schema: str
    dimension: int
    parent_version: int
    bases: Mapping[int, Floats]
    max_staleness: int
    max_update_norm: float
    rolled_back: frozenset[int] = field(default_factory=frozenset)


def judge(update: LocalUpdate, context: AdmissionContext) -> RejectReason | None:
    """Return why an update must not be averaged, None when it may be."""
    return (
        _judge_kind(update, context)
        or _judge_numbers(update, context)
        or _judge_base(update, context)
        or _judge_norm(update, context)
    )


def _judge_kind(update: LocalUpdate, context: AdmissionContext) -> RejectReason | None:
    if update.feature_schema != context.feature_schema:
        return RejectReason.UNKNOWN_SCHEMA
    if not update.trained:
        # Its scores count where models are compared.
        return RejectReason.NOT_TRAINED if _is_plausible(update) else RejectReason.IMPLAUSIBLE
    return None if update.trial is None else RejectReason.TRIAL


def _judge_numbers(update: LocalUpdate, context: AdmissionContext) -> RejectReason | None:
    if update.weights is None or update.intercept is None:
        return RejectReason.IMPLAUSIBLE
    moments = update.moments
    arrays = (update.weights, moments.count, moments.mean, moments.m2)
    if any(len(array) != context.dimension for array in arrays):
        return RejectReason.DIMENSION
    numbers = np.array([*arrays, [update.intercept] * context.dimension])
    if not np.isfinite(numbers).all():
        return RejectReason.NOT_FINITE
    if min(moments.count) < 0 or min(moments.m2) < 0 or not _is_plausible(update):
        return RejectReason.IMPLAUSIBLE
    return None


def _is_plausible(update: LocalUpdate) -> bool:
    """Whether the figures of a window agree with each other."""
    rows, labelled = update.rows, update.rows_labelled
    source = {rows: LabelSource.LABEL, 0: LabelSource.ZSCORE}.get(labelled, LabelSource.MIXED)
    return (
        0 < rows <= MAX_WINDOW_ROWS
        and update.samples_processed == (rows if update.trained else 0)
        and 0 <= labelled <= rows
        and update.rows_pseudo_labelled == rows - labelled
        and update.label_source == source
        and _fits_offsets(update)
        and 0 <= update.window_start <= update.window_end
        and _agree(update.global_metrics, labelled, update.base_version)
        and _agree(update.candidate_metrics, labelled, None)
        and _agree(update.personalized_metrics, labelled, update.model_version - 1)
    )


def _fits_offsets(update: LocalUpdate) -> bool:
    """Whether as many distinct offsets from first to last can have the sum."""
    first, last, others = update.first_offset, update.last_offset, update.rows - 1
    steps = others * (others - 1) // 2
    lowest, highest = first * others + steps + last, first + last * others - steps
    return 0 <= first <= last and lowest <= update.offset_sum <= highest


def _agree(metrics: Metrics | None, labelled: int, version: int | None) -> bool:
    """Whether the sums are of the labelled rows and of the version that must have been scored."""
    if metrics is None:
        return True
    counts = (metrics.tp, metrics.fp, metrics.tn, metrics.fn)
    return (
        version in {None, metrics.version}
        and min(counts) >= 0
        and 0 < sum(counts) == metrics.rows == labelled
        # False for nan too
        and 0 <= metrics.log_loss_sum <= MAX_ROW_LOSS * metrics.rows
    )


def _judge_base(update: LocalUpdate, context: AdmissionContext) -> RejectReason | None:
    base = update.base_version
    if base in context.rolled_back:
        return RejectReason.ROLLED_BACK_BASE
    if base < 0 or base > context.parent_version:
        return RejectReason.UNKNOWN_BASE
    newer = sum(base < version <= context.parent_version for version in context.bases)
    if newer > context.max_staleness:
        return RejectReason.STALE_BASE
    return None if base == 0 or base in context.bases else RejectReason.UNKNOWN_BASE


def _judge_norm(update: LocalUpdate, context: AdmissionContext) -> RejectReason | None:
    norm = np.linalg.norm(change_of(update, context.bases))
    return RejectReason.NORM if norm > context.max_update_norm else None
