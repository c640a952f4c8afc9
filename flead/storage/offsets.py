"""Next offsets of the consumers whose position is stored with their data (`stream_offsets`)."""

from collections.abc import Mapping

from psycopg2.extras import execute_values

from flead.storage.connection import Cursor


def next_offsets(cursor: Cursor, consumer: str, topic: str) -> dict[int, int]:
    """Return the next offset to read of each partition that `consumer` has read of `topic`."""
    cursor.execute(
        "SELECT partition, next_offset FROM stream_offsets WHERE consumer = %s AND topic = %s",
        (consumer, topic),
    )
    return dict(cursor.fetchall())


def store_next_offsets(
    cursor: Cursor, consumer: str, topic: str, offsets: Mapping[int, int]
) -> None:
    """Set the next offset of each given partition, in the transaction that writes the data."""
    execute_values(
        cursor,
        """
        INSERT INTO stream_offsets (consumer, topic, partition, next_offset) VALUES %s
        ON CONFLICT (consumer, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
        """,
        [(consumer, topic, partition, offset) for partition, offset in offsets.items()],
    )
