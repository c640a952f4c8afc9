"""What is old and nobody needs any more leaves the database: `dags/maintenance.py` calls it daily.

On plain PostgreSQL rows are deleted in batches, each a transaction, so that no lock is held for
long. A hypertable of TimescaleDB loses whole chunks: by its own policy, which is set to the
settings, or where it has none (the Apache edition has none at all) by `drop_chunks`.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from flead.contracts.messages import CANDIDATE_KEY, CONTROL_KEY, GLOBAL_KEY
from flead.contracts.topics import Topic
from flead.settings import Settings
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, lock_for_transaction

BATCH_ROWS: Final = 10_000
REACH_ROUNDS: Final = 100
"""Newest rounds of which updates are kept whatever their age: twice as far as verdicts look back,
and what a candidate or a decision still waits for.
"""
KEPT_DEPLOYMENTS: Final = 20
"""Newest attempts that are kept whatever their age: the job may have to be restored from one."""

TIMED: Final[Mapping[str, tuple[str, str]]] = {
    "model_evaluations": ("window_end", "retention_evaluations_days"),
    "model_feedback": ("event_time", "retention_feedback_days"),
    "stream_analysis_results": ("window_start", "retention_stream_days"),
    "anomalies": ("event_time", "retention_stream_days"),
    "device_samples": ("event_time", "retention_stream_days"),
    "device_status": ("kafka_timestamp", "retention_stream_days"),
    "batch_analysis_results": ("analysis_date", "retention_batch_days"),
    "data_quality_results": ("created_at", "retention_quality_days"),
    "training_health": ("created_at", "retention_health_days"),
}
"""Tables of which the age of a row alone decides: its time, and the setting."""

logger = logging.getLogger(__name__)


def expire_timed(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete the old rows of every table where their age alone decides.

    Returns
    -------
    dict
        What each table has lost: rows, or chunks of a hypertable without a policy.
    """
    lost: dict[str, int] = {}
    for table, (column, setting) in TIMED.items():
        days = getattr(settings, setting)
        before = now - timedelta(days=days)
        if not _is_hypertable(database_url, table):
            lost[table] = _delete(database_url, table, f"{column} < %(before)s", {"before": before})
        elif _set_policy(database_url, table, days):
            lost[table] = 0
        else:
            lost[table] = _drop_chunks(database_url, table, before)
    return lost


