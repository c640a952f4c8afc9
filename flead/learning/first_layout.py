"""The first version of a trainer's binary state, so that its savepoints can still be restored."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flead.contracts.schema import INPUT_KINDS
from flead.features.rolling import RING_ROWS, refresh

HISTORY_ROWS: Final = 109

Layout = list[tuple[tuple[int, ...], np.dtype[Any]]]


def layout(devices: int, features: int, pending: int) -> Layout:
    """Shape and type of each array, in the order of the binary form.

    History, rows seen, moments (count, mean, squared deviations), personalized weights and whether
    they are set, model version, deadline, partition, waiting rows of each device; then inputs,
    label, event time and offset of the waiting rows.
    """
    inputs = features * len(INPUT_KINDS)
    whole, real = np.dtype("<i8"), np.dtype("<f8")
    return [
        ((devices, features, HISTORY_ROWS), real),
        ((devices,), whole),
        *(((devices, inputs), real) for _ in range(3)),
        ((devices, inputs + 1), real),
        *(((devices,), whole) for _ in range(5)),
        ((pending, inputs), real),
        ((pending,), real),
        *(((pending,), whole) for _ in range(2)),
    ]


def converted(arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the arrays of the devices as the next version has them.

    The history was one of the last rows, oldest first; it is a ring now, with the spread of the
    rows that the block shares beside it. When the newest row came is not known: 0.
    """
    history, seen, rows, mean, m2, personalized, started, version, deadline, partition = arrays
    devices, features = history.shape[:2]
    ring = np.full((devices, features, RING_ROWS), np.nan)
    shared = np.zeros((devices, features, 3))
    number = seen[:, np.newaxis] - HISTORY_ROWS + np.arange(HISTORY_ROWS)
    np.put_along_axis(ring, (number % RING_ROWS)[:, np.newaxis], history, axis=2)
    refresh(ring, shared, seen)
    moments = np.stack((rows, mean, m2), axis=1)
    last_row_ms = np.zeros(devices, np.int64)
    return [
        ring, shared, seen, moments, personalized, started, version, deadline, partition,
        last_row_ms,
    ]  # fmt: skip
