"""Decisions about the fleet's hyperparameters (`tuning_decisions`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.messages import Hyperparameters, Trial
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows


class DecisionStatus(StrEnum):
    """Life of a decision."""

    PROPOSED = "proposed"
    TRYING = "trying"
    AWAITING_APPROVAL = "awaiting_approval"
    ADOPTED = "adopted"
    KEPT = "kept"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVERTED = "reverted"


@dataclass(frozen=True, slots=True)
class TuningDecision:
    """A change of the fleet's hyperparameters, or a decision to change nothing.

    Parameters
    ----------
    revision
        Of `training-control`, where it published the trials or the revert; a decision to keep has
        one that is published nowhere.
    parent_revision
        What the fleet trained with when it was decided; of a revert, the change taken back.
    model_version
        The head when it was decided.
    hyperparameters, incumbent
        What the fleet trains with by this decision, and what it trained with before.
    fleet_revision
        The newest revision that gave `hyperparameters` to the whole fleet.
    evidence
        What each step was decided on, by the step's name.
    settled_at
        When nothing more could happen to it; None while it is in flight.
    """

    revision: int
    parent_revision: int
    status: DecisionStatus
    reason: str
    feature_schema: str
    model_version: int
    hyperparameters: Hyperparameters
    incumbent: Hyperparameters
    trials: list[Trial]
    horizon_seconds: float
    fleet_revision: int | None
    evidence: Mapping[str, Any]
    decided_by: str
    created_at: datetime
    trial_started_at: datetime | None = None
    decided_at: datetime | None = None
    settled_at: datetime | None = None


_COLUMNS: Final = tuple(TuningDecision.__dataclass_fields__)
_DOCUMENTS: Final = ("hyperparameters", "incumbent", "trials", "evidence")
# What a later step may change.
_LIVE: Final = (
    "status",
    "reason",
    "hyperparameters",
    "fleet_revision",
    "evidence",
    "decided_by",
    "trial_started_at",
    "decided_at",
    "settled_at",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM tuning_decisions"  # noqa: S608 - constants


def insert(cursor: Cursor, decision: TuningDecision) -> None:
    """Store a new decision.

    Raises
    ------
    psycopg2.errors.UniqueViolation
        When another change is in flight.
    """
    row = [
        Jsonb(getattr(decision, name)) if name in _DOCUMENTS else getattr(decision, name)
        for name in _COLUMNS
    ]
    copy_rows(cursor, "tuning_decisions", _COLUMNS, [row])


def update(cursor: Cursor, decision: TuningDecision) -> None:
    """Write what a step has made of a stored decision.

    Raises
    ------
    LookupError
        When it is not stored.
    """
    values = [
        msgspec.json.encode(getattr(decision, name)).decode()
        if name in _DOCUMENTS
        else getattr(decision, name)
        for name in _LIVE
    ]
    assignments = ", ".join(f"{name} = %s" for name in _LIVE)
    cursor.execute(
        f"UPDATE tuning_decisions SET {assignments} WHERE revision = %s",  # noqa: S608 - constants
        (*values, decision.revision),
    )
    if cursor.rowcount != 1:
        raise LookupError(f"there is no tuning decision {decision.revision}")


def get(cursor: Cursor, revision: int) -> TuningDecision:
    """Return the decision of that revision.

    Raises
    ------
    LookupError
        When there is none.
    """
    cursor.execute(f"{_SELECT} WHERE revision = %s", (revision,))
    found = _one(cursor)
    if found is None:
        raise LookupError(f"there is no tuning decision {revision}")
    return found


def in_flight(cursor: Cursor) -> TuningDecision | None:
    """Return the one decision that is not settled, if any."""
    cursor.execute(f"{_SELECT} WHERE settled_at IS NULL")
    return _one(cursor)


def newest(cursor: Cursor, feature_schema: str) -> TuningDecision | None:
    """Return the last decision about the models of a schema."""
    cursor.execute(
        f"{_SELECT} WHERE feature_schema = %s ORDER BY revision DESC LIMIT 1", (feature_schema,)
    )
    return _one(cursor)


def newest_since(cursor: Cursor, instant: datetime) -> TuningDecision | None:
    """Return the last decision that was begun at `instant` or later."""
    cursor.execute(f"{_SELECT} WHERE created_at >= %s ORDER BY revision DESC LIMIT 1", (instant,))
    return _one(cursor)


def behind(cursor: Cursor, fleet_revision: int) -> TuningDecision | None:
    """Return the decision that a revision of the fleet comes from; None when a person set it."""
    cursor.execute(f"{_SELECT} WHERE fleet_revision = %s", (fleet_revision,))
    return _one(cursor)


def _one(cursor: Cursor) -> TuningDecision | None:
    row = cursor.fetchone()
    return None if row is None else _from_row(row)


def _from_row(row: Sequence[Any]) -> TuningDecision:
    value = dict(zip(_COLUMNS, row, strict=True))
    value["status"] = DecisionStatus(value["status"])
    value["trials"] = msgspec.convert(value["trials"], list[Trial])
    for name in ("hyperparameters", "incumbent"):
        value[name] = msgspec.convert(value[name], Hyperparameters)
    return TuningDecision(**value)
