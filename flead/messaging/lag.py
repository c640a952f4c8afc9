"""How far a consumer is behind."""

import logging
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flead.messaging.client import REQUEST_TIMEOUT_SECONDS, Properties, assigned_consumer
from flead.messaging.reading import offset_ranges

MILLISECONDS: Final = 1_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Offsets that a consumer has not read, and for how long the oldest message waits.

    On a topic that is written without transactions, `rows` are messages.
    """

    rows: int
    seconds: float


def committed_offsets(properties: Properties, group: str, topic: str) -> dict[int, int]:
    """Return the next offset of each partition of `topic` that `group` has committed.

    A partition of which it has committed nothing is left out.

    Raises
    ------
    KafkaException
        When the brokers cannot be reached or refuse, or the topic does not exist.
    """
    partitions = [TopicPartition(topic, each) for each in offset_ranges(properties, topic)]
    # An admin client that is answered "not the coordinator", as by a broker that has just started,
    # dereferences the group that it does not have: confluent-kafka-javascript issue 374.
    asking = Consumer({**properties, "group.id": group, "enable.auto.commit": False}, logger=logger)
    with closing(asking):
        found = asking.committed(partitions, timeout=REQUEST_TIMEOUT_SECONDS)
    for position in found:
        if position.error is not None:
            raise KafkaException(position.error)
    return {position.partition: position.offset for position in found if position.offset >= 0}


def consumer_lag(properties: Properties, group: str, topic: str) -> dict[int, int]:
    """Return how many offsets `group` is behind the end of each partition of `topic`.

    A partition of which the group has committed nothing counts from its first offset. On a topic
    that is written without transactions, these are messages.

    Raises
    ------
    KafkaException
        When the brokers cannot be reached or refuse, or the topic does not exist.
    """
    committed = committed_offsets(properties, group, topic)
    return {
        partition: high - max(committed.get(partition, low), low)
        for partition, (low, high) in offset_ranges(properties, topic).items()
    }


def backlog(properties: Properties, topic: str, next_offsets: Mapping[int, int]) -> Backlog:
    """Return what waits for a consumer whose next offset of each partition is given.

    A partition that `next_offsets` lacks waits from its first offset. Messages are dated by their
    timestamps, against this machine's clock.

    Raises
    ------
    KafkaException
        When the brokers cannot be reached or refuse, or the topic does not exist.
    TimeoutError
        When a message that must be there does not arrive.
    """
    waiting = {
        partition: (max(next_offsets.get(partition, low), low), high)
        for partition, (low, high) in offset_ranges(properties, topic).items()
    }
    unread = {partition: first for partition, (first, high) in waiting.items() if first < high}
    oldest = _oldest_timestamp(properties, topic, unread)
    return Backlog(
        rows=sum(max(high - first, 0) for first, high in waiting.values()),
        seconds=0.0 if oldest is None else max(time.time() - oldest / MILLISECONDS, 0.0),
    )


def _oldest_timestamp(properties: Properties, topic: str, offsets: Mapping[int, int]) -> int | None:
    """Return the least timestamp of the first message at or beyond each offset, in milliseconds."""
    found: list[int] = []
    with closing(assigned_consumer(properties)) as consumer:
        for partition, offset in offsets.items():
            consumer.assign([TopicPartition(topic, partition, offset)])
            message = consumer.poll(REQUEST_TIMEOUT_SECONDS)
            if message is None:
                raise TimeoutError(
                    f"no message in {REQUEST_TIMEOUT_SECONDS} s from {topic}[{partition}],"
                    f" which reaches beyond offset {offset}"
                )
            error = message.error()
            if error is None:
                found.append(message.timestamp()[1])
            # what is left may be markers of transactions
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
    return min(found, default=None)