def expire_updates(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete updates of old rounds, and keep what the replay of later ones needs of them.

    That is the newest accepted moments of each device. The last `REACH_ROUNDS` rounds, and those of
    the versions that the next decision about hyperparameters compares, keep their updates.
    """
    limit = now - timedelta(days=settings.retention_updates_days)
    with connect(database_url) as connection, connection.cursor() as cursor:
        before = _oldest_needed_update(cursor, settings, limit)
        cursor.execute(
            """
            INSERT INTO expired_moments AS known (
                feature_schema, device_id, aggregation_round, kafka_offset, moments
            )
            SELECT DISTINCT ON (feature_schema, device_id)
                feature_schema, device_id, aggregation_round, kafka_offset, moments
            FROM local_models
            WHERE kafka_timestamp < %s AND status = 'accepted'
            ORDER BY feature_schema, device_id, aggregation_round DESC, kafka_offset DESC
            ON CONFLICT (feature_schema, device_id) DO UPDATE SET
                aggregation_round = excluded.aggregation_round,
                kafka_offset = excluded.kafka_offset,
                moments = excluded.moments
            WHERE (known.aggregation_round, known.kafka_offset)
                < (excluded.aggregation_round, excluded.kafka_offset)
            """,
            (before,),
        )
    if _is_hypertable(database_url, "local_models"):
        lost = _drop_chunks(database_url, "local_models", before)
    else:
        condition = "kafka_timestamp < %(before)s"
        lost = _delete(database_url, "local_models", condition, {"before": before})
    return {"local_models": lost}


def newest_expired_round(cursor: Cursor, feature_schema: str) -> int:
    """Return the newest round of which retention has taken updates of a schema; 0 before any."""
    cursor.execute(
        "SELECT coalesce(max(aggregation_round), 0) FROM expired_moments WHERE feature_schema = %s",
        (feature_schema,),
    )
    return int(cursor.fetchall()[0][0])


def expire_models(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete old global models with the decisions on them.

    Besides those within retention, these stay: heads, candidates, the newest version, the promoted
    ones that came before retention began as far as anything looks back, and what any of them was
    made from, compared with or restores; and versions that a day was analysed with.
    """
    parameters = {
        "before": now - timedelta(days=settings.retention_models_days),
        "versions": max(
            settings.retention_versions, settings.max_staleness + 1, 2 * settings.tuning_versions
        ),
    }
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        cursor.execute(_DOOMED_MODELS, parameters)
        doomed = [version for (version,) in cursor.fetchall()]
        cursor.execute("DELETE FROM promotion_decisions WHERE version = ANY(%s)", (doomed,))
        decisions = cursor.rowcount
        cursor.execute(
            "UPDATE promotion_decisions SET reference_version = NULL"
            " WHERE reference_version = ANY(%s)",
            (doomed,),
        )
        cursor.execute("DELETE FROM federated_models WHERE version = ANY(%s)", (doomed,))
    return {"promotion_decisions": decisions, "federated_models": len(doomed)}


def expire_rounds(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete old rounds that are finished, and to which no update, model or decision refers."""
    condition = """
        completed_at < %(before)s
        AND round <= (SELECT max(round) FROM aggregation_rounds) - %(reach)s
        AND NOT EXISTS (
            SELECT FROM local_models AS of WHERE of.aggregation_round = aggregation_rounds.round
        )
        AND NOT EXISTS (
            SELECT FROM device_moments AS of WHERE of.aggregation_round = aggregation_rounds.round
        )
        AND NOT EXISTS (
            SELECT FROM federated_models AS of WHERE of.aggregation_round = aggregation_rounds.round
        )
        AND NOT EXISTS (
            SELECT FROM promotion_decisions AS of
            WHERE of.aggregation_round = aggregation_rounds.round
        )
    """
    before = now - timedelta(days=settings.retention_rounds_days)
    parameters = {"before": before, "reach": REACH_ROUNDS}
    lost = _delete(database_url, "aggregation_rounds", condition, parameters)
    return {"aggregation_rounds": lost}


def expire_outbox(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete messages that were published long ago.

    The newest of each key of the compacted topics stays: revisions are counted from it, and a head
    is compared with it.
    """
    condition = """
        state = 'published' AND published_at < %(before)s
        AND NOT (
            topic = ANY(%(topics)s) AND id IN (
                SELECT max(id) FROM outbox
                WHERE topic = ANY(%(topics)s) AND key = ANY(%(keys)s) GROUP BY topic, key
            )
        )
    """
    parameters = {
        "before": now - timedelta(days=settings.retention_outbox_days),
        "topics": [Topic.GLOBAL_UPDATES.value, Topic.CONTROL.value],
        "keys": [GLOBAL_KEY, CANDIDATE_KEY, CONTROL_KEY],
    }
    return {"outbox": _delete(database_url, "outbox", condition, parameters)}


def expire_deployments(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete ended deployments of training and stream analysis; the newest ones stay."""
    parameters = {
        "before": now - timedelta(days=settings.retention_deployments_days),
        "kept": KEPT_DEPLOYMENTS,
    }
    # A deployment goes as a whole: its next attempt is counted from those that are stored.
    training = """
        deployment_id NOT IN (
            SELECT deployment_id FROM training_deployments
            WHERE updated_at >= %(before)s OR status IN ('submitting', 'active', 'suspended')
        )
        AND deployment_id NOT IN (
            SELECT deployment_id FROM (
                SELECT deployment_id FROM training_deployments
                WHERE kind IN ('submit', 'restore') ORDER BY id DESC LIMIT %(kept)s
            ) AS newest
        )
    """
    stream = """
        coalesce(heartbeat_at, submitted_at) < %(before)s
        AND state IN ('stopped', 'failed') AND NOT is_wanted
        AND id <= (SELECT max(id) FROM stream_deployments) - %(kept)s
    """
    return {
        "training_deployments": _delete(database_url, "training_deployments", training, parameters),
        "stream_deployments": _delete(database_url, "stream_deployments", stream, parameters),
    }


def expire_analyses(database_url: str, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete what is known of old evaluation runs, analysed days and decisions on hyperparameters.

    An evaluation run stays as long as one of its versions, which would be evaluated again without;
    a decision while it is the newest of its feature list, or the last that the fleet adopted.
    """
    tuning = """
        settled_at < %(before)s AND revision NOT IN (
            SELECT max(revision) FROM tuning_decisions GROUP BY feature_schema
            UNION ALL
            SELECT max(revision) FROM tuning_decisions
            WHERE fleet_revision IS NOT NULL GROUP BY feature_schema
        )
    """
    conditions = {
        "evaluation_runs": (
            "evaluated_at < %(before)s AND quality_status <> 'pending' AND NOT EXISTS ("
            " SELECT FROM federated_models AS model"
            " WHERE model.version = ANY(evaluation_runs.versions))",
            settings.retention_evaluations_days,
        ),
        "analysis_days": (
            "analysis_date < %(before)s AND state <> 'running'",
            settings.retention_batch_days,
        ),
        "tuning_decisions": (tuning, settings.retention_tuning_days),
    }
    return {
        table: _delete(database_url, table, condition, {"before": now - timedelta(days=days)})
        for table, (condition, days) in conditions.items()
    }


_DOOMED_MODELS: Final = """
    WITH RECURSIVE ranked AS (
        SELECT
            version, parent_version, feature_schema, status, created_at,
            rank() OVER (
                PARTITION BY feature_schema, status, created_at < %(before)s ORDER BY version DESC
            ) AS place
        FROM federated_models
    ),

    needed AS (
        SELECT version, parent_version FROM ranked
        WHERE created_at >= %(before)s
            OR status = 'candidate'
            OR (status = 'promoted' AND place <= %(versions)s)
            OR version IN (SELECT head.version FROM model_head AS head)
            OR version = (SELECT max(newest.version) FROM federated_models AS newest)
    ),

    kept (version) AS (
        (
            SELECT version FROM needed
            UNION
            SELECT parent_version FROM needed
            UNION
            SELECT decision.reference_version FROM promotion_decisions AS decision
            INNER JOIN needed ON decision.version = needed.version
            UNION
            SELECT model_version FROM analysis_days
            UNION
            SELECT reference_model_version FROM analysis_days
        )
        UNION
        SELECT model.restored_version FROM federated_models AS model
        INNER JOIN kept ON model.version = kept.version
    )

    SELECT model.version FROM federated_models AS model
    WHERE NOT EXISTS (SELECT FROM kept WHERE kept.version = model.version)
"""


def _oldest_needed_update(cursor: Cursor, settings: Settings, limit: datetime) -> datetime:
    """Return the time before which no update is needed, at most `limit`."""
    cursor.execute(
        """
        WITH current AS (
            SELECT status, aggregation_round, version FROM federated_models
            WHERE feature_schema = (
                SELECT feature_schema FROM federated_models ORDER BY version DESC LIMIT 1
            )
        )

        SELECT least(
            (SELECT min(round) FROM aggregation_rounds WHERE opened_at >= %(limit)s),
            (SELECT max(round) - %(reach)s FROM aggregation_rounds),
            (SELECT min(round) FROM aggregation_rounds WHERE state = 'open'),
            (SELECT min(aggregation_round) FROM current WHERE status = 'candidate'),
            (
                SELECT min(compared.aggregation_round) FROM (
                    SELECT aggregation_round FROM current
                    WHERE status = 'promoted' ORDER BY version DESC LIMIT %(versions)s
                ) AS compared
            )
        )
        """,
        {"limit": limit, "reach": REACH_ROUNDS - 1, "versions": 2 * settings.tuning_versions},
    )
    [(first_round,)] = cursor.fetchall()
    # Rounds follow the order of each partition, not that of time.
    cursor.execute(
        "SELECT min(kafka_timestamp) FROM local_models"
        " WHERE kafka_timestamp < %s AND aggregation_round >= %s",
        (limit, first_round),
    )
    [(oldest,)] = cursor.fetchall()
    return limit if oldest is None else min(oldest, limit)


def _delete(database_url: str, table: str, condition: str, parameters: Mapping[str, Any]) -> int:
    """Delete rows in batches, each a transaction of its own."""
    total = 0
    while True:
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 - constants
                f"SELECT {table}.ctid FROM {table} WHERE {condition} LIMIT %(batch_rows)s))",
                {**parameters, "batch_rows": BATCH_ROWS},
            )
            deleted = cursor.rowcount
        total += deleted
        if deleted < BATCH_ROWS:
            break
    logger.info("Deleted %s rows of %s", total, table)
    return total


def _is_hypertable(database_url: str, table: str) -> bool:
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'")
        if not cursor.rowcount:
            return False
        cursor.execute(
            "SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = %s", (table,)
        )
        return bool(cursor.rowcount)


def _set_policy(database_url: str, table: str, days: int) -> bool:
    """Set the retention policy of a hypertable; tell whether it has one."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT job_id, (config ->> 'drop_after')::interval = make_interval(days => %s)"
            " FROM timescaledb_information.jobs"
            " WHERE hypertable_name = %s AND proc_name = 'policy_retention'",
            (days, table),
        )
        policies = cursor.fetchall()
        for job_id, is_set in policies:
            if not is_set:
                cursor.execute(
                    "SELECT alter_job(job_id, config => config || jsonb_build_object("
                    "'drop_after', make_interval(days => %s)::text))"
                    " FROM timescaledb_information.jobs WHERE job_id = %s",
                    (days, job_id),
                )
                logger.info("The policy of %s keeps %s days from now on", table, days)
    return bool(policies)


def _drop_chunks(database_url: str, table: str, before: datetime) -> int:
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM drop_chunks(%s::regclass, older_than => %s)", (table, before)
        )
        [(dropped,)] = cursor.fetchall()
    logger.info("Dropped %s chunks of %s", dropped, table)
    return int(dropped)
