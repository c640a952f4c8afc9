"""Drivers of the stream analysis (`stream_deployments`): what runs, how far it is, when to stop."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.analysis import StreamAnalysis
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, encode


class StreamState(StrEnum):
    """Life of a driver."""

    SUBMITTING = "submitting"
    ACTIVE = "active"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


RUNNING: Final = (StreamState.SUBMITTING, StreamState.ACTIVE, StreamState.STOPPING)


@dataclass(frozen=True, slots=True)
class StreamDeployment:
    """A driver, `pid` its own on `hostname`; times and lag are None until it reports them.

    `is_wanted`: the stack starts it again unless somebody stopped it for good.
    """

    deployment_id: str
    state: StreamState
    configuration: StreamAnalysis
    stop_requested: bool
    is_wanted: bool
    hostname: str | None
    pid: int | None
    query_id: str | None
    lag_rows: int | None
    reason: str | None
    submitted_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    last_batch_at: datetime | None


_COLUMNS: Final = (
    "deployment_id",
    "state",
    "configuration",
    "stop_requested",
    "is_wanted",
    "hostname",
    "pid",
    "query_id",
    "lag_rows",
    "reason",
    "submitted_at",
    "started_at",
    "heartbeat_at",
    "last_batch_at",
)
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM stream_deployments"  # noqa: S608 - constants


def submit(cursor: Cursor, configuration: StreamAnalysis) -> None:
    """Write the row of a driver that is about to be submitted; it is the wanted one from now on."""
    cursor.execute(
        "UPDATE stream_deployments SET is_wanted = FALSE WHERE deployment_id <> %s",
        (configuration.deployment_id,),
    )
    cursor.execute(
        """
        INSERT INTO stream_deployments (deployment_id, state, configuration)
        VALUES (%s, 'submitting', %s)
        ON CONFLICT (deployment_id) DO UPDATE SET
            state = 'submitting', configuration = excluded.configuration, stop_requested = FALSE,
            is_wanted = TRUE, reason = NULL, submitted_at = now(), started_at = NULL,
            heartbeat_at = NULL, last_batch_at = NULL, lag_rows = NULL
        """,
        (configuration.deployment_id, encode(Jsonb(configuration))),
    )


def get(cursor: Cursor, deployment_id: str) -> StreamDeployment | None:
    """Return a deployment."""
    cursor.execute(f"{_SELECT} WHERE deployment_id = %s", (deployment_id,))
    return _one(cursor)


def newest(cursor: Cursor) -> StreamDeployment | None:
    """Return the deployment that was submitted last."""
    cursor.execute(f"{_SELECT} ORDER BY submitted_at DESC, id DESC LIMIT 1")
    return _one(cursor)


def wanted(cursor: Cursor) -> StreamDeployment | None:
    """Return the deployment that the stack's start takes up; one that has failed would again."""
    cursor.execute(f"{_SELECT} WHERE is_wanted AND state <> 'failed' ORDER BY id DESC LIMIT 1")
    return _one(cursor)


def expected(cursor: Cursor) -> StreamDeployment | None:
    """Return the deployment that should run, also when its driver has failed."""
    cursor.execute(f"{_SELECT} WHERE is_wanted ORDER BY id DESC LIMIT 1")
    return _one(cursor)


def running(cursor: Cursor) -> list[StreamDeployment]:
    """Return the deployments that run as far as their rows tell; a killed one is among them."""
    cursor.execute(f"{_SELECT} WHERE state = ANY(%s)", ([each.value for each in RUNNING],))
    return [_deployment(row) for row in cursor.fetchall()]


def request_stop(cursor: Cursor, deployment_id: str) -> None:
    """Ask a driver to end after its batch."""
    cursor.execute(
        "UPDATE stream_deployments SET stop_requested = TRUE WHERE deployment_id = %s",
        (deployment_id,),
    )


def begin(
    cursor: Cursor, configuration: StreamAnalysis, hostname: str, pid: int, query_id: str
) -> None:
    """Record that a driver runs."""
    cursor.execute(
        """
        INSERT INTO stream_deployments AS known (
            deployment_id, state, configuration, hostname, pid, query_id, started_at, heartbeat_at
        ) VALUES (%s, 'active', %s, %s, %s, %s, now(), now())
        ON CONFLICT (deployment_id) DO UPDATE SET
            state = 'active', hostname = excluded.hostname, pid = excluded.pid,
            query_id = excluded.query_id, started_at = now(), heartbeat_at = now(), reason = NULL
        """,
        (configuration.deployment_id, encode(Jsonb(configuration)), hostname, pid, query_id),
    )


def beat(cursor: Cursor, deployment_id: str, lag_rows: int | None, *, is_stopping: bool) -> bool:
    """Record that a driver lives and how far it lies behind; tell whether it must stop."""
    cursor.execute(
        """
        UPDATE stream_deployments SET
            heartbeat_at = now(),
            lag_rows = coalesce(%s, lag_rows),
            state = CASE WHEN %s THEN 'stopping' ELSE state END
        WHERE deployment_id = %s
        RETURNING stop_requested
        """,
        (lag_rows, is_stopping, deployment_id),
    )
    row = cursor.fetchone()
    return row is None or bool(row[0])


def record_batch(cursor: Cursor, deployment_id: str) -> None:
    """Record that a batch was committed, in its transaction."""
    cursor.execute(
        "UPDATE stream_deployments SET last_batch_at = now() WHERE deployment_id = %s",
        (deployment_id,),
    )


def end(cursor: Cursor, deployment_id: str, state: StreamState, reason: str) -> None:
    """Record that a driver has ended, and why."""
    cursor.execute(
        "UPDATE stream_deployments SET state = %s, reason = %s WHERE deployment_id = %s",
        (state.value, reason, deployment_id),
    )


def refuse(cursor: Cursor, deployment_id: str, reason: str) -> None:
    """Record that a driver could not begin; one that runs under the same name is left alone."""
    cursor.execute(
        "UPDATE stream_deployments SET state = 'failed', reason = %s"
        " WHERE deployment_id = %s AND state = 'submitting'",
        (reason, deployment_id),
    )


def _one(cursor: Cursor) -> StreamDeployment | None:
    row = cursor.fetchone()
    return None if row is None else _deployment(row)


def _deployment(row: tuple[Any, ...]) -> StreamDeployment:
    value = dict(zip(_COLUMNS, row, strict=True))
    value["state"] = StreamState(value["state"])
    value["configuration"] = msgspec.convert(value["configuration"], StreamAnalysis)
    return StreamDeployment(**value)
