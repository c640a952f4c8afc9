"""Devices adopt a new global model: what becomes of their personalized models."""

from flead.features.rows import Integers
from flead.learning.fleet import PublishedModel
from flead.learning.state import TrainerState


def adopt(state: TrainerState, devices: Integers, current: PublishedModel | None) -> None:
    """Let devices adopt the promoted model, those that have not yet.

    The first one starts a device's personalized model. Each later one leaves it alone and keeps a
    snapshot of it. One that restores an earlier version takes back what the devices learned beside
    the versions above that: their personalized models become the snapshot. There is one snapshot,
    of the newest adoption: after a rollback by several versions it is nearer than the first.

    Parameters
    ----------
    state
        Changed: personalized models, snapshots and adopted versions.
    devices
        Numbers of the devices.
    current
        The promoted model, None before the first.
    """
    if current is None:
        return
    arrays = state.arrays
    devices = devices[arrays.adopted[devices] < current.version]
    if not len(devices):
        return
    unstarted = devices[arrays.started[devices] == 0]
    arrays.personalized[unstarted] = current.weights
    arrays.previous[unstarted] = current.weights
    arrays.started[unstarted] = 1
    if current.restored_version is not None:
        misled = devices[arrays.adopted[devices] > current.restored_version]
        arrays.personalized[misled] = arrays.snapshot[misled]
        arrays.previous[misled] = arrays.snapshot[misled]
    arrays.snapshot[devices] = arrays.personalized[devices]
    arrays.adopted[devices] = current.version
