"""Evaluations of global models (`evaluation_runs`, `model_evaluations`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.messages import ModelStatus, Moments
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_new_rows, copy_rows

FLEET: Final = "*"
"""Stands for all devices as `device_id`."""

TAKEN_BACK: Final = frozenset({ModelStatus.ROLLED_BACK, ModelStatus.REJECTED})
"""Of a version that is not scored any more."""


class RunState(StrEnum):
    """`planned` until its one transaction is done."""

    PLANNED = "planned"
    EVALUATED = "evaluated"


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """An evaluation: its versions, and its offsets of `edge-iiot-stream` by partition.

    The window is from `start_offsets` to before `end_offsets`; `warm_up_offsets` is where its rows'
    history is read from.
    """

    evaluation_run_id: str
    state: RunState
    dag_run_id: str | None
    feature_schema: str
    due_versions: list[int]
    versions: list[int]
    warm_up_offsets: Mapping[int, int]
    start_offsets: Mapping[int, int]
    end_offsets: Mapping[int, int]
    planned_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation found in its window; times are the smallest and largest in Kafka."""

    window_start: datetime
    window_end: datetime
    rows: int
    rows_labelled: int
    devices: int
    devices_short_of_history: int


_COLUMNS: Final = tuple(EvaluationRun.__dataclass_fields__)
_OFFSETS: Final = ("warm_up_offsets", "start_offsets", "end_offsets")
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM evaluation_runs"  # noqa: S608 - constants
_MOMENTS: Final = msgspec.json.Decoder(Moments)


def _from_row(row: Sequence[Any]) -> EvaluationRun:
    value = dict(zip(_COLUMNS, row, strict=True))
    value["state"] = RunState(value["state"])
    for name in _OFFSETS:
        value[name] = {int(partition): offset for partition, offset in value[name].items()}
    return EvaluationRun(**value)


def get(cursor: Cursor, evaluation_run_id: str) -> EvaluationRun:
    """Return the run of that id.

    Raises
    ------
    LookupError
        When there is none.
    """
    cursor.execute(f"{_SELECT} WHERE evaluation_run_id = %s", (evaluation_run_id,))
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"there is no evaluation run {evaluation_run_id}")
    return _from_row(row)


