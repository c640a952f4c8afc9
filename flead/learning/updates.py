"""Closed windows as messages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from flead.contracts.messages import (
    ClosedBy,
    Hyperparameters,
    LabelSource,
    LocalUpdate,
    Metrics,
    Moments,
    UpdateStatus,
)
from flead.features.rows import Floats, Integers
from flead.learning.adaptation import Adaptation
from flead.learning.fleet import PublishedModel
from flead.learning.metrics import MetricSums

TRAINED: Final = frozenset({UpdateStatus.TRAINING, UpdateStatus.DRIFTING})


@dataclass(frozen=True, slots=True)
class Occasion:
    """What windows that close together have in common; `current` is the promoted model.

    While `trials_run` somewhere in the fleet, no device adapts: what a cohort trains with stays as
    it is. `unchanged_since` is the revision that gave the fleet its hyperparameters.
    """

    now_ms: int
    closed_by: ClosedBy
    feature_schema: str
    current: PublishedModel | None
    candidate: PublishedModel | None
    paused: bool
    revision: int
    unchanged_since: int
    hyperparameters: Hyperparameters
    trial: str | None
    trials_run: bool
    adaptation: Adaptation


class WindowSummary(NamedTuple):
    """Figures of each window, arrays of shape (devices,); times are event times in milliseconds.

    `learning_rate` is the device's effective one; `resting` and `drifting` are 0 or 1.
    """

    model_version: Integers
    partition: Integers
    rows: Integers
    rows_labelled: Integers
    first_offset: Integers
    last_offset: Integers
    offset_sum: Integers
    window_start: Integers
    window_end: Integers
    learning_rate: Floats
    resting: Integers
    drifting: Integers


class Scores(NamedTuple):
    """Sums of each model over each window's rows; None for a model that does not exist."""

    current: MetricSums | None
    candidate: MetricSums | None
    personalized: MetricSums


def describe_updates(
    names: list[str],
    windows: WindowSummary,
    scores: Scores,
    client: Floats,
    moments: Floats,
    occasion: Occasion,
) -> Iterator[LocalUpdate]:
    """Describe windows as updates.

    Parameters
    ----------
    names
        The devices.
    windows, scores
        Figures and scores of each device's window.
    client
        Trained weights, the intercept last, of shape (devices, inputs + 1).
    moments
        Moments of each device with this window, of shape (devices, 3, inputs).
    occasion
        What the windows have in common.
    """
    columns = zip(
        names,
        zip(*(column.tolist() for column in windows), strict=True),
        _messages(scores.current, occasion.current, len(names)),
        _messages(scores.candidate, occasion.candidate, len(names)),
        scores.personalized.messages((windows.model_version - 1).tolist()),
        client.tolist(),
        moments.tolist(),
        strict=True,
    )
    for device, window, current, candidate, personalized, weights, spread in columns:
        version, partition, rows, labelled, first, last, total, start, end, *training = window
        learning_rate, resting, drifting = training
        status = _status(occasion, resting, drifting)
        model = weights if status in TRAINED else None
        yield LocalUpdate(
            device_id=device,
            model_version=version,
            base_version=0 if occasion.current is None else occasion.current.version,
            feature_schema=occasion.feature_schema,
            trained=model is not None,
            status=status,
            samples_processed=0 if model is None else rows,
            weights=None if model is None else model[:-1],
            intercept=None if model is None else model[-1],
            moments=Moments(*spread),
            global_metrics=current,
            candidate_metrics=candidate,
            personalized_metrics=personalized,
            accuracy=_accuracy(personalized),
            rows=rows,
            rows_labelled=labelled,
            rows_pseudo_labelled=rows - labelled,
            label_source=_label_source(rows, labelled),
            input_partition=partition,
            first_offset=first,
            last_offset=last,
            offset_sum=total,
            window_start=start,
            window_end=end,
            closed_by=occasion.closed_by,
            learning_rate=learning_rate,
            hyperparameters_revision=occasion.revision,
            trial=occasion.trial,
            timestamp=occasion.now_ms,
        )


def _status(occasion: Occasion, resting: int, drifting: int) -> UpdateStatus:
    if occasion.paused:
        return UpdateStatus.PAUSED
    if resting:
        return UpdateStatus.CONVERGED
    return UpdateStatus.DRIFTING if drifting else UpdateStatus.TRAINING


def _messages(
    sums: MetricSums | None, model: PublishedModel | None, windows: int
) -> list[Metrics | None]:
    if sums is None or model is None:
        return [None] * windows
    return sums.messages([model.version] * windows)


def _accuracy(metrics: Metrics | None) -> float | None:
    return None if metrics is None else (metrics.tp + metrics.tn) / metrics.rows


def _label_source(rows: int, labelled: int) -> LabelSource:
    if labelled == rows:
        return LabelSource.LABEL
    return LabelSource.MIXED if labelled else LabelSource.ZSCORE
