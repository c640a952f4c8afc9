"""What was decided on global models, and the evidence for it (`promotion_decisions`)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from flead.storage.connection import Cursor
from flead.storage.copying import copy_rows

ROUND: Final = "aggregation_round"
"""Decides where nobody was asked."""

EVALUATION: Final = "rollback_model/evaluation_quality__"
"""Begins who decides where an evaluation has triggered a run of `rollback_model`."""


class Decision(StrEnum):
    """What became of a version; `restored` is one that carries the weights of an earlier one."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    RESTORED = "restored"


class DecidedOn(msgspec.Struct, frozen=True, kw_only=True):
    """A decision on a version; figures are those of the comparison with its reference, if any."""

    version: int
    reference_version: int | None
    decision: Decision
    reason: str
    aggregation_round: int | None
    decided_by: str = ROUND
    devices: int | None = None
    rows: int | None = None
    mean_difference: float | None = None
    p_value: float | None = None


_COLUMNS: Final = DecidedOn.__struct_fields__


def record(cursor: Cursor, *decisions: DecidedOn) -> None:
    """Store decisions."""
    copy_rows(
        cursor,
        "promotion_decisions",
        _COLUMNS,
        ([getattr(each, name) for name in _COLUMNS] for each in decisions),
    )


def restored_by(cursor: Cursor, decided_by: str) -> int | None:
    """Return the version that a request has restored, None when it has restored none."""
    cursor.execute(
        "SELECT version FROM promotion_decisions WHERE decision = 'restored' AND decided_by = %s",
        (decided_by,),
    )
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def restored_within(cursor: Cursor, feature_schema: str, seconds: float) -> bool:
    """Whether a head of the schema was taken back in the last `seconds` without being asked to."""
    cursor.execute(
        """
        SELECT EXISTS (
            SELECT FROM promotion_decisions AS made
            INNER JOIN federated_models AS model ON made.version = model.version
            WHERE made.decision = 'restored'
                AND (made.decided_by = %s OR starts_with(made.decided_by, %s))
                AND model.feature_schema = %s
                AND made.decided_at > now() - make_interval(secs => %s)
        )
        """,
        (ROUND, EVALUATION, feature_schema, seconds),
    )
    return bool(cursor.fetchall()[0][0])


def rolled_back_by(cursor: Cursor, decided_by: str) -> list[int]:
    """Return the versions that a request has taken back, oldest first."""
    cursor.execute(
        "SELECT version FROM promotion_decisions"
        " WHERE decision = 'rolled_back' AND decided_by = %s ORDER BY version",
        (decided_by,),
    )
    return [version for (version,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class DeviceLoss:
    """Log loss of two versions on a device, each a sum over its number of labelled rows."""

    device_id: str
    rows: int
    log_loss_sum: float
    reference_rows: int
    reference_log_loss_sum: float


_COMPARABLE: Final = """
    feature_schema = %(schema)s AND aggregation_round >= %(since)s AND trial IS NULL
    AND (status IN ('accepted', 'superseded') OR reject_reason = 'not_trained')
"""
"""Plausible updates: those of a device that does not train now are measured all the same."""


def candidate_losses(
    cursor: Cursor, feature_schema: str, candidate: int, parent: int, since_round: int
) -> list[DeviceLoss]:
    """Return what devices lost by a candidate and by its parent on the same rows.

    Over the updates that rounds from `since_round` on found plausible, trials left out: there the
    rows are the same, the devices not a sample of the fleet.
    """
    cursor.execute(
        f"""
        SELECT
            device_id,
            sum((candidate_metrics ->> 'rows')::bigint)::bigint,
            sum((candidate_metrics ->> 'log_loss_sum')::double precision),
            sum((global_metrics ->> 'rows')::bigint)::bigint,
            sum((global_metrics ->> 'log_loss_sum')::double precision)
        FROM local_models
        WHERE {_COMPARABLE}
            AND (candidate_metrics ->> 'version')::bigint = %(candidate)s
            AND (global_metrics ->> 'version')::bigint = %(parent)s
        GROUP BY device_id ORDER BY device_id
        """,  # noqa: S608 - a constant
        {
            "since": since_round,
            "schema": feature_schema,
            "candidate": candidate,
            "parent": parent,
        },
    )
    return [DeviceLoss(*row) for row in cursor.fetchall()]


def prequential_losses(
    cursor: Cursor, feature_schema: str, version: int, reference: int, since_round: int
) -> list[DeviceLoss]:
    """Return what devices lost by a version while it was current, and by the one before it.

    Over the plausible updates of rounds from `since_round` on; only devices that scored both.
    """
    cursor.execute(
        f"""
        WITH scored AS (
            SELECT
                device_id,
                (global_metrics ->> 'version')::bigint AS version,
                (global_metrics ->> 'rows')::bigint AS rows,
                (global_metrics ->> 'log_loss_sum')::double precision AS log_loss_sum
            FROM local_models
            WHERE {_COMPARABLE}
        )

        SELECT
            device_id,
            sum(rows) FILTER (WHERE version = %(version)s)::bigint,
            sum(log_loss_sum) FILTER (WHERE version = %(version)s),
            sum(rows) FILTER (WHERE version = %(reference)s)::bigint,
            sum(log_loss_sum) FILTER (WHERE version = %(reference)s)
        FROM scored WHERE version IN (%(version)s, %(reference)s)
        GROUP BY device_id HAVING count(DISTINCT version) = 2 ORDER BY device_id
        """,  # noqa: S608 - a constant
        {
            "since": since_round,
            "schema": feature_schema,
            "version": version,
            "reference": reference,
        },
    )
    return [DeviceLoss(*row) for row in cursor.fetchall()]


def evaluated_losses(
    cursor: Cursor, version: int, reference: int, min_rows: int
) -> tuple[float, float] | None:
    """Return the fleet's log loss by two versions in the newest passed evaluation of both.

    One of fewer than `min_rows` labelled rows says nothing.
    """
    cursor.execute(
        """
        SELECT own.log_loss, other.log_loss
        FROM passed_evaluations AS own
        INNER JOIN passed_evaluations AS other
            ON own.evaluation_run_id = other.evaluation_run_id AND other.device_id = '*'
            AND own.window_start = other.window_start AND own.window_end = other.window_end
        WHERE own.device_id = '*' AND own.model_version = %s AND other.model_version = %s
            AND own.log_loss IS NOT NULL AND other.log_loss IS NOT NULL
            AND least(own.samples, other.samples) >= %s
        ORDER BY own.evaluation_timestamp DESC LIMIT 1
        """,
        (version, reference, min_rows),
    )
    row = cursor.fetchone()
    return None if row is None else (float(row[0]), float(row[1]))


def labelled_devices(cursor: Cursor, feature_schema: str, since_round: int) -> int:
    """Count the devices with labelled rows in rounds from `since_round` on: who can compare."""
    cursor.execute(
        f"""
        SELECT count(DISTINCT device_id) FROM local_models
        WHERE {_COMPARABLE} AND rows_labelled > 0
        """,  # noqa: S608 - a constant
        {"since": since_round, "schema": feature_schema},
    )
    return int(cursor.fetchall()[0][0])
