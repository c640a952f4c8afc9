"""Micro-batches of the stream analysis: what each is analysed with, and what it left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.messages import GlobalModel, Moments
from flead.storage import models
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, encode
from flead.storage.deployments import current_features

CONSUMER: Final = "stream-analysis"
"""Name under which `stream_offsets` has the position of the stream."""


class BatchState(StrEnum):
    """Life of a batch; `abandoned`: never committed, and its query goes on no more."""

    OPEN = "open"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """A batch; `is_repeated` when it had been opened before and may have left files."""

    state: BatchState
    model_version: int
    features: list[str]
    is_repeated: bool


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What a batch has read; offsets by partition, the end one past the last."""

    start_offsets: Mapping[int, int]
    end_offsets: Mapping[int, int]
    messages: int
    rows: int
    late_rows: int
    seconds: float


def writer_name(query_id: str, batch_id: int) -> str:
    """Return the name that the files of a batch begin with."""
    return f"{query_id}-{batch_id}"


def open_batch(cursor: Cursor, query_id: str, batch_id: int) -> OpenedBatch:
    """Fix what a batch is analysed with, or return what was fixed when it was opened before.

    That is the newest promoted model and its feature list. Before the first model, it is the list
    in training.
    """
    version = models.newest_head(cursor) or 0
    if version:
        features = models.models(cursor, [version])[version].model.feature_names
    else:
        features = current_features(cursor) or []
    cursor.execute(
        """
        INSERT INTO stream_analysis_batches (query_id, batch_id, model_version, feature_names)
        VALUES (%s, %s, %s, %s) ON CONFLICT (query_id, batch_id) DO NOTHING
        """,
        (query_id, batch_id, version, features),
    )
    is_new = cursor.rowcount == 1
    cursor.execute(
        "SELECT state, model_version, feature_names FROM stream_analysis_batches"
        " WHERE query_id = %s AND batch_id = %s",
        (query_id, batch_id),
    )
    [(state, version, features)] = cursor.fetchall()
    return OpenedBatch(BatchState(state), version, features, not is_new)


def model_of(cursor: Cursor, version: int) -> GlobalModel | None:
    """Return the model of a batch, None for version 0."""
    return models.models(cursor, [version])[version].model if version else None


def moments_by_device(cursor: Cursor, feature_schema: str) -> dict[str, Moments]:
    """Return the newest accepted moments of each device of a schema."""
    cursor.execute(
        "SELECT device_id, moments::text FROM device_moments WHERE feature_schema = %s",
        (feature_schema,),
    )
    decode = msgspec.json.Decoder(Moments).decode
    return {device: decode(text) for device, text in cursor.fetchall()}


def newest_tails(cursor: Cursor) -> dict[str, Any] | None:
    """Return the history files of devices after the newest committed batch, None before it."""
    cursor.execute(
        "SELECT tails FROM stream_analysis_batches WHERE state = 'committed'"
        " ORDER BY id DESC LIMIT 1"
    )
    row = cursor.fetchone()
    return None if row is None else row[0]


def commit_batch(
    cursor: Cursor, query_id: str, batch_id: int, counts: BatchCounts, tails: Mapping[str, Any]
) -> None:
    """Mark an open batch as committed, in the transaction that writes its results.

    Raises
    ------
    LookupError
        The batch is not open: another driver has taken its place.
    """
    cursor.execute(
        """
        UPDATE stream_analysis_batches SET
            state = 'committed', start_offsets = %s, end_offsets = %s, messages = %s, rows = %s,
            invalid = %s, late_rows = %s, seconds = %s, tails = %s, committed_at = now()
        WHERE query_id = %s AND batch_id = %s AND state = 'open'
        """,
        (
            encode(Jsonb(counts.start_offsets)),
            encode(Jsonb(counts.end_offsets)),
            counts.messages,
            counts.rows,
            counts.messages - counts.rows,
            counts.late_rows,
            counts.seconds,
            encode(Jsonb(tails)),
            query_id,
            batch_id,
        ),
    )
    if cursor.rowcount != 1:
        raise LookupError(
            f"batch {batch_id} of query {query_id} is no longer open: another driver has taken over"
        )


def open_batches_of_others(cursor: Cursor, query_id: str) -> list[tuple[str, int]]:
    """Return query and number of the batches that no query will commit, since another goes on."""
    cursor.execute(
        "SELECT query_id, batch_id FROM stream_analysis_batches"
        " WHERE state = 'open' AND query_id <> %s ORDER BY id",
        (query_id,),
    )
    return list(cursor.fetchall())


def abandon(cursor: Cursor, batches: Sequence[tuple[str, int]]) -> None:
    """Mark batches as never committed, once their files are removed."""
    cursor.executemany(
        "UPDATE stream_analysis_batches SET state = 'abandoned'"
        " WHERE query_id = %s AND batch_id = %s AND state = 'open'",
        batches,
    )


def forget_batches(cursor: Cursor, days: float) -> None:
    """Remove batches older than `days`, but for the newest committed one."""
    cursor.execute(
        """
        DELETE FROM stream_analysis_batches
        WHERE opened_at < now() - %s * INTERVAL '1 day' AND state <> 'open'
            AND id < (SELECT max(id) FROM stream_analysis_batches WHERE state = 'committed')
        """,
        (days,),
    )
