"""Rows of sensors as whole numbers: readings have few decimals, and half the bytes hold them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flead.compiling import compiled
from flead.features.rows import Floats

MOST_DECIMALS: Final = 6
MISSING: Final = -(2**31)
"""Stands for nan."""

Whole = NDArray[np.int32]


def pack(values: Floats) -> tuple[list[int], Whole] | None:
    """Write values as multiples of a power of ten, None where a single one would change.

    Parameters
    ----------
    values
        Of shape (devices, features, rows), nan where missing.

    Returns
    -------
    The decimals of each feature, and whole numbers of the shape of `values`, such that
    `unpack` gives the same values to the last bit.
    """
    packed = np.empty(values.shape, np.int32)
    decimals = []
    for feature in range(values.shape[1]):
        for count in range(MOST_DECIMALS + 1):
            if _fill(values[:, feature], 10.0**count, packed[:, feature]):
                decimals.append(count)
                break
        else:
            return None
    return decimals, packed


def unpack(decimals: Sequence[int], packed: Whole) -> Floats:
    """Return the values that `pack` was given."""
    scale = np.array([10.0**count for count in decimals])
    values: Floats = packed / scale[np.newaxis, :, np.newaxis]
    values[packed == MISSING] = np.nan
    return values


@compiled
def _fill(values: Floats, scale: float, packed: Whole) -> bool:
    """Write values (devices, rows) times the scale, and say whether that is exact."""
    for device in range(values.shape[0]):
        for row in range(values.shape[1]):
            value = values[device, row]
            if np.isnan(value):
                packed[device, row] = MISSING
                continue
            whole = np.rint(value * scale)
            is_negative_zero = value == 0.0 and np.signbit(value)
            if abs(whole) > -MISSING - 1 or whole / scale != value or is_negative_zero:
                return False
            packed[device, row] = np.int32(whole)
    return True
