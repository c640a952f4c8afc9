"""Inputs of each row: its values, and statistics of the device's rows before it.

The windows of consecutive rows overlap nearly wholly, so rows are taken in aligned blocks of
`BLOCK_ROWS`: the rows that all windows of a block share are summed up once, the few others once
for each window, and the two are merged. Blocks are aligned to the device's own row count: a row's
inputs are the same to the last bit however the stream was cut into batches.
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
    """History of devices that have had no row, of shape (devices, features, HISTORY_ROWS)."""
    return np.full((devices, features, HISTORY_ROWS), np.nan)


def roll(history: Floats, seen: Integers, values: Floats, counts: Integers) -> RolledRows:
    """Make the inputs of new rows of many devices.

    Parameters
    ----------
    history
        Last rows of each device before the new ones, oldest first, nan where there was none or a
        value was missing; of shape (devices, features, HISTORY_ROWS).
    seen
        Rows that each device had before, of shape (devices,).
    values
        New rows, those of one device together and in its order, devices in the order of `history`;
        nan where missing; of shape (rows, features).
    counts
        New rows of each device, at least 1, of shape (devices,).

    Returns
    -------
    RolledRows
        Inputs in input order (see `flead.contracts.schema.input_names`), of shape (rows, inputs):
        value and z-score are nan where the value is missing, mean and standard deviation where none
        of the rows before has one. The z-score is 0 below `MIN_ROLLING_ROWS` such rows or at zero
        spread, and clipped to ±`Z_CLIP`. The history is a new array.
    """
    devices, features = history.shape[:2]
    inputs = np.empty((len(values), features, len(INPUT_KINDS)))
    after = np.empty_like(history)
    ends = np.cumsum(counts)
    longest = HISTORY_ROWS + int(counts.max(initial=0))
    chunk = max(1, _CHUNK_VALUES // (features * longest))
    for first in range(0, devices, chunk):
        of = slice(first, first + chunk)
        rows = slice(ends[first] - counts[first], ends[of][-1])
        rank = np.arange(rows.start, rows.stop) - np.repeat(ends[of] - counts[of], counts[of])
        after[of] = _roll_chunk(
            history[of], seen[of], values[rows], counts[of], rank, out=inputs[rows]
        )
    return RolledRows(inputs.reshape(len(values), features * len(INPUT_KINDS)), after)


def _roll_chunk(
    history: Floats, seen: Integers, values: Floats, counts: Integers, rank: Integers, out: Floats
) -> Floats:
    """Write the inputs of some devices' rows to `out`; return their history.

    `rank` is each row's number among the new rows of its device.
    """
    devices, features = history.shape[:2]
    of_row = np.repeat(np.arange(devices), counts)
    longest = HISTORY_ROWS + int(counts.max())
    series = np.full((devices, features, longest + EDGE_ROWS), np.nan)
    series[..., :HISTORY_ROWS] = history
    series[of_row, :, HISTORY_ROWS + rank] = values
    windows = sliding_window_view(series, HISTORY_ROWS, axis=-1)

    within = (seen[of_row] + rank) % BLOCK_ROWS
    first_of_block = (rank == 0) | (within == 0)
    block = np.cumsum(first_of_block) - 1
    start = (rank - within)[first_of_block] + EDGE_ROWS
    before = _spread_before(windows[of_row[first_of_block], :, start])
    spread = Spread(*(array[within, block] for array in before))
    out[...] = _inputs(values, spread)
    return windows[np.arange(devices), :, counts]


def _spread_before(rows: Floats) -> Spread:
    """Spread of the window before each row of each block.

    Takes the rows of each block's windows, of shape (blocks, features, HISTORY_ROWS); returns
    arrays of shape (BLOCK_ROWS, blocks, features).
    """
    shared = spread_along(rows[..., EDGE_ROWS:ROLLING_ROWS], axis=-1)
    edges = np.concatenate((rows[..., :EDGE_ROWS], rows[..., ROLLING_ROWS:]), axis=-1)
    return merge(shared, _spread_of_edges(np.ascontiguousarray(edges.transpose(2, 0, 1))))


def _spread_of_edges(edges: Floats) -> Spread:
    """Spread of each run of `EDGE_ROWS` rows along the first axis, nan left out.

    Added up run by run, in one order whatever the shape: numpy chooses the order of a sum by shape.
    """
    present = ~np.isnan(edges)
    filled = np.where(present, edges, 0.0)
    weight = present.astype(np.float64)
    shape = (BLOCK_ROWS, *edges.shape[1:])
    count, mean, m2 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    runs = [slice(row, row + BLOCK_ROWS) for row in range(EDGE_ROWS)]
    for run in runs:
        count += weight[run]
        mean += filled[run]
    mean /= np.maximum(count, 1.0)
    for run in runs:
        deviation = filled[run] - mean
        deviation *= deviation
        deviation *= weight[run]
        m2 += deviation
    return Spread(count, mean, m2)


def _inputs(values: Floats, before: Spread) -> Floats:
    """Make rows' inputs (rows, features, 4) from their values and the spread before them."""
    deviation = standard_deviation(before)
    known = (before.rows >= MIN_ROLLING_ROWS) & (deviation > 0)
    z_score = np.clip((values - before.mean) / np.where(known, deviation, 1.0), -Z_CLIP, Z_CLIP)
    z_score = np.where(known | np.isnan(values), z_score, 0.0)
    counted = before.rows > 0
    return np.stack(
        (
            values,
            z_score,
            np.where(counted, before.mean, np.nan),
            np.where(counted, deviation, np.nan),
        ),
        axis=-1,
    )
