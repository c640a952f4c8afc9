"""What the outputs of the training job must hold, recomputed from its input topic."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from flead.contracts.messages import Anomaly, DeadLetterReason, LocalUpdate
from flead.contracts.schema import Z_THRESHOLD
from flead.contracts.topics import Topic, dead_letter_topic
from flead.features.decoding import TelemetryDecoder
from flead.features.rolling import empty_history, roll
from flead.features.rows import RowBatch
from flead.learning.zscore import z_scores
from flead.messaging.reading import Record, read_committed

CHUNK_MESSAGES = 200_000
ANOMALY_TOLERANCE = 1e-12

Position = tuple[int, int]
Message = TypeVar("Message")


def chunks_of(
    properties: Mapping[str, str], topic: Topic, position: dict[int, int] | None = None
) -> Iterator[list[Record]]:
    """Yield the committed messages of a topic, each partition's in its order.

    Parameters
    ----------
    position
        The next offset of each partition, which is moved along; from the beginning by default.
    """
    position = {} if position is None else position
    while True:
        reading = read_committed(properties, topic, position, CHUNK_MESSAGES)
        position.update(reading.next_offsets)
        if not reading.records:
            return
        yield reading.records


def messages_of(
    properties: Mapping[str, str],
    topic: Topic,
    kind: type[Message],
    position: dict[int, int] | None = None,
) -> Iterator[Message]:
    """Yield the decoded messages of a topic."""
    decode = msgspec.json.Decoder(kind).decode
    for records in chunks_of(properties, topic, position):
        yield from (decode(record.value or b"") for record in records)


class Letter(msgspec.Struct, frozen=True, gc=False):
    """What is counted of a dead letter."""

    partition: int
    offset: int
    reason: DeadLetterReason
    value_bytes: int


def dead_letters(properties: Mapping[str, str], topic: Topic) -> list[Letter]:
    """Return the dead letters of a topic."""
    return list(messages_of(properties, dead_letter_topic(topic), Letter))


@dataclass(frozen=True, slots=True)
class Judged:
    """What the decoder makes of every message of the telemetry topic."""

    messages: int
    rows: RowBatch
    rejected: dict[Position, DeadLetterReason]

    @classmethod
    def of(cls, properties: Mapping[str, str], features: Sequence[str]) -> "Judged":
        """Decode the topic as it is now."""
        return Judge(properties, features).read_on()


class Judge:
    """Decodes the telemetry topic, each time from where it stopped before."""

    def __init__(self, properties: Mapping[str, str], features: Sequence[str]) -> None:
        self._properties = properties
        self._decoder = TelemetryDecoder(features)
        self._position: dict[int, int] = {}
        self._messages = 0
        self._batches: list[RowBatch] = []
        self._rejected: dict[Position, DeadLetterReason] = {}

    def read_on(self) -> Judged:
        """Return what is made of all that the topic holds by now."""
        for records in chunks_of(self._properties, Topic.TELEMETRY, self._position):
            batch, letters = self._decoder.decode(
                [record.key for record in records],
                [record.value for record in records],
                np.array([record.partition for record in records], np.int32),
                np.array([record.offset for record in records]),
                np.array([record.timestamp for record in records]),
            )
            self._messages += len(records)
            self._batches.append(batch)
            self._rejected.update(((each.partition, each.offset), each.reason) for each in letters)
        return Judged(self._messages, joined(self._batches), dict(self._rejected))


def joined(batches: Sequence[RowBatch]) -> RowBatch:
    """Join batches that were read one after the other."""
    numbers: dict[str, int] = {}
    for batch in batches:
        for device in batch.devices:
            numbers.setdefault(device, len(numbers))

    def column(name: str) -> Any:
        return np.concatenate([getattr(batch, name) for batch in batches])

    devices = [np.array([numbers[d] for d in batch.devices], np.int32) for batch in batches]
    index = [own[batch.device_index] for own, batch in zip(devices, batches, strict=True)]
    names = ("partition", "offset", "event_time", "label", "values")
    return RowBatch(list(numbers), np.concatenate(index), *map(column, names))


def assert_windows_account_for_rows(
    updates: Sequence[LocalUpdate], rows: RowBatch, *, to_the_end: bool = True
) -> None:
    """Each valid row of a device is in one window, and the windows are consecutive.

    Unless `to_the_end`, rows after a device's last window are still to be trained.
    """
    windows: dict[str, list[LocalUpdate]] = defaultdict(list)
    for update in updates:
        windows[update.device_id].append(update)
    offsets: dict[str, list[int]] = {device: [] for device in rows.devices}
    for device, offset in zip(rows.device_index.tolist(), rows.offset.tolist(), strict=True):
        offsets[rows.devices[device]].append(offset)

    assert windows.keys() <= offsets.keys()
    for device, own in offsets.items():
        first = 0
        for number, window in enumerate(windows[device], start=1):
            members = own[first : first + window.rows]
            where = (device, window)
            assert window.model_version == number, where
            assert window.offset_sum == sum(members), where
            assert (window.first_offset, window.last_offset) == (members[0], members[-1]), where
            first += window.rows
        assert first == len(own) or not to_the_end, (
            device,
            f"{len(own) - first} rows are in no window",
        )


def assert_dead_letters_are_the_rejected(
    letters: Sequence[Letter], rejected: Mapping[Position, DeadLetterReason]
) -> None:
    """Each rejected message has one dead letter, with its position and the decoder's reason."""
    found = {(letter.partition, letter.offset): letter.reason for letter in letters}

    assert len(found) == len(letters), "a position has two dead letters"
    assert found == rejected


def assert_anomalies_are_the_anomalous_rows(
    anomalies: Sequence[Anomaly], rows: RowBatch, features: Sequence[str]
) -> None:
    """Each row beyond the z-score threshold has one message, with the feature that is farthest."""
    history, shared = empty_history(len(rows.devices), len(features))
    seen = np.zeros(len(rows.devices), np.int64)
    inputs = roll(history, shared, seen, rows.device_index.astype(np.int64), rows.values)
    magnitude = np.nan_to_num(np.abs(z_scores(inputs)))
    expected = np.flatnonzero(magnitude.max(axis=1) > Z_THRESHOLD)
    positions = zip(rows.partition[expected].tolist(), rows.offset[expected].tolist(), strict=True)
    by_position = {(each.partition, each.offset): each for each in anomalies}

    assert len(by_position) == len(anomalies), "a row has two anomalies"
    found = [by_position.pop(position, None) for position in positions]
    assert not by_position, "a row that is not anomalous has an anomaly"
    assert None not in found, "an anomalous row has no anomaly"
    farthest = magnitude[expected].argmax(axis=1)
    assert [each.feature for each in found] == [features[column] for column in farthest.tolist()]
    assert [each.device_id for each in found] == [
        rows.devices[device] for device in rows.device_index[expected].tolist()
    ]
    np.testing.assert_allclose(
        [each.z_score for each in found],
        z_scores(inputs)[expected, farthest],
        rtol=0,
        atol=ANOMALY_TOLERANCE,
    )
