"""What has been made since a moment, for those who watch the system run."""

from collections.abc import Mapping

import msgspec

from flead.storage.connection import Cursor


class MadeVersion(msgspec.Struct, frozen=True):
    """A global model version; accuracy and loss are null until updates have scored it."""

    version: int
    num_updates: int
    num_devices: int
    global_accuracy: float | None
    global_loss: float | None
    metrics_rows: int


def versions_after(cursor: Cursor, version: int) -> list[MadeVersion]:
    """Return the versions above `version`, oldest first."""
    cursor.execute(
        "SELECT version, num_updates, num_devices, global_accuracy, global_loss, metrics_rows"
        " FROM federated_models WHERE version > %s ORDER BY version",
        (version,),
    )
    return [MadeVersion(*row) for row in cursor]


class Collected(msgspec.Struct, frozen=True):
    """What rounds have read: updates, and how many devices sent them."""

    updates: int
    devices: int


def collected_since(cursor: Cursor, topic: str, start: Mapping[int, int]) -> Collected:
    """Count the updates that rounds have read at or beyond an offset of each partition."""
    cursor.execute(
        "SELECT count(*), count(DISTINCT u.device_id) FROM local_models AS u"
        " JOIN unnest(%s::int [], %s::bigint []) AS s (kafka_partition, first_offset)"
        " ON u.kafka_partition = s.kafka_partition AND u.kafka_offset >= s.first_offset"
        " WHERE u.kafka_topic = %s",
        (list(start.keys()), list(start.values()), topic),
    )
    [counts] = cursor.fetchall()
    return Collected(*counts)
