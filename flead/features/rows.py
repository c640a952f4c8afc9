"""Valid rows of many devices as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ShortIntegers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows in the order in which they were read; each device's are in (partition, offset) order.

    Arrays have one entry a row: `device_index` points into `devices`, `event_time` is in
    milliseconds since the epoch, `label` is 0, 1 or nan (none), and `values` is (rows, features) in
    the order of the feature list, nan where missing. Every name in `devices` has a row.
    """

    devices: list[str]
    device_index: ShortIntegers
    partition: ShortIntegers
    offset: Integers
    event_time: Integers
    label: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.device_index)

    def select(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "RowBatch":
        """Return the rows that an index or a mask names, in its order, and their devices only."""
        used, device_index = np.unique(self.device_index[rows], return_inverse=True)
        return RowBatch(
            devices=[self.devices[device] for device in used.tolist()],
            device_index=device_index.astype(np.int32),
            partition=self.partition[rows],
            offset=self.offset[rows],
            event_time=self.event_time[rows],
            label=self.label[rows],
            values=self.values[rows],
        )

    def split(self, group: Integers) -> Iterator[tuple[int, "RowBatch"]]:
        """Yield the rows of each group of devices, in order of the groups.

        `group` is that of each device, of shape (devices,).
        """
        by_group = np.argsort(group, kind="stable")
        groups, sizes = np.unique(group, return_counts=True)
        rank = np.empty(len(group), np.int32)
        rank[by_group] = np.arange(len(group), dtype=np.int32)
        place = rank[self.device_index]
        of_row = np.repeat(np.arange(len(groups)), sizes)[place]
        order = np.argsort(of_row, kind="stable")
        devices = [self.devices[device] for device in by_group.tolist()]
        place, partition, offset = place[order], self.partition[order], self.offset[order]
        event_time, label = self.event_time[order], self.label[order]
        values = self.values[order]
        bounds = np.cumsum((0, *sizes.tolist())).tolist()
        rows = np.cumsum((0, *np.bincount(of_row).tolist())).tolist()
        for number, name in enumerate(groups.tolist()):
            mine = slice(rows[number], rows[number + 1])
            yield (
                name,
                RowBatch(
                    devices=devices[bounds[number] : bounds[number + 1]],
                    device_index=place[mine] - np.int32(bounds[number]),
                    partition=partition[mine],
                    offset=offset[mine],
                    event_time=event_time[mine],
                    label=label[mine],
                    values=values[mine],
                ),
            )
