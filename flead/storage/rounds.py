"""Aggregation rounds (`aggregation_rounds`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from psycopg2.extras import Json

from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows


class RoundState(StrEnum):
    """`open` until its one transaction is done; `empty` when nothing was accepted.

    `waiting` when it found a candidate undecided, and so made no version of its updates.
    """

    OPEN = "open"
    AGGREGATED = "aggregated"
    EMPTY = "empty"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Round:
    """An aggregation round.

    `start_offsets` and `end_offsets` map each partition of `local-model-updates` to the first
    offset of the round and to one past its last. `accepted`, `rejected` (number by reason) and
    `version` are None until it is aggregated; `version` stays None when nothing was accepted.
    `promoted_version` is the one that became the head in it, made or only judged by it.
    """

    number: int
    state: RoundState
    start_offsets: Mapping[int, int]
    end_offsets: Mapping[int, int]
    updates: int
    dead_letters: int
    accepted: int | None
    rejected: Mapping[str, int] | None
    version: int | None
    promoted_version: int | None
    dag_run_id: str | None
    attempts: int
    opened_at: datetime
    attempted_at: datetime
    completed_at: datetime | None


_COLUMNS: Final = (
    "round",
    "state",
    "start_offsets",
    "end_offsets",
    "updates",
    "dead_letters",
    "accepted",
    "rejected",
    "version",
    "promoted_version",
    "dag_run_id",
    "attempts",
    "opened_at",
    "attempted_at",
    "completed_at",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM aggregation_rounds"  # noqa: S608 - constants


def _from_row(row: Sequence[Any]) -> Round:
    number, state, start_offsets, end_offsets, *others = row
    return Round(
        number,
        RoundState(state),
        {int(partition): offset for partition, offset in start_offsets.items()},
        {int(partition): offset for partition, offset in end_offsets.items()},
        *others,
    )


def get(cursor: Cursor, number: int) -> Round:
    """Return the round of that number.

    Raises
    ------
    LookupError
        When there is none.
    """
    cursor.execute(f"{_SELECT} WHERE round = %s", (number,))
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"there is no aggregation round {number}")
    return _from_row(row)


def newest(cursor: Cursor) -> Round | None:
    """Return the round with the highest number; only that one can be open."""
    cursor.execute(f"{_SELECT} ORDER BY round DESC LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else _from_row(row)


def newest_first(cursor: Cursor, limit: int) -> list[Round]:
    """Return the last `limit` rounds, newest first."""
    cursor.execute(f"{_SELECT} ORDER BY round DESC LIMIT %s", (limit,))
    return [_from_row(row) for row in cursor.fetchall()]


def open_round(
    cursor: Cursor,
    number: int,
    *,
    start_offsets: Mapping[int, int],
    end_offsets: Mapping[int, int],
    updates: int,
    dead_letters: int,
    dag_run_id: str | None,
    now: datetime,
) -> Round:
    """Store a new open round."""
    copy_rows(
        cursor,
        "aggregation_rounds",
        (
            "round",
            "start_offsets",
            "end_offsets",
            "updates",
            "dead_letters",
            "dag_run_id",
            "opened_at",
            "attempted_at",
        ),
        [
            (
                number,
                Jsonb(start_offsets),
                Jsonb(end_offsets),
                updates,
                dead_letters,
                dag_run_id,
                now,
                now,
            )
        ],
    )
    return get(cursor, number)


def record_attempt(cursor: Cursor, number: int, dag_run_id: str | None, now: datetime) -> Round:
    """Note that an open round is taken up again, by which DAG run."""
    cursor.execute(
        """
        UPDATE aggregation_rounds
        SET attempts = attempts + 1, attempted_at = %s, dag_run_id = %s WHERE round = %s
        """,
        (now, dag_run_id, number),
    )
    return get(cursor, number)


def complete(
    cursor: Cursor,
    number: int,
    *,
    accepted: int,
    rejected: Mapping[str, int],
    version: int | None,
    now: datetime,
    promoted_version: int | None = None,
    is_waiting: bool = False,
) -> Round:
    """Close an open round with what it came to."""
    state = RoundState.EMPTY if version is None else RoundState.AGGREGATED
    if is_waiting:
        state = RoundState.WAITING
    cursor.execute(
        """
        UPDATE aggregation_rounds
        SET state = %s, accepted = %s, rejected = %s, version = %s, promoted_version = %s,
            completed_at = %s
        WHERE round = %s
        """,
        (state.value, accepted, Json(dict(rejected)), version, promoted_version, now, number),
    )
    return get(cursor, number)
