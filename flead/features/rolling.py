"""Inputs of each row: its values, and statistics of the device's rows before it.

The windows of consecutive rows overlap nearly wholly, so rows are taken in aligned blocks of
`BLOCK_ROWS`: the rows that all windows of a block share are summed up once, the few others once
for each window, and the two are merged. Blocks are aligned to the device's own row count: a row's
inputs are the same to the last bit however the stream was cut into batches.
"""

import math
from typing import Final

import numpy as np

from flead.compiling import compiled
from flead.contracts.schema import INPUT_KINDS, MIN_ROLLING_ROWS, ROLLING_ROWS, Z_CLIP
from flead.features.rows import Floats, Integers
from flead.features.spread import merge, standard_deviation

BLOCK_ROWS: Final = 10
EDGE_ROWS: Final = BLOCK_ROWS - 1
"""Rows of each window of a block that not all of its windows share."""

SHARED_ROWS: Final = ROLLING_ROWS - EDGE_ROWS
RING_ROWS: Final = ROLLING_ROWS + BLOCK_ROWS
"""Rows of a device that are kept: row n is at n modulo this."""

_KINDS: Final = len(INPUT_KINDS)


def empty_history(devices: int, features: int) -> tuple[Floats, Floats]:
    """Return the `history` and `shared` of devices that have had no row; see `roll`."""
    return np.full((devices, features, RING_ROWS), np.nan), np.zeros((devices, features, 3))


def roll(
    history: Floats, shared: Floats, seen: Integers, device: Integers, values: Floats
) -> Floats:
    """Make the inputs of new rows of many devices, and remember the rows.

    Parameters
    ----------
    history
        Last rows of each device, row n at n modulo `RING_ROWS`, nan where there was none or a value
        was missing; of shape (devices, features, RING_ROWS). Changed.
    shared
        Count, mean and squared deviations of the rows that all windows of a device's block share,
        of shape (devices, features, 3). Changed.
    seen
        Rows that each device has had, of shape (devices,). Changed.
    device
        Device of each new row, an index in the arrays above, of shape (rows,); those of one device
        in its order.
    values
        New rows, nan where missing, of shape (rows, features).

    Returns
    -------
    numpy.ndarray
        Inputs in input order (see `flead.contracts.schema.input_names`), of shape (rows, inputs):
        value and z-score are nan where the value is missing, mean and standard deviation where none
        of the rows before has one. The z-score is 0 below `MIN_ROLLING_ROWS` such rows or at zero
        spread, and clipped to ±`Z_CLIP`; the deviation is that of the population, by two passes.
    """
    rows, features = values.shape
    inputs = np.empty((rows, features, _KINDS))
    _roll(history, shared, seen, device, values, inputs)
    return inputs.reshape(rows, features * _KINDS)


@compiled
def _roll(
    history: Floats,
    shared: Floats,
    seen: Integers,
    device: Integers,
    values: Floats,
    inputs: Floats,
) -> None:
    for row in range(len(device)):
        number = device[row]
        count = seen[number]
        within = count % BLOCK_ROWS
        block = count - within
        for feature in range(values.shape[1]):
            ring = history[number, feature]
            common = shared[number, feature]
            if within == 0:
                _sum_up(ring, block - SHARED_ROWS, common)
            value = values[row, feature]
            _describe(ring, block, within, common, value, inputs[row, feature])
            ring[count % RING_ROWS] = value
        seen[number] = count + 1


@compiled
def refresh(history: Floats, shared: Floats, seen: Integers) -> None:
    """Write `shared` of all devices anew from their history; arrays as in `roll`."""
    for device in range(len(seen)):
        block = seen[device] - seen[device] % BLOCK_ROWS
        for feature in range(history.shape[1]):
            _sum_up(history[device, feature], block - SHARED_ROWS, shared[device, feature])


@compiled
def _sum_up(ring: Floats, first: int, out: Floats) -> None:
    """Write the spread of `SHARED_ROWS` rows from row `first` on, which may be negative."""
    rows, total = 0.0, 0.0
    place = (first + RING_ROWS) % RING_ROWS
    for _ in range(SHARED_ROWS):
        value = ring[place]
        if not math.isnan(value):
            rows += 1.0
            total += value
        place = place + 1 if place + 1 < RING_ROWS else 0
    mean = total / max(rows, 1.0)
    m2 = 0.0
    place = (first + RING_ROWS) % RING_ROWS
    for _ in range(SHARED_ROWS):
        value = ring[place]
        if not math.isnan(value):
            m2 += (value - mean) * (value - mean)
        place = place + 1 if place + 1 < RING_ROWS else 0
    out[0], out[1], out[2] = rows, mean, m2


@compiled
def _describe(
    ring: Floats, block: int, within: int, shared: Floats, value: float, out: Floats
) -> None:
    """Write the inputs of one value: itself, z-score, rolling mean and standard deviation.

    The window before the row is the rows that its block shares, `EDGE_ROWS - within` older ones and
    the `within` rows of the block that came before.
    """
    older = (block - ROLLING_ROWS + within + RING_ROWS) % RING_ROWS
    newer = block % RING_ROWS
    edge_rows, total = 0.0, 0.0
    for edge in range(EDGE_ROWS):
        step = edge - (EDGE_ROWS - within)
        each = ring[(older + edge) % RING_ROWS if step < 0 else newer + step]
        if not math.isnan(each):
            edge_rows += 1.0
            total += each
    edge_mean = total / max(edge_rows, 1.0)
    edge_m2 = 0.0
    for edge in range(EDGE_ROWS):
        step = edge - (EDGE_ROWS - within)
        each = ring[(older + edge) % RING_ROWS if step < 0 else newer + step]
        if not math.isnan(each):
            edge_m2 += (each - edge_mean) * (each - edge_mean)

    rows, mean, m2 = merge(shared[0], shared[1], shared[2], edge_rows, edge_mean, edge_m2)
    deviation = standard_deviation(rows, mean, m2)
    z_score = 0.0
    if math.isnan(value):
        z_score = math.nan
    elif rows >= MIN_ROLLING_ROWS and deviation > 0.0:
        z_score = min(max((value - mean) / deviation, -Z_CLIP), Z_CLIP)
    out[0], out[1] = value, z_score
    out[2] = mean if rows > 0 else math.nan
    out[3] = deviation if rows > 0 else math.nan
