"""Global models as people look them up: what each is, how it did, and what was decided on it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from flead.storage.connection import Cursor


class ListedModel(msgspec.Struct, frozen=True):
    """A version; accuracy and loss are those that updates measured, over `rows` rows."""

    version: int
    status: str
    is_head: bool
    parent_version: int
    restored_version: int | None
    aggregation_round: int | None
    feature_schema: str
    devices: int
    updates: int
    global_accuracy: float | None
    global_loss: float | None
    rows: int
    created_at: datetime
    promoted_at: datetime | None


class MadeDecision(msgspec.Struct, frozen=True):
    """What was decided on a version, and on what evidence."""

    decision: str
    reason: str
    reference_version: int | None
    decided_by: str
    devices: int | None
    rows: int | None
    mean_difference: float | None
    p_value: float | None
    decided_at: datetime


_LISTED: Final = """
    SELECT
        model.version, model.status, head.version IS NOT NULL, model.parent_version,
        model.restored_version, model.aggregation_round, model.feature_schema, model.num_devices,
        model.num_updates, model.global_accuracy, model.global_loss, model.metrics_rows,
        model.created_at, model.promoted_at
    FROM federated_models AS model
    LEFT JOIN model_head AS head ON head.version = model.version
"""


def newest(cursor: Cursor, limit: int) -> list[ListedModel]:
    """Return the newest versions over all schemas, newest first."""
    cursor.execute(f"{_LISTED} ORDER BY model.version DESC LIMIT %s", (limit,))
    return list(_listed(cursor))


def listed(cursor: Cursor, version: int) -> ListedModel | None:
    """Return what is known of a version."""
    cursor.execute(f"{_LISTED} WHERE model.version = %s", (version,))
    return next(_listed(cursor), None)


def decisions_on(cursor: Cursor, version: int) -> list[MadeDecision]:
    """Return what was decided on a version, oldest first."""
    cursor.execute(
        """
        SELECT
            decision, reason, reference_version, decided_by, devices, rows, mean_difference,
            p_value, decided_at
        FROM promotion_decisions WHERE version = %s ORDER BY id
        """,
        (version,),
    )
    return [MadeDecision(*row) for row in cursor.fetchall()]


def _listed(cursor: Cursor) -> Iterator[ListedModel]:
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return (ListedModel(*row) for row in rows)
