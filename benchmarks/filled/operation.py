"""What runs and how it has been: deployments, readings of the health gate, positions, messages."""

from typing import Final

import msgspec
import numpy as np

from benchmarks.filled.columns import Times, copy_columns
from benchmarks.filled.fleet import ROWS_PER_MINUTE, Fleet
from benchmarks.filled.history import History
from flead.contracts.analysis import StreamAnalysis
from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import GLOBAL_KEY
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.health.readings import JOB_ABSENT, JOB_RUNNING
from flead.rounds.opening import CONSUMER as ROUNDS
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.deployments import job_id
from flead.storage.offsets import store_next_offsets
from flead.storage.stream_batches import CONSUMER as STREAM

INTERVAL_SECONDS: Final = 5.0
BATCHES: Final = 200
"""Batches of the stream analysis that are remembered."""

PUBLISHED_MODELS: Final = 100
BREACHED_EVERY: Final = 700
HEALED_EVERY: Final = 2_900


def write_operation(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write it."""
    _write_training(cursor, fleet)
    _write_stream(cursor, fleet, history)
    _write_health(cursor, fleet)
    _write_published(cursor, fleet, history)
    store_next_offsets(
        cursor, ROUNDS, Topic.LOCAL_UPDATES.value, fleet.update_offsets(fleet.minutes)
    )
    store_next_offsets(cursor, STREAM, Topic.TELEMETRY.value, fleet.first_offsets(fleet.minutes))


def _write_training(cursor: Cursor, fleet: Fleet) -> None:
    """Write a first deployment that was stopped, and one that was healed and runs."""
    configuration = Jsonb(TrainingDeployment(list(FEATURES), "127.0.0.1:9092"))
    healed = fleet.minutes // 2
    attempts = (
        ("first", 1, "submit", "superseded", None, 0, "superseded by a later job"),
        ("first", 1, "stop", "completed", None, healed - 60, "stopped by deploy_training"),
        ("second", 1, "submit", "failed", None, healed - 59, "the job is FAILED"),
        ("second", 2, "restore", "active", "savepoints/second-1", healed, None),
        ("second", 2, "savepoint", "completed", None, fleet.minutes - 300, "asked for"),
    )
    copy_rows(
        cursor,
        "training_deployments",
        (
            "deployment_id", "attempt", "kind", "status", "restored_from", "reason", "job_id",
            "savepoint_path", "feature_schema", "configuration", "created_at", "updated_at",
        ),
        (
            (
                name, attempt, kind, status, restored, reason, job_id(name, attempt),
                f"savepoints/{name}-{attempt}" if status == "completed" else None,
                fleet.schema, configuration, at, at,
            )
            for name, attempt, kind, status, restored, minute, reason in attempts
            for at in [fleet.at(minute)]
        ),
    )  # fmt: skip


def _write_stream(cursor: Cursor, fleet: Fleet, history: History) -> None:
    query = "00000000-0000-4000-8000-000000000001"
    configuration = StreamAnalysis("stream-1", {}, "checkpoints", "state", "archive")
    copy_rows(
        cursor,
        "stream_deployments",
        (
            "deployment_id", "state", "configuration", "hostname", "pid", "query_id", "lag_rows",
            "submitted_at", "started_at", "heartbeat_at", "last_batch_at",
        ),
        [
            (
                "stream-1", "active", Jsonb(configuration), "worker-1", 4_711, query,
                len(fleet) * 3, fleet.at(0), fleet.at(1), fleet.at(fleet.minutes),
                fleet.at(fleet.minutes),
            )
        ],
    )  # fmt: skip
    # Two batches a minute, each of half its rows.
    number = np.arange(max(0, 2 * fleet.minutes - BATCHES), 2 * fleet.minutes)
    opened = fleet.start_ms + (number + 1) * 30_000
    seconds = fleet.generator(8).uniform(2.0, 9.0, len(number)).round(2)
    rows = len(fleet) * ROWS_PER_MINUTE // 2
    copy_columns(
        cursor,
        "stream_analysis_batches",
        {
            "query_id": query,
            "batch_id": number,
            "state": "committed",
            "model_version": history.head_at[number // 2],
            "feature_names": "{" + ",".join(FEATURES) + "}",
            "messages": rows,
            "rows": rows,
            "invalid": 0,
            "late_rows": 0,
            "seconds": seconds,
            "opened_at": Times(opened),
            "committed_at": Times(opened + (seconds * 1_000).astype(np.int64)),
        },
    )


def _write_health(cursor: Cursor, fleet: Fleet) -> None:
    """Write a reading a minute: some of them beyond a limit, now and then a job that was lost."""
    random = fleet.generator(10)
    minute = np.arange(fleet.minutes)
    count = len(minute)
    left = fleet.minutes - minute
    is_lost = left % HEALED_EVERY == HEALED_EVERY // 2
    is_late = (left % BREACHED_EVERY == BREACHED_EVERY // 2) & ~is_lost
    lag = random.poisson(0.02 * len(fleet) * ROWS_PER_MINUTE, count)
    lag = np.where(is_late, 10 * len(fleet) * ROWS_PER_MINUTE, lag)
    rate = len(fleet) * ROWS_PER_MINUTE / 60.0
    age = np.where(is_late, 700.0, random.uniform(0.5, INTERVAL_SECONDS, count)).round(2)
    late = '[{"rule":"checkpoint_stalled_seconds","value":700.0,"limit":600.0}]'
    lost = f'[{{"rule":"job_absent","value":"{JOB_ABSENT}","limit":"{JOB_RUNNING}"}}]'
    verdict = np.select([is_lost, is_late], ["healing", "breached"], "healthy")
    reasons = np.select([is_lost, is_late], [lost, late], "[]")
    copy_columns(
        cursor,
        "training_health",
        {
            "created_at": Times(fleet.start_ms + minute * 60_000 + 30_000),
            "dag_run_id": [f"monitor__{each}" for each in minute.tolist()],
            "deployment_id": np.where(minute < fleet.minutes // 2, "first", "second").tolist(),
            "job_id": np.where(
                minute < fleet.minutes // 2, job_id("first", 1), job_id("second", 2)
            ).tolist(),
            "job_state": np.where(is_lost, JOB_ABSENT, JOB_RUNNING).tolist(),
            "vertices_running": np.where(is_lost, 0, 5),
            "vertices_total": 5,
            "checkpoint_interval_seconds": INTERVAL_SECONDS,
            "window_seconds": 60.0,
            "checkpoint_age_seconds": age,
            "failed_checkpoints": np.where(is_late, 2, 0),
            "restarts": 0,
            "back_pressure_ratio": random.beta(1.0, 20.0, count).round(4),
            "lag_rows": lag,
            "lag_seconds": (lag / rate).round(2),
            "rows_per_second": (rate * random.uniform(0.97, 1.03, count)).round(1),
            "updates_per_second": (len(fleet) / 60.0 * random.uniform(0.9, 1.1, count)).round(2),
            "dead_letters_per_minute": random.poisson(0.2, count).astype(np.float64),
            "stream_deployment_id": "stream-1",
            "stream_state": "active",
            "stream_trigger_seconds": 30.0,
            "stream_batch_age_seconds": random.uniform(1.0, 30.0, count).round(2),
            "stream_lag_rows": random.poisson(len(fleet) * 3, count),
            "stream_lag_seconds": random.uniform(10.0, 40.0, count).round(2),
            "positions": "{}",
            "deploying": "{}",
            "healing": np.where(is_lost, "{training}", "{}").tolist(),
            "verdict": verdict.tolist(),
            "reasons": reasons.tolist(),
        },
    )


def _write_published(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write the messages of the newest promoted versions."""
    promoted = [each for each in history.versions if each.promoted_minute is not None]
    newest = promoted[-PUBLISHED_MODELS:]
    sent = np.array([fleet.at_ms(each.promoted_minute or 0) + 4_000 for each in newest])
    copy_columns(
        cursor,
        "outbox",
        {
            "topic": Topic.GLOBAL_UPDATES.value,
            "key": GLOBAL_KEY,
            "value": [
                msgspec.json.encode(
                    {
                        "version": each.version,
                        "parent_version": each.parent,
                        "status": "promoted",
                        "feature_schema": fleet.schema,
                    }
                ).decode()
                for each in newest
            ],
            "state": "published",
            "created_at": Times(sent),
            "published_at": Times(sent + 1_000),
        },
    )
