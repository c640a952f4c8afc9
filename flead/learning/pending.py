"""Rows that wait for the window of their device to close."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flead.features.rows import Floats, Integers

Indices = NDArray[np.intp]


class Columns(NamedTuple):
    """Rows as arrays of one length; `inputs` is (rows, inputs), the others (rows,)."""

    inputs: Floats
    label: Floats
    event_time: Integers
    offset: Integers


class PendingRows:
    """Rows of many devices in one pool, with the order of each device's rows beside it.

    A row is copied once when it comes and once when its window closes, however many rows of other
    devices come and go between. Devices are numbered from 0.

    Parameters
    ----------
    devices
        How many there are at first.
    inputs
        Inputs of a row.
    """

    def __init__(self, devices: int, inputs: int) -> None:
        self.count: Integers = np.zeros(devices, np.int64)
        """Waiting rows of each device."""
        self._order: NDArray[np.int32] = np.zeros((devices, 0), np.int32)
        self._free: NDArray[np.int32] = np.zeros(0, np.int32)
        self._pool = Columns(
            np.empty((0, inputs)), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
        )

    def add_devices(self, devices: int) -> None:
        """Make room for further devices."""
        self.count = np.concatenate((self.count, np.zeros(devices, np.int64)))
        more = np.zeros((devices, self._order.shape[1]), np.int32)
        self._order = np.concatenate((self._order, more))

    def append(self, devices: Integers, counts: Integers, rows: Columns) -> Indices:
        """Add rows, those of one device together, and return where they are in the pool.

        `devices` names the devices, each once; `counts` is the number of rows of each.
        """
        places = self._take(len(rows.label))
        for column, new in zip(self._pool, rows, strict=True):
            column[places] = new
        before = self.count[devices]
        rank = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts - before, counts)
        self._widen(int((before + counts).max(initial=0)))
        self._order[np.repeat(devices, counts), rank] = places
        self.count[devices] += counts
        return places

    def oldest(self, devices: Integers, lengths: Integers) -> Indices:
        """Find the oldest rows of each device in the pool, of shape (longest, devices).

        Beyond a device's length the entries name some row of the pool.
        """
        return self._order[devices, : int(lengths.max(initial=0))].T.astype(np.intp)

    def rows(self, places: Indices) -> Columns:
        """Rows of the pool; arrays of the shape of `places`, `inputs` with one more axis."""
        pool = self._pool
        return Columns(
            pool.inputs[places], pool.label[places], pool.event_time[places], pool.offset[places]
        )

    def discard(self, devices: Integers, lengths: Integers) -> None:
        """Forget the oldest rows of each device."""
        width = self._order.shape[1]
        column = np.arange(width)
        order = self._order[devices]
        self._free = np.concatenate((self._free, order[column < lengths[:, np.newaxis]]))
        shifted = np.minimum(column + lengths[:, np.newaxis], width - 1)
        self._order[devices] = np.take_along_axis(order, shifted, axis=1)
        self.count[devices] -= lengths

    def export(self) -> Columns:
        """Return all rows, device by device, oldest first."""
        waiting = np.arange(self._order.shape[1]) < self.count[:, np.newaxis]
        return self.rows(self._order[waiting].astype(np.intp))

    def _take(self, rows: int) -> Indices:
        """Free places for new rows; the pool doubles when it is full."""
        size = len(self._pool.label)
        if rows > len(self._free):
            more = max(rows, size)
            self._pool = Columns(*(_longer(column, more) for column in self._pool))
            fresh = np.arange(size, size + more, dtype=np.int32)
            self._free = np.concatenate((self._free, fresh))
        taken, self._free = self._free[:rows], self._free[rows:]
        return taken.astype(np.intp)

    def _widen(self, rows: int) -> None:
        width = self._order.shape[1]
        if rows > width:
            more = np.zeros((len(self.count), max(rows - width, width)), np.int32)
            self._order = np.concatenate((self._order, more), axis=1)


def _longer(column: NDArray[Any], more: int) -> NDArray[Any]:
    return np.concatenate((column, np.empty((more, *column.shape[1:]), column.dtype)))
