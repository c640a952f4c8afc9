"""Submissions, savepoints and stops of the training job (`training_deployments`).

An *attempt* is one job: its row, with the job id, is written before the job is posted to Flink,
which refuses an id that it knows; so an attempt that is taken up again after a crash runs once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.contracts.schema import feature_schema
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows

RETAINED_CHECKPOINT: Final = re.compile(r"/chk-\d+/?$")
"""End of the path of a checkpoint that Flink has kept; any other path is that of a savepoint."""


class AttemptStatus(StrEnum):
    """Life of an attempt: `stopped` is for good, `suspended` until the stack starts again."""

    SUBMITTING = "submitting"
    ACTIVE = "active"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    FAILED = "failed"
    SUPERSEDED = "superseded"


class AttemptStateError(Exception):
    """The attempt is not in a state from which the step is possible."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One job of a deployment; `job_id` is Flink's, 32 hex digits.

    `restored_from` is the savepoint or checkpoint that it started from, `savepoint_path` the one
    that it left. `posted_at` is None for one that Flink has never been sent.
    """

    deployment_id: str
    attempt: int
    job_id: str
    status: AttemptStatus
    feature_schema: str
    configuration: TrainingDeployment
    restored_from: str | None
    savepoint_path: str | None
    reason: str | None
    posted_at: datetime | None


_COLUMNS: Final = (
    "deployment_id",
    "attempt",
    "job_id",
    "status",
    "feature_schema",
    "configuration",
    "restored_from",
    "savepoint_path",
    "reason",
    "posted_at",
)
_SELECT: Final = (
    f"SELECT {', '.join(_COLUMNS)} FROM training_deployments "  # noqa: S608 - constants
    "WHERE kind IN ('submit', 'restore')"
)


def job_id(deployment_id: str, attempt: int) -> str:
    """Return the Flink job id of an attempt: the first 32 hex digits of a SHA-256."""
    return hashlib.sha256(f"{deployment_id}/{attempt}".encode()).hexdigest()[:32]


def open_attempt(
    cursor: Cursor,
    deployment_id: str,
    configuration: TrainingDeployment,
    restored_from: str | None = None,
    reason: str | None = None,
) -> Attempt:
    """Return the attempt to submit: the unfinished one of this deployment, or else a new row.

    Parameters
    ----------
    restored_from
        Savepoint or checkpoint that the job starts from; None starts from nothing.
    reason
        Why it is started, where that is not what a person asked for.
    """
    cursor.execute(
        f"{_SELECT} AND deployment_id = %s ORDER BY attempt DESC LIMIT 1", (deployment_id,)
    )
    newest = _one(cursor)
    if newest and newest.status in (AttemptStatus.SUBMITTING, AttemptStatus.ACTIVE):
        return newest
    attempt = newest.attempt + 1 if newest else 1
    opened = Attempt(
        deployment_id,
        attempt,
        job_id(deployment_id, attempt),
        AttemptStatus.SUBMITTING,
        feature_schema(configuration.features),
        configuration,
        restored_from,
        savepoint_path=None,
        reason=reason,
        posted_at=None,
    )
    _insert(cursor, opened, "restore" if restored_from else "submit", opened.status)
    return opened


def mark_posted(cursor: Cursor, job: str) -> None:
    """Record that a job is about to be posted: from now on it may leave state."""
    cursor.execute(
        """
        UPDATE training_deployments SET posted_at = now()
        WHERE kind IN ('submit', 'restore') AND job_id = %s AND posted_at IS NULL
        """,
        (job,),
    )


def mark_active(cursor: Cursor, job: str) -> Attempt:
    """Make a submitted job the active one; every other unfinished attempt is superseded.

    Raises
    ------
    AttemptStateError
        When the job is neither being submitted nor active already.
    """
    attempt = _locked(cursor, job)
    if attempt.status not in (AttemptStatus.SUBMITTING, AttemptStatus.ACTIVE):
        raise AttemptStateError(
            f"job {job} is {attempt.status}; only a submitted job becomes active"
        )
    cursor.execute(
        """
        UPDATE training_deployments
        SET status = 'superseded', updated_at = now(), reason = coalesce(reason, %s)
        WHERE status IN ('active', 'suspended', 'submitting') AND job_id <> %s
        """,
        (f"superseded by job {job}", job),
    )
    mark_posted(cursor, job)
    return _set(cursor, job, AttemptStatus.ACTIVE, attempt.reason, None)


def mark_failed(
    cursor: Cursor, job: str, reason: str, savepoint_path: str | None = None
) -> Attempt:
    """Record that a job could not be started, or ended by itself, and the state that it left."""
    _locked(cursor, job)
    return _set(cursor, job, AttemptStatus.FAILED, reason, savepoint_path)


def mark_stopped(cursor: Cursor, job: str, reason: str, savepoint_path: str | None) -> Attempt:
    """Record that a job was stopped for good, and the savepoint that it left."""
    return _end(cursor, job, AttemptStatus.STOPPED, reason, savepoint_path)


def mark_replaced(
    cursor: Cursor,
    job: str,
    deployment_id: str,
    savepoint_path: str | None,
    control: TrainingControl | None,
) -> Attempt:
    """Record that a job was stopped for a deployment, or is down, and what it needs to come back.

    Parameters
    ----------
    control
        What the fleet trained with.
    """
    reason = f"replaced by deployment {deployment_id}"
    replaced = _end(cursor, job, AttemptStatus.STOPPED, reason, savepoint_path)
    cursor.execute(
        """
        UPDATE training_deployments SET replaced_by = %s, control = %s::jsonb
        WHERE kind IN ('submit', 'restore') AND job_id = %s
        """,
        (deployment_id, None if control is None else msgspec.json.encode(control).decode(), job),
    )
    return replaced


def replaced_by(cursor: Cursor, deployment_id: str) -> Attempt | None:
    """Return the attempt that was stopped for a deployment, None when there was none to stop."""
    cursor.execute(f"{_SELECT} AND replaced_by = %s ORDER BY id DESC LIMIT 1", (deployment_id,))
    return _one(cursor)


def give_up(
    cursor: Cursor, attempt: Attempt, deployment_id: str, savepoint_path: str | None
) -> Attempt | None:
    """Record that an attempt was cut off before it had started, and is passed over by another.

    What was stopped for its deployment was stopped for the other, then, unless something has
    started since: it is returned.
    """
    reason = f"cut off before it had started; deployment {deployment_id} came after it"
    mark_failed(cursor, attempt.job_id, reason, savepoint_path)
    cursor.execute(
        """
        UPDATE training_deployments SET replaced_by = %s
        WHERE replaced_by = %s AND status = 'stopped' AND id = (
            SELECT max(id) FROM training_deployments
            WHERE kind IN ('submit', 'restore') AND status NOT IN ('submitting', 'failed')
        )
        """,
        (deployment_id, attempt.deployment_id),
    )
    return replaced_by(cursor, deployment_id) if cursor.rowcount else None


def reinstate(cursor: Cursor, job: str, reason: str) -> bool:
    """Let a replaced attempt be the one to resume, unless something was opened since.

    Returns
    -------
    bool
        Whether that changed anything.
    """
    cursor.execute(
        """
        UPDATE training_deployments SET status = 'suspended', reason = %s, updated_at = now()
        WHERE job_id = %s AND status = 'stopped' AND id = (
            SELECT max(id) FROM training_deployments
            WHERE kind IN ('submit', 'restore') AND status <> 'failed'
        )
        """,
        (reason, job),
    )
    return cursor.rowcount > 0


def trained_with(cursor: Cursor, attempt: Attempt) -> tuple[Hyperparameters, int | None]:
    """Return what the fleet trained with when an attempt was replaced.

    Returns
    -------
    (Hyperparameters, int or None)
        With them, since which revision of `training-control`, if that is known.
    """
    cursor.execute(
        "SELECT control FROM training_deployments"
        " WHERE kind IN ('submit', 'restore') AND job_id = %s",
        (attempt.job_id,),
    )
    [(stored,)] = cursor.fetchall()
    if stored is None:
        return attempt.configuration.hyperparameters, None
    control = msgspec.convert(stored, TrainingControl)
    return control.hyperparameters, control.unchanged_since


def mark_suspended(cursor: Cursor, job: str, reason: str, savepoint_path: str | None) -> Attempt:
    """Record that a job was stopped until the stack starts again."""
    return _end(cursor, job, AttemptStatus.SUSPENDED, reason, savepoint_path)


def active(cursor: Cursor) -> Attempt | None:
    """Return the active attempt."""
    cursor.execute(f"{_SELECT} AND status = 'active'")
    return _one(cursor)


def resumable(cursor: Cursor) -> Attempt | None:
    """Return the attempt that `up` takes up again: what ran, or was about to, when it went down.

    None after a stop for good. Failed attempts are passed over: a deployment that could not be
    resumed is still the one to resume.
    """
    newest = last_that_ran(cursor)
    return None if newest is None or newest.status is AttemptStatus.STOPPED else newest


def last_that_ran(cursor: Cursor) -> Attempt | None:
    """Return the newest attempt that neither failed nor was superseded."""
    cursor.execute(f"{_SELECT} AND status NOT IN ('failed', 'superseded') ORDER BY id DESC LIMIT 1")
    return _one(cursor)


def expected(cursor: Cursor) -> Attempt | None:
    """Return the attempt whose job should run now, None when none should.

    A suspended one should once the stack has started again and could not resume it.
    """
    attempt = resumable(cursor)
    if attempt is None or attempt.status is not AttemptStatus.SUSPENDED:
        return attempt
    [newest] = newest_attempts(cursor, limit=1)
    return attempt if newest.status is AttemptStatus.FAILED else None


def attempt_of(cursor: Cursor, job: str) -> Attempt:
    """Return the attempt of a job.

    Raises
    ------
    AttemptStateError
        There is none.
    """
    cursor.execute(f"{_SELECT} AND job_id = %s", (job,))
    attempt = _one(cursor)
    if attempt is None:
        raise AttemptStateError(f"job {job} was never opened as an attempt of a deployment")
    return attempt


def newest_attempts(cursor: Cursor, limit: int = 100) -> list[Attempt]:
    """Return the last `limit` attempts of all deployments, newest first."""
    cursor.execute(f"{_SELECT} ORDER BY id DESC LIMIT %s", (limit,))
    return [_attempt(row) for row in cursor.fetchall()]


def unfinished_attempts(cursor: Cursor) -> list[Attempt]:
    """Return the attempts whose job runs or is to, newest first, however many failed since."""
    cursor.execute(f"{_SELECT} AND status IN ('submitting', 'active') ORDER BY id DESC")
    return [_attempt(row) for row in cursor.fetchall()]


def last_with_progress(cursor: Cursor, schema: str, buckets: int) -> Attempt | None:
    """Return the newest attempt that got anywhere, however many failed since.

    One that failed did if it left state that a job of this feature schema and number of buckets can
    continue from.
    """
    cursor.execute(
        f"""
        {_SELECT} AND (
            status <> 'failed'
            OR (
                savepoint_path IS NOT NULL
                AND feature_schema = %s
                AND (configuration ->> 'buckets')::integer = %s
            )
        )
        ORDER BY id DESC LIMIT 1
        """,
        (schema, buckets),
    )
    return _one(cursor)


def jobs_with_old_states(cursor: Cursor, kept: int) -> list[str]:
    """Return the jobs of which no state is needed any more and not all were deleted, oldest first.

    Kept are those of the newest attempts, of unfinished and suspended ones, of the newest that had
    started and whatever was tried since; and of each job that any of these was restored from or has
    left as its own.

    Parameters
    ----------
    kept
        How many of the newest attempts keep their states, at least 1.
    """
    cursor.execute(
        """
        WITH attempts AS (
            SELECT * FROM training_deployments WHERE kind IN ('submit', 'restore')
        ),

        kept AS (
            SELECT job_id, concat_ws(' ', restored_from, savepoint_path) AS states FROM attempts
            WHERE status IN ('submitting', 'active', 'suspended')
                OR id >= (
                    SELECT max(id) FROM attempts WHERE status NOT IN ('submitting', 'failed')
                )
                OR id >= (
                    SELECT min(id) FROM (
                        SELECT id FROM attempts ORDER BY id DESC LIMIT %s
                    ) AS newest
                )
        )

        SELECT job_id FROM attempts
        WHERE posted_at IS NOT NULL AND states_deleted_at IS NULL
            AND NOT EXISTS (
                SELECT FROM kept
                -- a savepoint is named after the beginning of its job's id
                WHERE left(kept.job_id, 6) = left(attempts.job_id, 6)
                    OR kept.states LIKE '%%/' || attempts.job_id || '/chk-%%'
                    OR kept.states LIKE '%%/savepoint-' || left(attempts.job_id, 6) || '-%%'
            )
        ORDER BY id
        """,
        (kept,),
    )
    return [job for (job,) in cursor.fetchall()]


def named_states(cursor: Cursor) -> list[str]:
    """Return the savepoints and checkpoints that an attempt has left or was restored from."""
    cursor.execute(
        """
        SELECT savepoint_path FROM training_deployments WHERE savepoint_path IS NOT NULL
        UNION
        SELECT restored_from FROM training_deployments WHERE restored_from IS NOT NULL
        """
    )
    return [path for (path,) in cursor.fetchall()]


def mark_states_deleted(cursor: Cursor, job: str) -> None:
    """Record that the states of a job were deleted."""
    cursor.execute(
        """
        UPDATE training_deployments SET states_deleted_at = now()
        WHERE kind IN ('submit', 'restore') AND job_id = %s
        """,
        (job,),
    )


def current_features(cursor: Cursor) -> list[str] | None:
    """Return the feature list in training.

    It is that of the active deployment, else of the one that starts, else of the one that was
    suspended: rounds go on before `up` has resumed the job, whose updates still wait in Kafka.
    """
    cursor.execute(
        f"{_SELECT} AND status IN ('active', 'submitting', 'suspended')"
        " ORDER BY array_position(ARRAY['active', 'submitting', 'suspended'], status), id DESC"
        " LIMIT 1"
    )
    attempt = _one(cursor)
    return None if attempt is None else attempt.configuration.features


def features_of(cursor: Cursor, feature_schema: str) -> list[str] | None:
    """Return the feature list of a fingerprint that was ever deployed, None for another."""
    cursor.execute(f"{_SELECT} AND feature_schema = %s ORDER BY id DESC LIMIT 1", (feature_schema,))
    attempt = _one(cursor)
    return None if attempt is None else attempt.configuration.features


def features_as_of(cursor: Cursor, at: datetime) -> list[str] | None:
    """Return the feature list of the newest attempt that did not fail and was made by `at`."""
    cursor.execute(
        f"{_SELECT} AND status <> 'failed' AND created_at <= %s ORDER BY id DESC LIMIT 1", (at,)
    )
    attempt = _one(cursor)
    return None if attempt is None else attempt.configuration.features


def _end(
    cursor: Cursor, job: str, status: AttemptStatus, reason: str, savepoint_path: str | None
) -> Attempt:
    before = _locked(cursor, job)
    after = _set(cursor, job, status, reason, savepoint_path)
    if before.status in (AttemptStatus.SUBMITTING, AttemptStatus.ACTIVE):
        if savepoint_path and not RETAINED_CHECKPOINT.search(savepoint_path):
            _insert(cursor, after, "savepoint", "completed", savepoint_path)
        _insert(cursor, after, "stop", "completed", savepoint_path)
    return after


def _locked(cursor: Cursor, job: str) -> Attempt:
    cursor.execute(
        "SELECT FROM training_deployments"
        " WHERE kind IN ('submit', 'restore') AND job_id = %s FOR UPDATE",
        (job,),
    )
    return attempt_of(cursor, job)


def _set(
    cursor: Cursor,
    job: str,
    status: AttemptStatus,
    reason: str | None,
    savepoint_path: str | None,
) -> Attempt:
    cursor.execute(
        """
        UPDATE training_deployments
        SET status = %s, reason = %s, savepoint_path = %s, updated_at = now()
        WHERE kind IN ('submit', 'restore') AND job_id = %s
        """,
        (status.value, reason, savepoint_path, job),
    )
    return _locked(cursor, job)


def _insert(
    cursor: Cursor, attempt: Attempt, kind: str, status: str, savepoint_path: str | None = None
) -> None:
    row = (
        attempt.deployment_id,
        attempt.attempt,
        attempt.job_id,
        kind,
        status,
        attempt.feature_schema,
        Jsonb(attempt.configuration),
        attempt.restored_from if kind == "restore" else None,
        savepoint_path,
        attempt.reason,
    )
    copy_rows(
        cursor,
        "training_deployments",
        (
            "deployment_id",
            "attempt",
            "job_id",
            "kind",
            "status",
            "feature_schema",
            "configuration",
            "restored_from",
            "savepoint_path",
            "reason",
        ),
        [row],
    )


def _one(cursor: Cursor) -> Attempt | None:
    row: Sequence[Any] | None = cursor.fetchone()
    return None if row is None else _attempt(row)


def _attempt(row: Sequence[Any]) -> Attempt:
    value = dict(zip(_COLUMNS, row, strict=True))
    value["status"] = AttemptStatus(value["status"])
    value["configuration"] = msgspec.convert(value["configuration"], TrainingDeployment)
    return Attempt(**value)
