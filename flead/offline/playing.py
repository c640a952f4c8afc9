"""A data set as the stream of a fleet: in which order rows come, and where it is cut."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flead.contracts.schema import INPUT_KINDS
from flead.datasets.reading import Dataset
from flead.features.rolling import empty_history, roll
from flead.features.rows import Floats, Integers, RowBatch

Mask = NDArray[np.bool_]

_CHUNK_VALUES: Final = 1 << 22
"""Inputs that are in memory at once: 32 MB."""


class Order(StrEnum):
    """In which order the rows of different devices come."""

    TIME = "time"
    ALIGNED = "aligned"
    """As if all devices had started together: each one's clock counts from its first row."""


def natural_order(dataset: Dataset) -> Order:
    """Return `ALIGNED` where each file is the recording of one device, else `TIME`."""
    return Order.ALIGNED if dataset.spec.device.of else Order.TIME


def split_share(text: str) -> float:
    """Read a split such as `temporal:0.7`: the share of each device's rows in the first part.

    Raises
    ------
    ValueError
        When it is no share between 0 and 1.
    """
    match = re.fullmatch(r"temporal:(0?\.\d+)", text)
    if not match or float(match[1]) == 0.0:
        raise ValueError(f"{text!r} is no split: write temporal:0.7 for the first 70 % of each")
    return float(match[1])


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Rows in the order in which the fleet sends them; a row's offset is its place.

    Arrays are as in `Dataset`.
    """

    devices: list[str]
    device: Integers
    event_time: Integers
    values: Floats
    label: Floats

    @classmethod
    def of(cls, dataset: Dataset, order: Order) -> "Stream":
        """Put a data set in an order."""
        device = dataset.device_index.astype(np.int64)
        stream = cls(dataset.devices, device, dataset.event_time, dataset.values, dataset.label)
        if order == Order.TIME:
            return stream
        start = np.full(len(dataset.devices), np.iinfo(np.int64).max)
        np.minimum.at(start, device, dataset.event_time)
        turn = np.argsort(dataset.event_time - start[device], kind="stable")
        return cls(
            stream.devices,
            device[turn],
            stream.event_time[turn],
            stream.values[turn],
            stream.label[turn],
        )

    def __len__(self) -> int:
        return len(self.device)

    def first_part(self, share: float) -> Mask:
        """Mark the first rows of each device: that share of its own count, rounded down."""
        order = np.argsort(self.device, kind="stable")
        counts = np.bincount(self.device, minlength=len(self.devices))
        rank = np.empty(len(self), np.int64)
        rank[order] = np.arange(len(self)) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(rank < np.floor(share * counts)[self.device])

    def batches(self, rows: int, part: Mask | None = None) -> Iterator[RowBatch]:
        """Cut the stream, or a part of it, into batches of so many rows."""
        places = np.arange(len(self)) if part is None else np.flatnonzero(part)
        for first in range(0, len(places), rows):
            place = places[first : first + rows]
            used, index = np.unique(self.device[place], return_inverse=True)
            yield RowBatch(
                devices=[self.devices[device] for device in used.tolist()],
                device_index=index.astype(np.int32),
                partition=np.zeros(len(place), np.int32),
                offset=place,
                event_time=self.event_time[place],
                label=self.label[place],
                values=self.values[place],
            )

    def inputs(self) -> Iterator[tuple[slice, Floats]]:
        """Yield the inputs of all rows, some rows at a time."""
        features = self.values.shape[1]
        history, shared = empty_history(len(self.devices), features)
        seen = np.zeros(len(self.devices), np.int64)
        rows = max(1, _CHUNK_VALUES // (features * len(INPUT_KINDS)))
        for first in range(0, len(self), rows):
            part = slice(first, min(first + rows, len(self)))
            yield part, roll(history, shared, seen, self.device[part], self.values[part])


def effective_devices(device: Integers) -> int:
    """How many devices of equal size would be as diverse: 1 over the sum of squared shares.

    The inverse Simpson index: devices with few rows hardly count.
    """
    share = np.bincount(device) / len(device)
    return max(1, round(1.0 / float((share * share).sum())))
