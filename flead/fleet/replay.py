"""Rows of a data set as telemetry, in the order and at the pace of their own time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import Telemetry
from flead.datasets.reading import Dataset
from flead.features.rows import Floats, Integers
from flead.fleet.malformed import Message

BATCH_ROWS: Final = 10_000
_LABELS: Final[dict[float, Literal[0, 1]]] = {0.0: 0, 1.0: 1}


@dataclass(frozen=True, slots=True, eq=False)
class ReplayedRows:
    """Consecutive rows of a data set, from `start` up to `end`.

    `seconds` is when each row is due, after the first row of the set.
    """

    dataset: Dataset
    start: int
    end: int
    seconds: Floats

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def malformation(self) -> NDArray[np.int64]:
        """-1 for each row: none is malformed."""
        return np.full(len(self), -1)

    def encode(self) -> list[Message]:
        """Key and value of each row's Kafka message; missing values are null."""
        rows, data = slice(self.start, self.end), self.dataset
        encode = msgspec.json.Encoder().encode
        values = data.values[rows].astype(object)
        values[np.isnan(data.values[rows])] = None
        labels = [_LABELS.get(label) for label in data.label[rows].tolist()]
        attacks = [None] * len(self) if data.attack_type is None else data.attack_type[rows]
        messages: list[Message] = []
        for device, time, readings, label, attack in zip(
            data.device_index[rows].tolist(),
            data.event_time[rows].tolist(),
            values.tolist(),
            labels,
            attacks,
            strict=True,
        ):
            name = data.devices[device]
            features = dict(zip(data.spec.features, readings, strict=True))
            row = Telemetry(name, time, features, label, attack)
            messages.append((name.encode(), encode(row)))
        return messages


def due_seconds(event_time: Integers, longest_silence_seconds: float = math.inf) -> Floats:
    """Return when each row is due, after the first, at the pace of their times.

    Parameters
    ----------
    event_time
        Times of the rows in ascending order, in milliseconds.
    longest_silence_seconds
        A longer time between two rows is shortened to this: the devices of a set may have been
        recorded weeks apart.
    """
    silences = np.diff(event_time, prepend=event_time[:1]) / 1000.0
    return np.cumsum(np.minimum(silences, longest_silence_seconds))


def replayed(dataset: Dataset, seconds: Floats) -> Iterator[ReplayedRows]:
    """Cut a data set into batches; each row is due at its place in `seconds`."""
    for start in range(0, len(dataset), BATCH_ROWS):
        end = min(start + BATCH_ROWS, len(dataset))
        yield ReplayedRows(dataset, start, end, seconds[start:end])
