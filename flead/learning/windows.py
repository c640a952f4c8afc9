"""Closed windows: score the models on their rows, train, and describe the result."""

import math
from dataclasses import dataclass

import numpy as np

from flead.compiling import compiled
from flead.contracts.messages import LocalUpdate
from flead.features.rows import Floats, Integers
from flead.learning import plateau, rate
from flead.learning.adaptation import Adaptation
from flead.learning.adopting import adopt
from flead.learning.drift import has_drifted
from flead.learning.metrics import SUMS, MetricSums, score
from flead.learning.moments import MEMORY_ROWS, accumulate, choose, standardize
from flead.learning.pending import Indices
from flead.learning.plateau import rests, take_loss
from flead.learning.rate import MULTIPLIER, follow_slope
from flead.learning.sgd import log_odds, logistic, train
from flead.learning.state import NO_DEADLINE, TrainerState
from flead.learning.updates import Occasion, Scores, WindowSummary, describe_updates
from flead.learning.zscore import is_far

CURRENT, CANDIDATE, PERSONALIZED = range(3)
"""The models that score a window, in the order of the arrays below."""


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """The updates of some devices' windows, and what each model made of their rows.

    `places` (longest, devices) says where the rows were in the pool, as far as `lengths` of them;
    `logits` (longest, devices, 3) are those of the current, candidate and personalized model before
    training, 0 where there is no such row or model.
    """

    updates: list[LocalUpdate]
    places: Indices
    lengths: Integers
    logits: Floats


def close_windows(
    state: TrainerState, devices: Integers, lengths: Integers, occasion: Occasion
) -> ClosedWindows:
    """Close a window of each device, made of its oldest rows, and remember what was learned.

    Parameters
    ----------
    state
        Changed: all but the history of the rows.
    devices
        Numbers of the devices, each once.
    lengths
        Rows of each window, at least 1.
    occasion
        What the windows have in common.
    """
    adopt(state, devices, occasion.current)
    _begin_revision(state, devices, occasion.unchanged_since)
    arrays, pending = state.arrays, state.pending
    arrays.started[devices] = 1
    places = pending.oldest(devices, lengths)
    current, candidate = occasion.current, occasion.candidate
    nothing = np.zeros(arrays.personalized.shape[1])
    published = np.stack(
        [nothing if model is None else model.weights for model in (current, candidate)]
    )
    prior = np.zeros(arrays.moments.shape[1:]) if current is None else current.prior
    settings = occasion.hyperparameters
    client = np.repeat(published[:1], len(devices), axis=0)
    sums = np.zeros((len(devices), 3, SUMS))
    logits = np.zeros((*places.shape, 3))
    training = np.zeros((len(devices), 3))
    figures = np.zeros((len(devices), 6), np.int64)
    _close(
        devices,
        places,
        lengths,
        pending.pool.inputs,
        pending.pool.label,
        published,
        0 if current is None else current.version,
        prior,
        not occasion.paused,
        not occasion.trials_run and not occasion.paused,
        occasion.trial is None,
        occasion.adaptation,
        settings.learning_rate,
        settings.alpha,
        settings.local_epochs,
        0.0 if current is None else settings.ditto_pull,
        arrays.moments,
        arrays.personalized,
        arrays.previous,
        arrays.rate,
        arrays.progress,
        arrays.drift,
        client,
        sums,
        logits,
        training,
    )
    _count(
        places, lengths, pending.pool.label, pending.pool.event_time, pending.pool.offset, figures
    )
    arrays.model_version[devices] += 1
    arrays.deadline_ms[devices] = NO_DEADLINE
    pending.discard(devices, lengths)

    names = [state.devices[device] for device in devices.tolist()]
    summary = WindowSummary(
        arrays.model_version[devices], arrays.partition[devices], lengths, *figures.T, *training.T
    )
    scores = Scores(
        current=None if current is None else MetricSums.of(sums[:, CURRENT]),
        candidate=None if candidate is None else MetricSums.of(sums[:, CANDIDATE]),
        personalized=MetricSums.of(sums[:, PERSONALIZED]),
    )
    updates = describe_updates(
        names,
        summary,
        scores,
        client,
        arrays.moments[devices],
        occasion,
    )
    return ClosedWindows(list(updates), places, lengths, logits)


def _begin_revision(state: TrainerState, devices: Integers, revision: int) -> None:
    """Start rate and progress of devices anew that have not met these hyperparameters yet."""
    arrays = state.arrays
    devices = devices[arrays.revision[devices] != revision]
    arrays.rate[devices] = rate.FRESH
    arrays.progress[devices, plateau.BEST :] = plateau.FRESH[plateau.BEST :]
    arrays.revision[devices] = revision


