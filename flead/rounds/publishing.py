"""The way of decided messages from the outbox to Kafka."""

import logging
from typing import Final

from flead.messaging.client import Properties
from flead.messaging.producing import OutgoingMessage, produce
from flead.storage import outbox
from flead.storage.connection import connect
from flead.storage.locks import Lock, lock_for_transaction

BATCH_MESSAGES: Final = 1_000

logger = logging.getLogger(__name__)


def publish(database_url: str, kafka_properties: Properties) -> int:
    """Write every ready message of the outbox to Kafka, in id order for each topic and key.

    A message is marked as published once the brokers have acknowledged it; a crash in between
    writes it again, never forgets it.

    Returns
    -------
    int
        How many messages were written.

    Raises
    ------
    KafkaException
        When a message could not be delivered; its batch stays ready.
    """
    total = 0
    while count := _publish_batch(database_url, kafka_properties):
        total += count
    if total:
        logger.info("Published %s messages", total)
    return total


def _publish_batch(database_url: str, kafka_properties: Properties) -> int:
    with connect(database_url) as connection, connection.cursor() as cursor:
        # One publisher at a time: two would overtake each other within a key.
        lock_for_transaction(cursor, Lock.OUTBOX)
        ready = outbox.next_ready(cursor, BATCH_MESSAGES)
        if not ready:
            return 0
        produce(
            kafka_properties,
            (
                OutgoingMessage(
                    queued.message.topic, queued.message.key.encode(), queued.message.value.encode()
                )
                for queued in ready
            ),
        )
        outbox.mark_published(cursor, [queued.id for queued in ready])
        return len(ready)
