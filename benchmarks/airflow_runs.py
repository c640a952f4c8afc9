"""What Airflow keeps of the runs of days on which every DAG ran."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import msgspec

from flead.storage.connection import Cursor, connect

MINUTE: Final = timedelta(minutes=1)
RUNS_EVERY: Final = {
    "monitor_training": MINUTE,
    "aggregation_round": MINUTE,
    "model_evaluation": 10 * MINUTE,
    "evaluation_quality": 10 * MINUTE,
    "hyperparameter_tuning": 10 * MINUTE,
    "daily_batch_analysis": timedelta(days=1),
    "maintenance": timedelta(days=1),
}
SKIPPED: Final = (
    "heal_training",
    "heal_stream",
    "take_back_training",
    "take_back_stream",
    "approve",
    "approved",
)
"""Tasks that have nothing to do on a good day."""
SCHEDULED: Final = ("monitor_training", "daily_batch_analysis", "maintenance")
XCOM: Final = {
    "deployment_id": "manual__2026-01-01T00:00:00+00:00",
    "job_id": "0" * 32,
    "offsets": {str(partition): 1_000_000 for partition in range(4)},
    "numbers": list(range(20)),
}


def fill_airflow(
    database_url: str, tasks: Mapping[str, Sequence[Mapping[str, Any]]], days: float
) -> dict[str, int]:
    """Write the runs of the last days to Airflow's database; return its rows by table.

    Parameters
    ----------
    tasks
        Of each DAG, what Airflow's REST API says of its tasks.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        for dag_id, every in RUNS_EVERY.items():
            _fill_runs(cursor, dag_id, every, days)
            for task in tasks[dag_id]:
                _fill_tasks(cursor, dag_id, task["task_id"], task["operator_name"])
        # Otherwise the planner takes the tables that are joined now for empty.
        cursor.execute("ANALYZE dag_run, task_instance")
        cursor.execute(
            """
            INSERT INTO xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
            SELECT r.id, t.task_id, t.map_index, k.key, t.dag_id, t.run_id, %s::jsonb, t.end_date
            FROM task_instance AS t JOIN dag_run AS r USING (dag_id, run_id)
            CROSS JOIN (VALUES ('return_value'), ('skipmixin_key'), ('message')) AS k (key)
            WHERE t.state = 'success' AND (k.key = 'return_value' OR t.task_id = 'read')
            ON CONFLICT DO NOTHING
            """,
            (msgspec.json.encode(XCOM).decode(),),
        )
        cursor.execute(
            """
            INSERT INTO log (
                dttm, dag_id, task_id, map_index, event, logical_date, run_id, owner, extra,
                try_number
            )
            SELECT
                t.end_date, t.dag_id, t.task_id, t.map_index, e.event, r.logical_date, t.run_id,
                'flead', '{"host_name": "worker", "full_command": "airflow scheduler"}', 1
            FROM task_instance AS t JOIN dag_run AS r USING (dag_id, run_id)
            CROSS JOIN (VALUES ('running'), ('success')) AS e (event)
            WHERE t.state = 'success'
            """
        )
        tables = ("dag_run", "task_instance", "xcom", "log")
        counts = {table: _count(cursor, table) for table in tables}
    _analyze(database_url, tables)
    return counts


def _fill_runs(cursor: Cursor, dag_id: str, every: timedelta, days: float) -> None:
    run_type = "scheduled" if dag_id in SCHEDULED else "asset_triggered"
    cursor.execute(
        """
        INSERT INTO dag_run (
            dag_id, run_id, run_type, state, logical_date, data_interval_start, data_interval_end,
            run_after, queued_at, start_date, end_date, last_scheduling_decision, created_at,
            updated_at, conf, log_template_id, created_dag_version_id
        )
        SELECT
            %(dag)s, %(type)s || '__' || to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'), %(type)s,
            'success', at, at, at, at, at, at + '1 s', at + '9 s', at + '9 s', at, at + '9 s',
            '{}', (SELECT max(id) FROM log_template),
            (SELECT id FROM dag_version WHERE dag_id = %(dag)s ORDER BY version_number DESC LIMIT 1)
        FROM generate_series(
            date_trunc('minute', now()) - %(days)s, date_trunc('minute', now()) - %(every)s,
            %(every)s
        ) AS at
        ON CONFLICT DO NOTHING
        """,
        {"dag": dag_id, "type": run_type, "every": every, "days": timedelta(days=days)},
    )


def _fill_tasks(cursor: Cursor, dag_id: str, task_id: str, operator: str) -> None:
    cursor.execute(
        """
        INSERT INTO task_instance (
            id, task_id, dag_id, run_id, map_index, state, start_date, end_date, duration,
            try_number, max_tries, hostname, unixname, pool, pool_slots, queue, priority_weight,
            operator, queued_dttm, scheduled_dttm, pid, updated_at, task_display_name,
            dag_version_id, executor_config
        )
        SELECT
            gen_random_uuid(), %(task)s, dag_id, run_id, -1, %(state)s, start_date, end_date, 8,
            1, 1, 'worker', 'flead', 'default_pool', 1, 'default', 1, %(operator)s, start_date,
            start_date, 4711, end_date, %(task)s, created_dag_version_id, '\\x80047d942e'
        FROM dag_run WHERE dag_id = %(dag)s
        ON CONFLICT DO NOTHING
        """,
        {
            "dag": dag_id,
            "task": task_id,
            "operator": operator,
            "state": "skipped" if task_id in SKIPPED else "success",
        },
    )


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - names of this module
    [(rows,)] = cursor.fetchall()
    return int(rows)


def _analyze(database_url: str, tables: Sequence[str]) -> None:
    """Let the planner know, as autovacuum does in the course of a week."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {', '.join(tables)}")