@compiled
def _close(
    devices: Integers,
    places: Indices,
    lengths: Integers,
    pool_inputs: Floats,
    pool_label: Floats,
    published: Floats,
    version: int,
    prior: Floats,
    trains: bool,
    adapts: bool,
    own_rate: bool,
    adaptation: Adaptation,
    learning_rate: float,
    alpha: float,
    epochs: int,
    pull: float,
    moments: Floats,
    personalized: Floats,
    previous: Floats,
    rates: Floats,
    progress: Floats,
    drift: Floats,
    client: Floats,
    sums: Floats,
    logits: Floats,
    training: Floats,
) -> None:
    """Score each window, let its device adapt, then train on it.

    A trial is tried as the fleet would begin with it: at its own rate, not at a multiple
    (`own_rate`). `moments` and what follows change; `training` (windows, 3) is written: effective
    rate, whether the device rests, whether it drifts.
    """
    longest, inputs = places.shape[0], pool_inputs.shape[1]
    raw = np.empty((longest, inputs))
    standardized = np.empty((longest, inputs))
    targets = np.empty(longest)
    scale = np.empty((2, inputs))
    before = np.empty(SUMS)
    for window in range(len(devices)):
        device, length = devices[window], lengths[window]
        slope, errors, steps = 0.0, 0.0, 0.0
        before[:] = 0.0
        for row in range(length):
            raw[row] = pool_inputs[places[row, window]]
        choose(moments[device], prior, scale)
        standardize(raw[:length], scale, standardized)
        for row in range(length):
            label = pool_label[places[row, window]]
            for number in range(3):
                model = published[number] if number < PERSONALIZED else personalized[device]
                logits[row, window, number] = log_odds(model, standardized[row])
                score(logits[row, window, number], label, sums[window, number])
            if np.isnan(label):
                label = 1.0 if is_far(raw[row]) else 0.0
            else:
                logit = logits[row, window, PERSONALIZED]
                earlier = log_odds(previous[device], standardized[row])
                score(earlier, label, before)
                error, step = logistic(logit) - label, logit - earlier
                slope += error * step
                errors += error * error
                steps += step * step
            targets[row] = label
        labelled = sums[window, PERSONALIZED, 0]
        is_better, drifted, resting = False, False, False
        patience = adaptation.patience
        if adapts and labelled > 0.0:
            own, fleets = sums[window, PERSONALIZED, 1], sums[window, CURRENT, 1]
            drifted = has_drifted(drift[device], own / labelled, adaptation.drift)
            is_better = fleets < own * (1.0 - patience.margin)
            take_loss(progress[device], own / labelled, (before[1] - own) / labelled, patience)
            follow_slope(rates[device], slope, math.sqrt(errors * steps), adaptation.rate)
        if adapts:
            resting = rests(progress[device], version, is_better, drifted, patience)
        rate_of_device = learning_rate * (rates[device, MULTIPLIER] if own_rate else 1.0)
        training[window, 0] = rate_of_device
        training[window, 1] = 1.0 if resting else 0.0
        training[window, 2] = 1.0 if drifted else 0.0
        previous[device] = personalized[device]
        if trains and not resting:
            rows, wanted = standardized[:length], targets[:length]
            anchor = published[CURRENT]
            train(client[window], rows, wanted, rate_of_device, alpha, epochs, 0.0, anchor)
            train(personalized[device], rows, wanted, rate_of_device, alpha, epochs, pull, anchor)
        accumulate(moments[device], raw[:length], MEMORY_ROWS)


@compiled
def _count(
    places: Indices,
    lengths: Integers,
    pool_label: Floats,
    pool_time: Integers,
    pool_offset: Integers,
    figures: Integers,
) -> None:
    """Write the figures of `WindowSummary` from `rows_labelled` on, of shape (windows, 6)."""
    for window in range(len(lengths)):
        first = places[0, window]
        labelled, total = 0, 0
        start, end = pool_time[first], pool_time[first]
        for row in range(lengths[window]):
            place = places[row, window]
            labelled += 0 if np.isnan(pool_label[place]) else 1
            total += pool_offset[place]
            start, end = min(start, pool_time[place]), max(end, pool_time[place])
        last = places[lengths[window] - 1, window]
        figures[window, 0] = labelled
        figures[window, 1], figures[window, 2] = pool_offset[first], pool_offset[last]
        figures[window, 3], figures[window, 4], figures[window, 5] = total, start, end
