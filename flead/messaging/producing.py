"""Writes that are acknowledged or raise."""

from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message

from flead.messaging.client import REQUEST_TIMEOUT_SECONDS, Properties, producer


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """What is written to a topic."""

    topic: str
    key: bytes
    value: bytes


def produce(properties: Properties, messages: Iterable[OutgoingMessage]) -> int:
    """Write `messages` in order and wait until the brokers have acknowledged each.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    KafkaException
        When one could not be delivered; those before and after it may have been.
    """
    client = producer(properties)
    errors: list[KafkaError] = []

    def collect(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    count = 0
    for message in messages:
        while True:
            try:
                client.produce(message.topic, message.value, message.key, on_delivery=collect)
                break
            except BufferError:
                # The local queue is full: wait for acknowledgements.
                client.poll(0.1)
        client.poll(0)
        count += 1
    unfinished = client.flush(REQUEST_TIMEOUT_SECONDS * 2)
    if errors:
        raise KafkaException(errors[0])
    if unfinished:
        raise TimeoutError(f"{unfinished} messages were not acknowledged")
    return count
