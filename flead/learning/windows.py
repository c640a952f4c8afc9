"""Closed windows: score the models on their rows, train, and describe the result."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import LocalUpdate
from flead.features.rows import Floats, Integers
from flead.learning.fleet import PublishedModel
from flead.learning.metrics import MetricSums, measure
from flead.learning.moments import accumulate, standardize, standardizer
from flead.learning.pending import Columns, Indices
from flead.learning.sgd import train
from flead.learning.state import TrainerState
from flead.learning.updates import Occasion, Scores, WindowSummary, describe_updates
from flead.learning.zscore import is_anomalous


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """The updates, and for each row (longest, devices) what the personalized model made of it.

    `places` says where the rows were in the pool, `within` which entries are rows at all; `logits`
    are those of the personalized model before it was trained on the window.
    """

    updates: list[LocalUpdate]
    places: Indices
    within: NDArray[np.bool_]
    logits: Floats


def close_windows(
    state: TrainerState, devices: Integers, lengths: Integers, occasion: Occasion
) -> ClosedWindows:
    """Close a window of each device, made of its oldest rows, and remember what was learned.

    Parameters
    ----------
    state
        Changed: personalized models, moments, versions, deadlines and waiting rows.
    devices
        Numbers of the devices, each once.
    lengths
        Rows of each window, at least 1, longest first.
    occasion
        What the windows have in common.
    """
    places = state.pending.oldest(devices, lengths)
    rows = state.pending.rows(places)
    within = np.arange(len(places))[:, np.newaxis] < lengths
    inputs = np.where(within[..., np.newaxis], rows.inputs, np.nan)
    label = np.where(within, rows.label, np.nan)

    before = state.arrays.moments(devices)
    prior = None if occasion.current is None else occasion.current.prior
    standardized = standardize(inputs, standardizer(before, prior))
    start_personalized(state, devices, occasion.current)
    state.arrays.started[devices] = 1
    personalized = state.arrays.personalized[devices]
    logits = log_odds(standardized, personalized)

    scores = Scores(
        current=_score(occasion.current, standardized, label),
        candidate=_score(occasion.candidate, standardized, label),
        personalized=measure(logits, label),
    )
    client = None
    if not occasion.paused:
        targets = np.where(np.isnan(label), is_anomalous(inputs), label)
        client, trained = _train(personalized, standardized, targets, lengths, occasion)
        state.arrays.personalized[devices] = trained
    after = accumulate(before, inputs)
    state.arrays.remember(devices, after)
    state.arrays.model_version[devices] += 1
    state.pending.discard(devices, lengths)

    names = [state.devices[device] for device in devices.tolist()]
    summary = _summarize(state, devices, rows, within, lengths)
    updates = describe_updates(names, summary, scores, client, after, occasion)
    return ClosedWindows(list(updates), places, within, logits)


def start_personalized(
    state: TrainerState, devices: Integers, current: PublishedModel | None
) -> None:
    """Start the personalized models of devices that see their first global model."""
    if current is not None:
        unstarted = devices[state.arrays.started[devices] == 0]
        state.arrays.personalized[unstarted] = current.weights
        state.arrays.started[unstarted] = 1


def log_odds(standardized: Floats, weights: Floats) -> Floats:
    """Log-odds of rows (rows, devices, inputs) by one model or by one of each device."""
    # einsum sums in one order whatever the shape; BLAS would choose by it.
    indices = "ldj,j->ld" if weights.ndim == 1 else "ldj,dj->ld"
    return np.asarray(np.einsum(indices, standardized, weights[..., :-1]) + weights[..., -1])


def _score(model: PublishedModel | None, standardized: Floats, label: Floats) -> MetricSums | None:
    return None if model is None else measure(log_odds(standardized, model.weights), label)


def _summarize(
    state: TrainerState,
    devices: Integers,
    rows: Columns,
    within: NDArray[np.bool_],
    lengths: Integers,
) -> WindowSummary:
    """Figures of windows whose versions have been counted up."""
    of_device = np.arange(len(devices))
    first_time = rows.event_time[0]
    return WindowSummary(
        model_version=state.arrays.model_version[devices],
        partition=state.arrays.partition[devices],
        rows=lengths,
        rows_labelled=(within & ~np.isnan(rows.label)).sum(axis=0),
        first_offset=rows.offset[0],
        last_offset=rows.offset[lengths - 1, of_device],
        offset_sum=np.where(within, rows.offset, 0).sum(axis=0),
        window_start=np.where(within, rows.event_time, first_time).min(axis=0),
        window_end=np.where(within, rows.event_time, first_time).max(axis=0),
    )


def _train(
    personalized: Floats,
    standardized: Floats,
    targets: Floats,
    lengths: Integers,
    occasion: Occasion,
) -> tuple[Floats, Floats]:
    """Train the client models, from the global one on, and the personalized ones."""
    start = np.zeros_like(personalized)
    anchor = None
    if occasion.current is not None:
        anchor = occasion.current.weights
        start[:] = anchor
    settings = occasion.hyperparameters
    client, trained = train(
        np.stack((start, personalized)),
        standardized,
        targets,
        lengths,
        learning_rate=settings.learning_rate,
        alpha=settings.alpha,
        epochs=settings.local_epochs,
        pull=np.array([0.0, settings.ditto_pull]),
        anchor=anchor,
    )
    return client, trained
