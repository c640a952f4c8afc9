"""The second version of a trainer's binary state, so that its savepoints can still be restored."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flead.contracts.schema import INPUT_KINDS
from flead.features.rolling import RING_ROWS
from flead.learning.first_layout import Layout

ARRAYS: Final = 10
"""Arrays of the devices: the ones that the next version begins with."""


def layout(devices: int, features: int, pending: int) -> Layout:
    """Shape and type of each array, in the order of the binary form.

    History, its shared spread, rows seen, moments, personalized weights and whether they are set,
    model version, deadline, partition, time of the last row, waiting rows of each device; then
    inputs, label, event time and offset of the waiting rows.
    """
    inputs = features * len(INPUT_KINDS)
    whole, real = np.dtype("<i8"), np.dtype("<f8")
    return [
        ((devices, features, RING_ROWS), real),
        ((devices, features, 3), real),
        ((devices,), whole),
        ((devices, 3, inputs), real),
        ((devices, inputs + 1), real),
        *(((devices,), whole) for _ in range(6)),
        ((pending, inputs), real),
        ((pending,), real),
        *(((pending,), whole) for _ in range(2)),
    ]


def converted(arrays: list[NDArray[Any]], fresh: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the arrays of the devices as the next version has them.

    `fresh` are those of as many new devices. Rate, progress, drift test and versions start anew;
    the personalized model is its own predecessor and snapshot.
    """
    personalized = arrays[4]
    further = [array.copy() for array in fresh[ARRAYS:]]
    further[0][:] = personalized
    further[1][:] = personalized
    return [*arrays, *further]
