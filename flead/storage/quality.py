"""Results of the quality checks, and what they decide (`data_quality_results`)."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from flead.contracts.topics import Topic
from flead.storage.connection import Cursor
from flead.storage.copying import copy_rows
from flead.storage.locks import Lock, lock_for_transaction

COLUMNS: Final = (
    "suite",
    "table_name",
    "rule",
    "expectation",
    "severity",
    "success",
    "reason",
    "element_count",
    "unexpected_count",
    "failing_examples",
)
"""What is kept of each rule that was judged."""


class QualityStatus(StrEnum):
    """What became of an evaluation: only what has passed is read by others."""

    PENDING = "pending"
    PASSED = "passed"
    QUARANTINED = "quarantined"


def unchecked_runs(cursor: Cursor) -> list[str]:
    """Return the evaluation runs that await their check, in the order in which they ended."""
    cursor.execute(
        """
        SELECT evaluation_run_id FROM evaluation_runs
        WHERE state = 'evaluated' AND quality_status = 'pending' ORDER BY evaluated_at
        """
    )
    return [run for (run,) in cursor.fetchall()]


def lock_run(cursor: Cursor, evaluation_run_id: str) -> list[int]:
    """Hold an evaluated run until the transaction ends; returns the versions that it was made for.

    Raises
    ------
    LookupError
        There is no such run, or it has no evaluations yet.
    """
    cursor.execute(
        """
        SELECT due_versions FROM evaluation_runs
        WHERE evaluation_run_id = %s AND state = 'evaluated' FOR UPDATE
        """,
        (evaluation_run_id,),
    )
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"there is no evaluation run {evaluation_run_id} that has ended")
    return list(row[0])


def rounds_of(cursor: Cursor, versions: Sequence[int]) -> list[int]:
    """Return the rounds that made versions."""
    cursor.execute(
        """
        SELECT aggregation_round FROM federated_models
        WHERE version = ANY(%s) AND aggregation_round IS NOT NULL ORDER BY aggregation_round
        """,
        (list(versions),),
    )
    return [number for (number,) in cursor.fetchall()]


def replace_results(
    cursor: Cursor,
    run_id: str,
    dag_run_id: str | None,
    results: Iterable[Sequence[object]],
    now: datetime,
) -> None:
    """Write what a check has found, in place of what the same DAG run has found before.

    Parameters
    ----------
    results
        Values in the order of `COLUMNS`.
    """
    cursor.execute(
        "DELETE FROM data_quality_results WHERE run_id = %s AND dag_run_id = %s",
        (run_id, dag_run_id),
    )
    copy_rows(
        cursor,
        "data_quality_results",
        ("run_id", "dag_run_id", "created_at", *COLUMNS),
        ((run_id, dag_run_id, now, *result) for result in results),
    )


def decide(cursor: Cursor, evaluation_run_id: str, status: QualityStatus, now: datetime) -> int:
    """Pass or quarantine all that an evaluation has written; returns how many messages it has.

    Messages of a run that has passed are ready for the publisher. Those of a quarantined one are
    held, unless they were published before; they hold up no others.
    """
    cursor.execute(
        "UPDATE evaluation_runs SET quality_status = %s, quality_checked_at = %s"
        " WHERE evaluation_run_id = %s",
        (status.value, now, evaluation_run_id),
    )
    for table in ("model_evaluations", "model_feedback"):
        cursor.execute(
            f"UPDATE {table} SET quality_status = %s WHERE evaluation_run_id = %s",  # noqa: S608 - constants
            (status.value, evaluation_run_id),
        )
    is_quarantined = status is QualityStatus.QUARANTINED
    # Nothing is published in the midst of it.
    lock_for_transaction(cursor, Lock.OUTBOX)
    cursor.execute(
        """
        UPDATE outbox
        SET
            state = CASE
                WHEN state = 'published' THEN state WHEN %s THEN 'held' ELSE 'ready'
            END,
            is_quarantined = %s AND state <> 'published'
        WHERE topic = %s AND value::jsonb ->> 'evaluation_run_id' = %s
        """,
        (is_quarantined, is_quarantined, Topic.FEEDBACK.value, evaluation_run_id),
    )
    return cursor.rowcount
