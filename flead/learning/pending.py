"""Rows that wait for the window of their device to close."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flead.compiling import compiled
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
        self.pool = Columns(
            np.empty((0, inputs)), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
        )
        """All rows; those that no device waits for are free."""

    def add_devices(self, devices: int) -> None:
        """Make room for further devices."""
        self.count = np.concatenate((self.count, np.zeros(devices, np.int64)))
        more = np.zeros((devices, self._order.shape[1]), np.int32)
        self._order = np.concatenate((self._order, more))

    def keep(self, devices: Integers) -> None:
        """Forget all devices but these, which are numbered anew; the others have no rows."""
        self.count, self._order = self.count[devices], self._order[devices]

    def append(self, device: Integers, rows: Columns) -> Indices:
        """Add rows, those of one device in its order, and return where they are in the pool.

        `device` is the number of each row's device, of shape (rows,).
        """
        places = self._take(len(device))
        for column, new in zip(self.pool, rows, strict=True):
            column[places] = new
        longest = (self.count + np.bincount(device, minlength=len(self.count))).max(initial=0)
        self._widen(int(longest))
        _enqueue(self._order, self.count, device, places)
        return places

    def oldest(self, devices: Integers, lengths: Integers) -> Indices:
        """Find the oldest rows of each device in the pool, of shape (longest, devices).

        Beyond a device's length the entries name some row of the pool.
        """
        return self._order[devices, : int(lengths.max(initial=0))].T.astype(np.intp)

    def rows(self, places: Indices) -> Columns:
        """Rows of the pool; arrays of the shape of `places`, `inputs` with one more axis."""
        pool = self.pool
        return Columns(
            pool.inputs[places], pool.label[places], pool.event_time[places], pool.offset[places]
        )

    def discard(self, devices: Integers, lengths: Integers) -> None:
        """Forget the oldest rows of each device."""
        freed = np.empty(int(lengths.sum()), np.int32)
        _dequeue(self._order, self.count, devices, lengths, freed)
        self._free = np.concatenate((self._free, freed))

    def export(self) -> Columns:
        """Return all rows, device by device, oldest first."""
        waiting = np.arange(self._order.shape[1]) < self.count[:, np.newaxis]
        return self.rows(self._order[waiting].astype(np.intp))

    def _take(self, rows: int) -> Indices:
        """Free places for new rows; the pool doubles when it is full."""
        size = len(self.pool.label)
        if rows > len(self._free):
            more = max(rows, size)
            self.pool = Columns(*(_longer(column, more) for column in self.pool))
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


@compiled
def _enqueue(order: NDArray[np.int32], count: Integers, device: Integers, places: Indices) -> None:
    for row in range(len(device)):
        number = device[row]
        order[number, count[number]] = places[row]
        count[number] += 1


@compiled
def _dequeue(
    order: NDArray[np.int32],
    count: Integers,
    devices: Integers,
    lengths: Integers,
    freed: NDArray[np.int32],
) -> None:
    free = 0
    for index in range(len(devices)):
        device, length = devices[index], lengths[index]
        for row in range(length):
            freed[free] = order[device, row]
            free += 1
        count[device] -= length
        for row in range(count[device]):
            order[device, row] = order[device, row + length]
