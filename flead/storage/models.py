"""Global model versions and the head of each feature schema (`federated_models`, `model_head`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg2.extras import execute_values

from flead.contracts.messages import GlobalModel, Metrics, ModelStatus, Moments
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.times import from_milliseconds, to_milliseconds


class HeadMovedError(Exception):
    """Another version became the head since its parent was read; nothing was written."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version with what its message does not carry.

    `input_offsets` maps each partition of the raw topic to the highest offset that the version or
    an ancestor was trained on; `options` are those of its strategy.
    """

    model: GlobalModel
    options: Mapping[str, Any]
    input_offsets: Mapping[int, int]
    hyperparameters_revision: int
    artifact_path: str
    artifact_sha256: str


_COLUMNS: Final = (
    "version",
    "parent_version",
    "restored_version",
    "status",
    "aggregation_round",
    "feature_schema",
    "feature_names",
    "weights",
    "intercept",
    "standardizer",
    "strategy",
    "num_devices",
    "num_updates",
    "total_samples",
    "parent_accuracy",
    "parent_loss",
    "created_at",
    "options",
    "input_offsets",
    "hyperparameters_revision",
    "artifact_path",
    "artifact_sha256",
)


def insert_model(cursor: Cursor, stored: StoredModel) -> None:
    """Store a new version; a promoted one is promoted as of its timestamp."""
    model = stored.model
    created_at = from_milliseconds(model.timestamp)
    row = (
        model.version,
        model.parent_version,
        model.restored_version,
        model.status,
        # A version that restores another is of no round.
        model.aggregation_round or None,
        model.feature_schema,
        model.feature_names,
        model.weights,
        model.intercept,
        Jsonb(model.standardizer),
        model.strategy,
        model.num_devices,
        model.num_updates,
        model.total_samples,
        model.global_accuracy,
        model.global_loss,
        created_at,
        Jsonb(stored.options),
        Jsonb(stored.input_offsets),
        stored.hyperparameters_revision,
        stored.artifact_path,
        stored.artifact_sha256,
        created_at if model.status is ModelStatus.PROMOTED else None,
    )
    copy_rows(cursor, "federated_models", (*_COLUMNS, "promoted_at"), [row])


def _from_row(row: Sequence[Any]) -> StoredModel:
    value = dict(zip(_COLUMNS, row, strict=True))
    model = GlobalModel(
        version=value["version"],
        parent_version=value["parent_version"],
        restored_version=value["restored_version"],
        status=ModelStatus(value["status"]),
        aggregation_round=value["aggregation_round"] or 0,
        feature_schema=value["feature_schema"],
        feature_names=value["feature_names"],
        weights=value["weights"],
        intercept=value["intercept"],
        standardizer=msgspec.convert(value["standardizer"], Moments),
        strategy=value["strategy"],
        num_devices=value["num_devices"],
        num_updates=value["num_updates"],
        total_samples=value["total_samples"],
        global_accuracy=value["parent_accuracy"],
        global_loss=value["parent_loss"],
        timestamp=to_milliseconds(value["created_at"]),
    )
    return StoredModel(
        model=model,
        options=value["options"],
        input_offsets={int(key): offset for key, offset in value["input_offsets"].items()},
        hyperparameters_revision=value["hyperparameters_revision"],
        artifact_path=value["artifact_path"],
        artifact_sha256=value["artifact_sha256"],
    )


def models(cursor: Cursor, versions: Iterable[int]) -> dict[int, StoredModel]:
    """Return the stored ones of `versions`, by version."""
    cursor.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM federated_models WHERE version = ANY(%s)",  # noqa: S608 - constants
        (list(versions),),
    )
    stored = map(_from_row, cursor.fetchall())
    return {each.model.version: each for each in stored}


def artifact_paths(cursor: Cursor) -> frozenset[str]:
    """Return the path of the artifact of every stored version."""
    cursor.execute("SELECT artifact_path FROM federated_models")
    return frozenset(path for (path,) in cursor.fetchall())


def newest_promoted(
    cursor: Cursor, feature_schema: str, up_to: int, count: int
) -> list[StoredModel]:
    """Return the newest `count` promoted versions of a schema that are not above `up_to`."""
    cursor.execute(
        f"""
        SELECT {", ".join(_COLUMNS)} FROM federated_models
        WHERE feature_schema = %s AND version <= %s AND status = 'promoted'
        ORDER BY version DESC LIMIT %s
        """,  # noqa: S608 - the columns are constants of this module
        (feature_schema, up_to, count),
    )
    return [_from_row(row) for row in cursor.fetchall()]


def newest_aggregated(cursor: Cursor, feature_schema: str, count: int) -> list[StoredModel]:
    """Return the newest `count` versions of a schema that rounds have made, newest first.

    Whatever became of them. Versions that restore another one were made by no round.
    """
    cursor.execute(
        f"""
        SELECT {", ".join(_COLUMNS)} FROM federated_models
        WHERE feature_schema = %s AND restored_version IS NULL
        ORDER BY version DESC LIMIT %s
        """,  # noqa: S608 - the columns are constants of this module
        (feature_schema, count),
    )
    return [_from_row(row) for row in cursor.fetchall()]


def pending_candidate(cursor: Cursor, feature_schema: str) -> StoredModel | None:
    """Return the version of a schema that awaits its verdict, None without one."""
    cursor.execute(
        f"""
        SELECT {", ".join(_COLUMNS)} FROM federated_models
        WHERE feature_schema = %s AND status = 'candidate'
        """,  # noqa: S608 - the columns are constants of this module
        (feature_schema,),
    )
    row = cursor.fetchone()
    return None if row is None else _from_row(row)


def mark_promoted(cursor: Cursor, version: int, now: datetime) -> None:
    """Record that a candidate is promoted; `advance_head` makes it the head."""
    cursor.execute(
        "UPDATE federated_models SET status = 'promoted', promoted_at = %s"
        " WHERE version = %s AND status = 'candidate'",
        (now, version),
    )


def set_status(cursor: Cursor, versions: Iterable[int], status: ModelStatus) -> None:
    """Write the status of versions that are taken back or rejected."""
    cursor.execute(
        "UPDATE federated_models SET status = %s WHERE version = ANY(%s)",
        (status.value, list(versions)),
    )


def promoted_above(cursor: Cursor, feature_schema: str, version: int) -> list[int]:
    """Return the promoted versions of a schema above `version`, oldest first."""
    cursor.execute(
        "SELECT version FROM federated_models"
        " WHERE feature_schema = %s AND version > %s AND status = 'promoted' ORDER BY version",
        (feature_schema, version),
    )
    return [found for (found,) in cursor.fetchall()]


def rolled_back_versions(cursor: Cursor, feature_schema: str) -> frozenset[int]:
    """Return the versions of a schema that were taken back."""
    cursor.execute(
        "SELECT version FROM federated_models WHERE feature_schema = %s AND status = 'rolled_back'",
        (feature_schema,),
    )
    return frozenset(version for (version,) in cursor.fetchall())


_AS_OF: Final = """
    FROM federated_models AS model
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM federated_models AS later
            WHERE later.feature_schema = model.feature_schema AND later.promoted_at <= %(at)s
                AND later.restored_version < model.version AND model.version < later.version
        ) AS is_rolled_back
    ) AS found
    WHERE model.feature_schema = %(schema)s AND model.promoted_at <= %(at)s
        AND coalesce(model.aggregation_round, 0) < %(round)s
