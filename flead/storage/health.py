"""Readings of the health gate, what was found, and what was set going again (`training_health`)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from flead.health.readings import Breach, Part, Reading, Verdict
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows

_READ: Final = tuple(field.name for field in msgspec.structs.fields(Reading))


def replace_reading(
    cursor: Cursor,
    dag_run_id: str,
    reading: Reading,
    verdict: Verdict,
    breaches: Sequence[Breach],
    healing: Sequence[Part],
) -> None:
    """Write a reading, in place of the one that the same DAG run has written before.

    Parameters
    ----------
    healing
        What is set going again because of it.
    """
    cursor.execute("DELETE FROM training_health WHERE dag_run_id = %s", (dag_run_id,))
    values = msgspec.structs.asdict(reading) | {
        "positions": Jsonb(reading.positions),
        "deploying": [part.value for part in reading.deploying],
    }
    row = {
        **values,
        "dag_run_id": dag_run_id,
        "healing": [part.value for part in healing],
        "verdict": verdict.value,
        "reasons": Jsonb(list(breaches)),
    }
    copy_rows(cursor, "training_health", tuple(row), [tuple(row.values())])


def readings_since(cursor: Cursor, since: datetime, dag_run_id: str) -> list[Reading]:
    """Return the readings from a time on, oldest first, but for that of a DAG run."""
    cursor.execute(
        f"SELECT {', '.join(_READ)} FROM training_health"  # noqa: S608 - constants
        " WHERE created_at >= %s AND dag_run_id <> %s ORDER BY created_at, id",
        (since, dag_run_id),
    )
    rows = [dict(zip(_READ, row, strict=True)) for row in cursor.fetchall()]
    return [msgspec.convert(row, Reading, strict=False) for row in rows]


def healings_since(cursor: Cursor, part: Part, since: datetime, dag_run_id: str) -> list[datetime]:
    """Return when a part was set going again, from a time on, but for what a DAG run has done."""
    cursor.execute(
        "SELECT created_at FROM training_health"
        " WHERE created_at >= %s AND dag_run_id <> %s AND %s = ANY(healing) ORDER BY created_at",
        (since, dag_run_id, part.value),
    )
    return [at for (at,) in cursor.fetchall()]


def take_back_healing(cursor: Cursor, dag_run_id: str, part: Part) -> None:
    """Let a part not have been set going again by a DAG run; without another it only was broken."""
    cursor.execute(
        """
        UPDATE training_health
        SET
            healing = array_remove(healing, %(part)s),
            verdict = CASE
                WHEN verdict = 'healing' AND array_remove(healing, %(part)s) = '{}' THEN 'breached'
                ELSE verdict
            END
        WHERE dag_run_id = %(run)s
        """,
        {"part": part.value, "run": dag_run_id},
    )
