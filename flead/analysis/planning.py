"""The plan of an evaluation: the versions that are due, and the offsets of the rows to score."""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from flead.analysis import due
from flead.analysis.due import Offsets, Ranges, Trained
from flead.analysis.validity import valid_row
from flead.contracts.schema import ROLLING_ROWS
from flead.contracts.topics import Topic
from flead.messaging.client import Properties
from flead.messaging.reading import Record, offset_ranges, read_committed
from flead.settings import Settings
from flead.storage import evaluations, models
from flead.storage.connection import Cursor, connect
from flead.storage.evaluations import TAKEN_BACK, EvaluationRun, RunState
from flead.storage.locks import Lock, lock_for_transaction

TOPIC: Final = Topic.TELEMETRY
CHUNK_MESSAGES: Final = 20_000

REACH_ROUNDS: Final = 50
"""How far back updates are asked whether the fleet has labels, before rows are read for them."""


logger = logging.getLogger(__name__)


class NothingDueError(Exception):
    """No evaluation is to be made now; the message says why."""


@dataclass(frozen=True, slots=True)
class _Window:
    versions: list[Trained]
    start: Offsets
    end: Offsets


def plan_or_resume(
    database_url: str,
    kafka_properties: Properties,
    settings: Settings,
    dag_run_id: str | None,
    *,
    at_once: bool = False,
) -> EvaluationRun:
    """Return the evaluation to make: the unfinished one, or a new one.

    A new one scores the newest version of which enough labelled rows lie beyond all that it was
    trained on, the older ones that await an evaluation, and the parents of all these, on one window
    of rows that none of them nor of their ancestors was trained on.

    Parameters
    ----------
    dag_run_id
        Airflow's name of the run that asks, kept with the evaluation; None outside Airflow.
    at_once
        Do not wait until `settings.evaluation_interval_seconds` have passed since the last one.

    Raises
    ------
    NothingDueError
        There is none to make now.
    TopicRewoundError
        A version was trained beyond the end of the topic.
    """
    now = datetime.now(UTC)
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.EVALUATIONS)
        last = evaluations.newest(cursor)
        if last is not None and last.state is RunState.PLANNED:
            if _can_be_made(cursor, last, kafka_properties):
                logger.info("Resuming evaluation %s", last.evaluation_run_id)
                return last
            logger.warning(
                "Giving up evaluation %s: its versions were taken back, or its rows are gone",
                last.evaluation_run_id,
            )
            evaluations.give_up(cursor, last.evaluation_run_id)
            last = None
        if last is not None and dag_run_id is not None and last.dag_run_id == dag_run_id:
            return last
        pause = timedelta(seconds=settings.evaluation_interval_seconds)
        if last is not None and not at_once and now < last.planned_at + pause:
            raise NothingDueError(
                f"the last evaluation was planned at {last.planned_at:%H:%M:%S}, the next may"
                f" follow after FLEAD_EVALUATION_INTERVAL_SECONDS={pause.total_seconds():g}"
            )
        head = models.newest_head(cursor)
        if head is None:
            raise NothingDueError("there is no model yet: aggregation_round makes the first")
        newest = models.models(cursor, [head])[head].model
        schema = newest.feature_schema
        if left_out := evaluations.record_not_evaluated(cursor, schema, now):
            logger.info("Recorded versions %s as not evaluated", left_out)
        waiting = evaluations.unevaluated(cursor, schema)
        # What is recorded stays when nothing is due.
        connection.commit()
        lock_for_transaction(cursor, Lock.EVALUATIONS)
        if not evaluations.has_labels(cursor, schema, REACH_ROUNDS):
            raise NothingDueError(
                f"no row of the last {REACH_ROUNDS} rounds had a label: nothing to evaluate by"
            )
        ranges = offset_ranges(kafka_properties, TOPIC)
        counter = _LabelledRows(kafka_properties, frozenset(newest.feature_names))
        chosen = _choose(cursor, waiting, ranges, settings, counter)
        history = evaluations.history_offsets(
            cursor, schema, chosen.start, ROLLING_ROWS, settings.evaluation_warm_up_rows
        )
        due_versions = [each.version for each in chosen.versions if each.version in waiting]
        run = EvaluationRun(
            evaluation_run_id=f"v{due_versions[-1]}-{now:%Y%m%dT%H%M%S%f}Z",
            state=RunState.PLANNED,
            dag_run_id=dag_run_id,
            feature_schema=schema,
            due_versions=due_versions,
            versions=[each.version for each in chosen.versions],
            warm_up_offsets=due.warm_up(
                chosen.start, ranges, history, settings.evaluation_warm_up_rows
            ),
            start_offsets=chosen.start,
            end_offsets=chosen.end,
            planned_at=now,
        )
        evaluations.plan(cursor, run)
    logger.info(
        "Planned evaluation %s of versions %s on offsets %s to %s",
        run.evaluation_run_id,
        run.versions,
        run.start_offsets,
        run.end_offsets,
    )
    return run


