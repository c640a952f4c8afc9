"""Which hyperparameters a device trains with."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.features.rows import Integers


class Cohort(NamedTuple):
    """Devices that train with the same hyperparameters; `trial` is None outside a trial."""

    hyperparameters: Hyperparameters
    trial: str | None


def cohorts_of(control: TrainingControl) -> list[Cohort]:
    """List the cohorts of a control message: the fleet's own first, then one for each trial."""
    trials = [Cohort(trial.hyperparameters, trial.trial) for trial in control.trials]
    return [Cohort(control.hyperparameters, None), *trials]


def assign(control: TrainingControl, devices: Sequence[str]) -> Integers:
    """Find each device's cohort, an index in `cohorts_of(control)`.

    A device's draw in [0, 1) is a hash of its name and the revision, so that another revision tries
    on other devices; the trials take consecutive ranges from 0 on, each as wide as its fraction.
    """
    if not control.trials:
        return np.zeros(len(devices), np.int64)
    ends = np.cumsum([trial.fraction for trial in control.trials])
    draws = [draw(device, control.revision) for device in devices]
    trial = np.searchsorted(ends, draws, side="right")
    return np.where(trial < len(ends), trial + 1, 0)


def draw(device: str, revision: int) -> float:
    """Return a device's draw in [0, 1) for a revision, from a hash that mixes both."""
    digest = hashlib.blake2b(f"{revision}/{device}".encode(), digest_size=8).digest()
    # The upper 53 bits: a float holds them exactly and never rounds up to 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
