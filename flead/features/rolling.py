"""Inputs of each row: its values, and statistics of the device's rows before it.

The windows of consecutive rows overlap nearly wholly, so rows are taken in aligned blocks of
`BLOCK_ROWS`: the rows that all windows of a block share are summed up once, the few others once for
each window, and the two are merged. Blocks are aligned to the device's own row count: a row's inputs
are the same to the last bit however the stream was cut into batches.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flead.contracts.schema import INPUT_KINDS, MIN_ROLLING_ROWS, ROLLING_ROWS, Z_CLIP
from flead.features.rows import Floats, Integers
from flead.features.spread import Spread, merge, spread_along, standard_deviation

BLOCK_ROWS: Final = 10
EDGE_ROWS: Final = BLOCK_ROWS - 1
"""Rows of each window of a block that not all of its windows share."""

HISTORY_ROWS: Final = ROLLING_ROWS + EDGE_ROWS
"""Rows of a device to keep: a window of the block that the next row continues."""

_CHUNK_VALUES: Final = 1 << 16
"""Values in work at once: half a megabyte stays in a core's cache."""


class RolledRows(NamedTuple):
    """`inputs` of each row (rows, inputs) and each device's `history` after them."""

    inputs: Floats
    history: Floats


def empty_history(devices: int, features: int) -> Floats:
    """History of devices that have had no row, of shape (devices, HISTORY_ROWS, features)."""
    return np.full((devices, HISTORY_ROWS, features), np.nan)


def roll(history: Floats, seen: Integers, values: Floats, counts: Integers) -> RolledRows:
    """Make the inputs of new rows of many devices.

    Parameters
    ----------
    history
        Last rows of each device before the new ones, oldest first, nan where there was none or a
        value was missing; of shape (devices, HISTORY_ROWS, features).
    seen
        Rows that each device had before, of shape (devices,).
    values
        New rows, those of one device together and in its order, devices in the order of `history`;
        nan where missing; of shape (rows, features).
    counts
        New rows of each device, of shape (devices,).

    Returns
    -------
    RolledRows
        Inputs in input order (see `flead.contracts.schema.input_names`), of shape (rows, inputs):
        value and z-score are nan where the value is missing, mean and standard deviation where none
        of the rows before has one. The z-score is 0 below `MIN_ROLLING_ROWS` such rows or at zero
        spread, and clipped to ±`Z_CLIP`. The history is a new array.
    """
    features = values.shape[1]
    ends = np.cumsum(counts + HISTORY_ROWS)
    starts = ends - counts - HISTORY_ROWS
    of_row = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(len(values)) + HISTORY_ROWS * (of_row + 1)
    # One line of rows: each device's history, then its new rows; the last block may reach beyond.
    line = np.full((int(ends[-1]) + BLOCK_ROWS if len(ends) else BLOCK_ROWS, features), np.nan)
    remembered = np.arange(HISTORY_ROWS)
    line[starts[:, np.newaxis] + remembered] = history
    line[position] = values

    within = (seen[of_row] + position - starts[of_row] - HISTORY_ROWS) % BLOCK_ROWS
    block = position - within
    begins = np.diff(block, prepend=-1) != 0
    blocks, block_of_row = block[begins], np.cumsum(begins) - 1
    inputs = np.empty((len(values), features, len(INPUT_KINDS)))
    chunk = max(1, _CHUNK_VALUES // (HISTORY_ROWS * features))
    bounds = np.searchsorted(block_of_row, np.arange(0, len(blocks) + chunk, chunk))
    for number, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        before = _spread_before(line, blocks[number * chunk : (number + 1) * chunk])
        of_chunk = block_of_row[first:last] - number * chunk
        at = within[first:last]
        spread = Spread(*(array[of_chunk, :, at] for array in before))
        inputs[first:last] = _inputs(values[first:last], spread)
    return RolledRows(
        inputs.reshape(len(values), features * len(INPUT_KINDS)),
        line[ends[:, np.newaxis] - HISTORY_ROWS + remembered],
    )


def _spread_before(line: Floats, blocks: Integers) -> Spread:
    """Spread of the window of each row of each block, of shape (blocks, features, BLOCK_ROWS)."""
    rows = line[blocks[:, np.newaxis] + np.arange(-ROLLING_ROWS, EDGE_ROWS)]
    rows = np.ascontiguousarray(rows.transpose(0, 2, 1))
    shared = spread_along(rows[..., EDGE_ROWS:ROLLING_ROWS], axis=-1)
    edges = np.concatenate((rows[..., :EDGE_ROWS], rows[..., ROLLING_ROWS:]), axis=-1)
    edge = spread_along(sliding_window_view(edges, EDGE_ROWS, axis=-1), axis=-1)
    return merge(Spread(*(array[..., np.newaxis] for array in shared)), edge)


def _inputs(values: Floats, before: Spread) -> Floats:
    """Inputs of rows from their values and the spread before them, of shape (rows, features, 4)."""
    deviation = standard_deviation(before)
    known = (before.count >= MIN_ROLLING_ROWS) & (deviation > 0)
    z_score = np.clip((values - before.mean) / np.where(known, deviation, 1.0), -Z_CLIP, Z_CLIP)
    z_score = np.where(known | np.isnan(values), z_score, 0.0)
    counted = before.count > 0
    return np.stack(
        (
            values,
            z_score,
            np.where(counted, before.mean, np.nan),
            np.where(counted, deviation, np.nan),
        ),
        axis=-1,
    )