def _can_be_made(cursor: Cursor, run: EvaluationRun, kafka_properties: Properties) -> bool:
    """Tell whether a version of an unfinished run still stands, and the topic holds its rows."""
    stored = [each.model for each in models.models(cursor, run.due_versions).values()]
    if {model.status for model in stored} <= TAKEN_BACK:
        return False
    ranges = offset_ranges(kafka_properties, TOPIC)
    if any(ranges[partition][0] > offset for partition, offset in run.warm_up_offsets.items()):
        return False
    labelled = _LabelledRows(kafka_properties, frozenset(stored[-1].feature_names))
    return labelled.has(run.start_offsets, run.end_offsets, 1)


def _choose(
    cursor: Cursor,
    waiting: Sequence[int],
    ranges: Ranges,
    settings: Settings,
    counter: "_LabelledRows",
) -> _Window:
    """Find the newest version with enough rows; older ones have no fewer."""
    if not waiting:
        raise NothingDueError("every version of the feature list in training has an evaluation")
    known = _trained(cursor, waiting)

    def window(count: int) -> _Window:
        chosen = due.newest(
            [known[version] for version in waiting[:count]], settings.evaluation_max_versions
        )
        versions = due.with_parents(chosen, known)
        start = due.first_unseen(versions, ranges)
        return _Window(
            versions, start, due.oldest_first(start, ranges, settings.evaluation_max_rows)
        )

    def lacks_rows(count: int) -> bool:
        made = window(count)
        return not counter.has(made.start, made.end, settings.evaluation_min_rows)

    count = bisect_left(range(1, len(waiting) + 1), True, key=lacks_rows)
    if not count:
        raise NothingDueError(
            f"version {waiting[0]} waits for FLEAD_EVALUATION_MIN_ROWS="
            f"{settings.evaluation_min_rows} labelled rows beyond those that it was trained on"
        )
    return window(count)


def _trained(cursor: Cursor, versions: Sequence[int]) -> dict[int, Trained]:
    """Return versions and their parents by version."""
    stored = models.models(cursor, versions)
    parents = {each.model.parent_version for each in stored.values()} - stored.keys()
    return {
        version: Trained(version, each.model.parent_version, each.input_offsets)
        for version, each in (stored | models.models(cursor, parents)).items()
    }


class _LabelledRows:
    """Counts labelled rows of a feature list by reading: offsets say nothing of labels."""

    def __init__(self, kafka_properties: Properties, features: frozenset[str]) -> None:
        self._kafka = kafka_properties
        self._features = features

    def has(self, start: Offsets, end: Offsets, rows: int) -> bool:
        """Tell whether the window from `start` to before `end` holds that many."""
        position = dict(start)
        if sum(end.values()) - sum(start.values()) < rows:
            return False
        found = 0
        while any(position[partition] < last for partition, last in end.items()):
            reading = read_committed(self._kafka, TOPIC, position, CHUNK_MESSAGES)
            found += sum(
                1
                for record in reading.records
                if record.offset < end[record.partition] and self._is_labelled(record)
            )
            if found >= rows:
                return True
            if not reading.records:
                break
            position = reading.next_offsets
        return False

    def _is_labelled(self, record: Record) -> bool:
        row = valid_row(record.key, record.value)
        return row is not None and row.label is not None and self._features.issuperset(row.features)