def newest(cursor: Cursor) -> EvaluationRun | None:
    """Return the run that was planned last; only that one can be unfinished."""
    cursor.execute(f"{_SELECT} ORDER BY planned_at DESC LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else _from_row(row)


def plan(cursor: Cursor, run: EvaluationRun) -> None:
    """Store a new run."""
    row = [getattr(run, name) for name in _COLUMNS]
    for name in _OFFSETS:
        row[_COLUMNS.index(name)] = Jsonb(dict(getattr(run, name)))
    copy_rows(cursor, "evaluation_runs", _COLUMNS, [row])


def give_up(cursor: Cursor, evaluation_run_id: str) -> None:
    """Remove a run that was planned and cannot be made any more."""
    cursor.execute(
        "DELETE FROM evaluation_runs WHERE evaluation_run_id = %s AND state = 'planned'",
        (evaluation_run_id,),
    )


def complete(cursor: Cursor, evaluation_run_id: str, outcome: Outcome, now: datetime) -> bool:
    """Close a run with what it found; returns whether it was open until now."""
    cursor.execute(
        """
        WITH known AS (
            SELECT evaluation_run_id, state FROM evaluation_runs
            WHERE evaluation_run_id = %s FOR UPDATE
        )
        UPDATE evaluation_runs AS run
        SET state = 'evaluated', window_start = %s, window_end = %s, rows = %s,
            rows_labelled = %s, devices = %s, devices_short_of_history = %s,
            evaluated_at = coalesce(run.evaluated_at, %s),
            -- Rows that were missing may be written now, and have to be checked.
            quality_status = 'pending'
        FROM known
        WHERE run.evaluation_run_id = known.evaluation_run_id
        RETURNING known.state
        """,
        (
            evaluation_run_id,
            outcome.window_start,
            outcome.window_end,
            outcome.rows,
            outcome.rows_labelled,
            outcome.devices,
            outcome.devices_short_of_history,
            now,
        ),
    )
    row = cursor.fetchone()
    if row is None:
        raise LookupError(f"evaluation run {evaluation_run_id} was removed meanwhile")
    return RunState(row[0]) is RunState.PLANNED


_UNEVALUATED: Final = """
    NOT EXISTS (
        SELECT FROM model_evaluations AS made
        WHERE made.model_version = model.version AND made.device_id = '*'
    )
    -- What the retention has taken was evaluated all the same.
    AND NOT EXISTS (
        SELECT FROM evaluation_runs AS run
        WHERE run.state = 'evaluated' AND model.version = ANY(run.versions)
    )
"""


def unevaluated(cursor: Cursor, feature_schema: str) -> list[int]:
    """Return the versions of a schema that await an evaluation, oldest first."""
    cursor.execute(
        f"""
        SELECT model.version FROM federated_models AS model
        WHERE model.feature_schema = %s AND model.status IN ('candidate', 'promoted')
            AND {_UNEVALUATED}
        ORDER BY model.version
        """,  # noqa: S608 - constants
        (feature_schema,),
    )
    return [version for (version,) in cursor.fetchall()]


def record_not_evaluated(cursor: Cursor, feature_schema: str, now: datetime) -> list[int]:
    """Record the versions that will never be evaluated, each once with the reason; returns them.

    Those are versions without an evaluation that were taken back or rejected, and those of another
    schema than `feature_schema`, which the fleet trains now.
    """
    cursor.execute(
        f"""
        INSERT INTO model_evaluations (
            model_version, window_start, window_end, device_id, status, reason,
            evaluation_timestamp, rows, samples, tp, fp, tn, fn, log_loss_sum, brier_sum
        )
        SELECT
            model.version, model.created_at, model.created_at, '*', 'not_evaluated',
            CASE
                WHEN model.status IN ('rolled_back', 'rejected') THEN model.status
                ELSE 'superseded: the fleet trains another feature list'
            END,
            %s, 0, 0, 0, 0, 0, 0, 0, 0
        FROM federated_models AS model
        WHERE (model.status IN ('rolled_back', 'rejected') OR model.feature_schema <> %s)
            AND {_UNEVALUATED}
        ON CONFLICT DO NOTHING
        RETURNING model_version
        """,  # noqa: S608 - constants
        (now, feature_schema),
    )
    return sorted(version for (version,) in cursor.fetchall())


def has_labels(cursor: Cursor, feature_schema: str, reach_rounds: int) -> bool:
    """Tell whether a window of the newest rounds had a labelled row; without windows it may."""
    cursor.execute(
        """
        WITH recent AS NOT MATERIALIZED (
            SELECT rows_labelled FROM local_models
            WHERE feature_schema = %s
                AND aggregation_round > (SELECT max(round) FROM aggregation_rounds) - %s
        )
        SELECT
            EXISTS (SELECT 1 FROM recent WHERE rows_labelled > 0)
            OR NOT EXISTS (SELECT 1 FROM recent)
        """,
        (feature_schema, reach_rounds),
    )
    return bool(cursor.fetchall()[0][0])


def history_offsets(
    cursor: Cursor, feature_schema: str, start: Mapping[int, int], rows: int, reach: int
) -> dict[int, int | None]:
    """Return from which offset each partition holds the last rows of its devices before `start`.

    They are counted by the stored windows of the last `reach` offsets before `start`.

    Parameters
    ----------
    rows
        Rows of each device that are needed.

    Returns
    -------
    By partition; None when windows are missing, so that a device may have rows further back: it has
    fewer than `rows` in the windows, and the oldest is not its first. Without any window, nothing.
    """
    cursor.execute(
        """
        WITH windows AS (
            SELECT
                stored.input_partition, stored.device_id, stored.first_offset, stored.rows,
                stored.model_version,
                sum(stored.rows) OVER (
                    PARTITION BY stored.input_partition, stored.device_id
                    ORDER BY stored.last_offset DESC
                ) AS up_to
            FROM local_models AS stored
            INNER JOIN unnest(%s::bigint [], %s::bigint []) AS start (partition, first)
                ON stored.input_partition = start.partition
                AND stored.last_offset < start.first
                AND stored.last_offset >= start.first - %s
            WHERE stored.feature_schema = %s
        ),

        devices AS (
            SELECT
                input_partition,
                min(first_offset) AS first_offset,
                max(up_to) >= %s OR min(model_version) = 1 AS is_complete
            FROM windows WHERE up_to - rows < %s
            GROUP BY input_partition, device_id
        )

        SELECT input_partition, CASE WHEN bool_and(is_complete) THEN min(first_offset) END
        FROM devices GROUP BY input_partition
        """,
        (list(start.keys()), list(start.values()), reach, feature_schema, rows, rows),
    )
    return dict(cursor.fetchall())


def moments_before(
    cursor: Cursor, feature_schema: str, start: Mapping[int, int], version: int
) -> dict[str, Moments]:
    """Return the newest accepted moments of each device that hold no row at or beyond `start`.

    Of the rounds up to the one that made `version` only: whenever it is asked, and whatever rounds
    have read since, the answer is the same. Devices without such an update are left out.
    """
    cursor.execute(
        """
        SELECT device.device_id, newest.moments::text
        FROM device_moments AS device
        CROSS JOIN LATERAL (
            SELECT stored.moments FROM local_models AS stored
            INNER JOIN unnest(%s::bigint [], %s::bigint []) AS start (partition, first)
                ON stored.input_partition = start.partition AND stored.last_offset < start.first
            WHERE stored.device_id = device.device_id
                AND stored.feature_schema = device.feature_schema
                AND stored.status = 'accepted'
                AND stored.aggregation_round <= (
                    SELECT max(made.aggregation_round) FROM federated_models AS made
                    WHERE made.version <= %s
                )
            ORDER BY stored.kafka_timestamp DESC, stored.last_offset DESC LIMIT 1
        ) AS newest
        WHERE device.feature_schema = %s
        """,
        (list(start.keys()), list(start.values()), version, feature_schema),
    )
    return {device: _MOMENTS.decode(text) for device, text in cursor.fetchall()}


def add_evaluations(
    cursor: Cursor,
    evaluation_run_id: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> int:
    """Write the evaluations of a run; returns how many are new.

    What is stored of a version and window stays, by this run or another one.
    """
    return copy_new_rows(
        cursor,
        "model_evaluations",
        ("evaluation_run_id", *columns),
        ((evaluation_run_id, *row) for row in rows),
    )
