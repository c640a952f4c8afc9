"""Reads of a topic from given offsets, of committed messages only."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flead.messaging.client import REQUEST_TIMEOUT_SECONDS, Properties, assigned_consumer

BATCH_MESSAGES = 1_000
POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


class TopicRewoundError(Exception):
    """A stored offset lies beyond the end of its partition: it is not the topic that was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka message; `timestamp` is in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Messages, in offset order in each partition, and where this read and the next one start.

    Both maps cover every partition of the topic.
    """

    records: list[Record]
    start_offsets: dict[int, int]
    next_offsets: dict[int, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many messages there were, and where in each partition the next count goes on."""

    messages: int
    next_offsets: dict[int, int]


def offset_ranges(properties: Properties, topic: str) -> dict[int, tuple[int, int]]:
    """Return the first offset and the last stable offset of each partition.

    The last stable offset is one past the last message of which the transaction, if any, has ended.
    """
    with closing(assigned_consumer(properties)) as consumer:
        return _ranges(consumer, topic)


def end_offsets(properties: Properties, topic: str) -> dict[int, int]:
    """Return the last stable offset of each partition."""
    return {partition: high for partition, (_, high) in offset_ranges(properties, topic).items()}


def read_committed(
    properties: Properties, topic: str, start: Mapping[int, int], max_messages: int
) -> Reading:
    """Read from `start` up to what is stable now, or `max_messages` if that comes first.

    Parameters
    ----------
    start
        First offset of each partition; a partition that it lacks is read from its beginning.

    Raises
    ------
    TopicRewoundError
        When `start` lies beyond the end of a partition.
    KafkaException
        When the brokers cannot be reached or refuse, or the topic does not exist.
    TimeoutError
        When messages that must be there do not arrive.

    Notes
    -----
    `next_offsets` lies behind the transaction markers and aborted messages that were passed, so
    that nothing is left to read when everything was read.
    """
    with closing(assigned_consumer(properties)) as consumer:
        reader = _Reader(consumer, topic, start)
        start_offsets = dict(reader.next_offsets)
        records = [_record(message) for message in reader.messages(max_messages)]
        return Reading(records, start_offsets, reader.next_offsets)


def count_readable(
    properties: Properties, topic: str, start: Mapping[int, int], limit: int | None = None
) -> int:
    """Count the messages that a read from `start` would deliver now, up to `limit`.

    They are counted by reading: offsets are no message counts, because transactions leave markers.
    Raises what `read_committed` raises.
    """
    with closing(assigned_consumer(properties)) as consumer:
        return sum(1 for _ in _Reader(consumer, topic, start).messages(limit))


def count_to_end(
    properties: Properties, topic: str, start: Mapping[int, int], most_read: int
) -> Counted:
    """Count the messages from `start` to what is stable now, and read `most_read` of them at most.

    Of more, the others are estimated: as many for each offset as among those that were read.
    Raises what `read_committed` raises.
    """
    with closing(assigned_consumer(properties)) as consumer:
        reader = _Reader(consumer, topic, start)
        begin = sum(reader.next_offsets.values())
        messages = sum(1 for _ in reader.messages(most_read))
        read = sum(reader.next_offsets.values()) - begin
        if left := reader.unread_offsets:
            messages += round(messages * left / read)
        return Counted(messages, reader.end_offsets)


class _Reader:
    """One pass over a topic; `next_offsets` is kept up to date while messages are taken."""

    def __init__(self, consumer: Consumer, topic: str, start: Mapping[int, int]) -> None:
        self._consumer = consumer
        ranges = _ranges(consumer, topic)
        self.next_offsets = {
            partition: _begin(topic, partition, start.get(partition), low, high)
            for partition, (low, high) in ranges.items()
        }
        self._unread = {
            partition: high
            for partition, (_, high) in ranges.items()
            if self.next_offsets[partition] < high
        }
        if self._unread:
            consumer.assign(
                [
                    TopicPartition(topic, partition, self.next_offsets[partition])
                    for partition in self._unread
                ]
            )

    @property
    def end_offsets(self) -> dict[int, int]:
        """Last stable offset of each partition when the pass began."""
        return self.next_offsets | self._unread

    @property
    def unread_offsets(self) -> int:
        """How many offsets are left of the pass."""
        return sum(high - self.next_offsets[each] for each, high in self._unread.items())

    def messages(self, limit: int | None) -> Iterator[Message]:
        taken = 0
        progress = time.monotonic()
        while self._unread and (limit is None or taken < limit):
            wanted = BATCH_MESSAGES if limit is None else min(BATCH_MESSAGES, limit - taken)
            batch = self._next(wanted)
            if batch:
                progress = time.monotonic()
            elif time.monotonic() - progress > REQUEST_TIMEOUT_SECONDS:
                raise TimeoutError(
                    f"no message in {REQUEST_TIMEOUT_SECONDS} s, though partitions reach further: "
                    f"{self._unread}, read up to {self.next_offsets}"
                )
            for message in batch:
                if self._is_message(message):
                    taken += 1
                    yield message

    def _next(self, wanted: int) -> list[Message]:
        """Wait for one message only, and take what came with it."""
        first = self._consumer.poll(POLL_SECONDS)
        return [] if first is None else [first, *self._consumer.consume(wanted - 1, timeout=0)]

    def _is_message(self, message: Message) -> bool:
        """Take note of the position of what was consumed; an end of partition is no message."""
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        partition = cast(int, message.partition())
        position = cast(int, message.offset()) + (1 if error is None else 0)
        self.next_offsets[partition] = position
        if position >= self._unread.get(partition, position + 1):
            del self._unread[partition]
        return error is None


def _ranges(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    """First offset and last stable offset of each partition."""
    metadata = consumer.list_topics(topic, REQUEST_TIMEOUT_SECONDS).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return {
        partition: _range(consumer, TopicPartition(topic, partition))
        for partition in sorted(metadata.partitions)
    }


def _range(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """First offset and last stable offset of a partition."""
    low, high = consumer.get_watermark_offsets(partition, REQUEST_TIMEOUT_SECONDS)
    if low == high:
        # librdkafka returns one offset for both when it has got only one: an empty partition is
        # asked again, for one with messages was seen to look empty on a busy machine.
        low, high = consumer.get_watermark_offsets(partition, REQUEST_TIMEOUT_SECONDS)
    return low, high


def _begin(topic: str, partition: int, start: int | None, low: int, high: int) -> int:
    if start is None:
        return low
    if start > high:
        raise TopicRewoundError(
            f"{topic}[{partition}] ends at offset {high}, but was read up to {start}: it was "
            "deleted, or its broker lost data; start with an empty database, or remove the stored "
            "offsets of the topic"
        )
    if start < low:
        logger.warning(
            "%s[%s] begins at offset %s by now: %s offsets were deleted unread",
            topic,
            partition,
            low,
            low - start,
        )
    return max(start, low)


def _record(message: Message) -> Record:
    # The client types them as optional, for messages that were never sent.
    return Record(
        cast(str, message.topic()),
        cast(int, message.partition()),
        cast(int, message.offset()),
        message.timestamp()[1],
        message.key(),
        message.value(),
    )