"""


def newest_promoted_as_of(
    cursor: Cursor, feature_schema: str, aggregation_round: int, at: datetime, count: int
) -> list[StoredModel]:
    """Return what `newest_promoted` gave in a round that ended at `at`: first the head."""
    cursor.execute(
        f"SELECT {', '.join(f'model.{name}' for name in _COLUMNS)} {_AS_OF}"
        " AND NOT found.is_rolled_back ORDER BY model.version DESC LIMIT %(count)s",
        {"schema": feature_schema, "round": aggregation_round, "at": at, "count": count},
    )
    return [_from_row(row) for row in cursor.fetchall()]


def rolled_back_as_of(
    cursor: Cursor, feature_schema: str, aggregation_round: int, at: datetime
) -> frozenset[int]:
    """Return what `rolled_back_versions` gave in a round that ended at `at`."""
    cursor.execute(
        f"SELECT model.version {_AS_OF} AND found.is_rolled_back",
        {"schema": feature_schema, "round": aggregation_round, "at": at},
    )
    return frozenset(version for (version,) in cursor.fetchall())


def newest_version(cursor: Cursor) -> int:
    """Return the highest version number over all schemas; 0 when there is none."""
    cursor.execute("SELECT coalesce(max(version), 0) FROM federated_models")
    return int(cursor.fetchall()[0][0])


def head(cursor: Cursor, feature_schema: str) -> int | None:
    """Return the version that devices of a schema should use, None before the first."""
    cursor.execute("SELECT version FROM model_head WHERE feature_schema = %s", (feature_schema,))
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def newest_head(cursor: Cursor) -> int | None:
    """Return the highest version that is the head of its schema."""
    cursor.execute("SELECT max(version) FROM model_head")
    (version,) = cursor.fetchall()[0]
    return None if version is None else int(version)


def advance_head(cursor: Cursor, feature_schema: str, expected: int | None, version: int) -> None:
    """Make `version` the head of its schema if `expected` still is (compare and set).

    Raises
    ------
    HeadMovedError
        When the head is another one; the caller's transaction should roll back.
    """
    if expected is None:
        cursor.execute(
            """
            INSERT INTO model_head (feature_schema, version) VALUES (%s, %s)
            ON CONFLICT (feature_schema) DO NOTHING
            """,
            (feature_schema, version),
        )
    else:
        cursor.execute(
            "UPDATE model_head SET version = %s WHERE feature_schema = %s AND version = %s",
            (version, feature_schema, expected),
        )
    if cursor.rowcount != 1:
        raise HeadMovedError(
            f"version {version} was made from head {expected} of schema {feature_schema}, "
            f"which is {head(cursor, feature_schema)} now; aggregate the round again"
        )


def add_metrics(cursor: Cursor, sums: Iterable[Metrics]) -> None:
    """Add sums to the versions that they scored; each version at most once in `sums`.

    Versions that are not stored are left out: a device may name any number.
    """
    rows = [
        (each.version, each.rows, each.log_loss_sum, each.tp, each.fp, each.tn, each.fn)
        for each in sums
    ]
    if not rows:
        return
    execute_values(
        cursor,
        """
        UPDATE federated_models AS model
        SET metrics_rows = metrics_rows + more.rows,
            metrics_log_loss_sum = metrics_log_loss_sum + more.log_loss_sum,
            metrics_tp = metrics_tp + more.tp,
            metrics_fp = metrics_fp + more.fp,
            metrics_tn = metrics_tn + more.tn,
            metrics_fn = metrics_fn + more.fn
        FROM (VALUES %s) AS more (version, rows, log_loss_sum, tp, fp, tn, fn)
        WHERE model.version = more.version
        """,
        rows,
        page_size=len(rows),
    )
