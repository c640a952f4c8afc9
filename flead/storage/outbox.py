"""Messages that leave the database for Kafka, written in the transaction that decides them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flead.storage.connection import Cursor
from flead.storage.copying import copy_rows


class OutboxState(StrEnum):
    """`held` waits for a release, `ready` for the publisher."""

    HELD = "held"
    READY = "ready"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message on its way to Kafka; `value` is JSON text."""

    topic: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A stored message and its place in the order."""

    id: int
    message: OutboxMessage


def add(
    cursor: Cursor,
    messages: Iterable[OutboxMessage],
    state: OutboxState = OutboxState.READY,
) -> int:
    """Queue `messages` in the given order and return how many there were."""
    return copy_rows(
        cursor,
        "outbox",
        ("topic", "key", "value", "state"),
        ((message.topic, message.key, message.value, state) for message in messages),
    )


def next_ready(cursor: Cursor, limit: int) -> list[QueuedMessage]:
    """Return the first `limit` messages to publish, in id order.

    A ready message waits while one of its topic and key with a lower id is held and may yet be
    released: a key's order is that of the ids. One that is quarantined holds up no others.
    """
    cursor.execute(
        """
        SELECT ready.id, ready.topic, ready.key, ready.value
        FROM outbox AS ready
        WHERE ready.state = 'ready' AND NOT EXISTS (
            SELECT FROM outbox AS held
            WHERE held.state = 'held' AND NOT held.is_quarantined
                AND held.topic = ready.topic AND held.key = ready.key AND held.id < ready.id
        )
        ORDER BY ready.id
        LIMIT %s
        """,
        (limit,),
    )
    return [QueuedMessage(row[0], OutboxMessage(*row[1:])) for row in cursor.fetchall()]


def newest_value(cursor: Cursor, topic: str, key: str) -> str | None:
    """Return the value of the last message of a topic and key, published or not."""
    cursor.execute(
        "SELECT value FROM outbox WHERE topic = %s AND key = %s ORDER BY id DESC LIMIT 1",
        (topic, key),
    )
    row = cursor.fetchone()
    return None if row is None else str(row[0])


def mark_published(cursor: Cursor, ids: Sequence[int]) -> None:
    """Record that Kafka has acknowledged the messages `ids`."""
    cursor.execute(
        "UPDATE outbox SET state = 'published', published_at = now() WHERE id = ANY(%s)",
        (list(ids),),
    )
