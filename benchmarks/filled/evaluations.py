"""Evaluations of versions, their predictions and feedback, and the quality checks of both."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks.filled.columns import Times, copy_columns
from benchmarks.filled.fleet import (
    BLOCK_MINUTES,
    MINUTE_MS,
    ROWS_PER_MINUTE,
    Fleet,
    log_loss,
    probability,
    skill_at,
)
from benchmarks.filled.history import History, draw_counts, expected_loss
from flead.contracts.messages import ModelFeedback
from flead.contracts.topics import Topic
from flead.features.rows import Floats, Integers
from flead.quality.suites import Severity, load
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.evaluations import FLEET

EVERY_MINUTES: Final = 10
QUARANTINED_EVERY: Final = 50
QUARANTINED_AT: Final = 10
"""Runs before the newest, which has the devices' figures, as readers of what has passed want."""

FEEDBACK_ROWS: Final = 5
SUITES: Final = ("model_evaluations", "model_feedback", "federated_models")
PLANNED_AFTER_MS: Final = 2_000
TOOK_MS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Run:
    """An evaluation of the versions that are due, on the rows of the minute before it."""

    number: int
    minute: int
    due: list[int]
    versions: list[int]
    is_quarantined: bool
    planned_ms: int

    @property
    def name(self) -> str:
        """Its id."""
        at = datetime.fromtimestamp(self.planned_ms / 1_000, UTC)
        return f"v{self.due[-1]}-{at:%Y%m%dT%H%M%S}000000Z"


@dataclass(frozen=True, slots=True)
class Scored:
    """What a version did on each device, or on the fleet: arrays of one entry each."""

    tp: Integers
    fp: Integers
    tn: Integers
    fn: Integers
    loss_sum: Floats
    brier_sum: Floats


def write_evaluations(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write every run with its figures and checks, and versions that were never evaluated."""
    runs = list(_runs(fleet, history))
    _write_runs(cursor, fleet, runs)
    with_devices = runs[len(runs) - fleet.size.device_evaluations :]
    for run in runs:
        if run in with_devices:
            _write_devices(cursor, fleet, history, run)
        else:
            _write_fleet(cursor, fleet, history, run)
    _write_not_evaluated(cursor, fleet, history)
    _write_checks(cursor, runs)


def _runs(fleet: Fleet, history: History) -> Iterator[Run]:
    number = 0
    newest = fleet.minutes - BLOCK_MINUTES
    first = 2 * EVERY_MINUTES + newest % EVERY_MINUTES
    for minute in range(first, newest + 1, EVERY_MINUTES):
        before = minute - 2
        due = [
            each
            for number in range(before - EVERY_MINUTES + 1, before + 1)
            if (each := history.promoted.get(number)) is not None
            and history.versions[each - 1].status == "promoted"
        ]
        if not due:
            continue
        parents = {history.versions[each - 1].parent for each in due} - {0}
        number += 1
        yield Run(
            number,
            minute,
            due,
            sorted(parents | set(due)),
            (newest - minute) // EVERY_MINUTES % QUARANTINED_EVERY == QUARANTINED_AT,
            fleet.at_ms(minute) + PLANNED_AFTER_MS,
        )


def _write_runs(cursor: Cursor, fleet: Fleet, runs: list[Run]) -> None:
    starts, ends = _bounds(fleet, runs)
    planned = np.array([run.planned_ms for run in runs])
    copy_columns(
        cursor,
        "evaluation_runs",
        {
            "evaluation_run_id": [run.name for run in runs],
            "state": "evaluated",
            "dag_run_id": [f"evaluation__{run.number}" for run in runs],
            "feature_schema": fleet.schema,
            "due_versions": [_array(run.due) for run in runs],
            "versions": [_array(run.versions) for run in runs],
            "warm_up_offsets": [_json(fleet.first_offsets(max(run.minute - 9, 0))) for run in runs],
            "start_offsets": [_json(fleet.first_offsets(run.minute - 1)) for run in runs],
            "end_offsets": [_json(fleet.first_offsets(run.minute)) for run in runs],
            "window_start": Times(starts),
            "window_end": Times(ends),
            "rows": len(fleet) * ROWS_PER_MINUTE,
            "rows_labelled": len(fleet) * ROWS_PER_MINUTE,
            "devices": len(fleet),
            "devices_short_of_history": 0,
            "planned_at": Times(planned),
            "evaluated_at": Times(planned + TOOK_MS),
            "quality_status": [_verdict(run) for run in runs],
            "quality_checked_at": Times(planned + 2 * TOOK_MS),
        },
    )


def _write_fleet(cursor: Cursor, fleet: Fleet, history: History, run: Run) -> None:
    """Write the fleet's figures of each version, drawn as such."""
    random = fleet.generator(6, run.number)
    skills = np.array([_skill(history, version) for version in run.versions])
    rows = np.full(len(skills), len(fleet) * ROWS_PER_MINUTE)
    counts = draw_counts(fleet, random, rows, skills)
    loss = rows * expected_loss(fleet, skills) * random.uniform(0.98, 1.02, len(skills))
    scored = Scored(*counts, loss, 0.3 * loss)
    versions = np.array(run.versions)
    _write(cursor, fleet, run, versions, [FLEET] * len(versions), scored)


def _write_devices(cursor: Cursor, fleet: Fleet, history: History, run: Run) -> None:
    """Write the figures of each version on each device, which add up to the fleet's."""
    rows = fleet.rows(run.minute - 1)
    is_positive = rows.label == 1
    for version in run.versions:
        correctness = fleet.correctness(rows, _skill(history, version))
        is_right = correctness > 0
        likely = probability(rows.label, correctness)
        scored = Scored(
            (is_right & is_positive).sum(axis=1),
            (~is_right & ~is_positive).sum(axis=1),
            (is_right & ~is_positive).sum(axis=1),
            (~is_right & is_positive).sum(axis=1),
            log_loss(correctness).sum(axis=1),
            ((likely - rows.label) ** 2).sum(axis=1),
        )
        total = Scored(*(np.array([getattr(scored, name).sum()]) for name in Scored.__slots__))
        _write(cursor, fleet, run, np.array([version]), [FLEET], total)
        if version in run.versions[-fleet.size.device_versions :]:
            versions = np.full(len(fleet), version)
            _write(cursor, fleet, run, versions, fleet.names, scored)
    _write_predictions(cursor, fleet, run, likely)
    _write_messages(cursor, fleet, run, scored, likely, rows.label)


def _write(
    cursor: Cursor,
    fleet: Fleet,
    run: Run,
    versions: Integers,
    devices: list[str],
    scored: Scored,
) -> None:
    samples = scored.tp + scored.fp + scored.tn + scored.fn
    # Without an anomaly there is no recall; with one and none found, precision is 0.
    has_positive = scored.tp + scored.fn > 0
    with np.errstate(invalid="ignore"):
        precision = np.where(has_positive, scored.tp / np.maximum(scored.tp + scored.fp, 1), np.nan)
        recall = scored.tp / np.where(has_positive, scored.tp + scored.fn, np.nan)
        f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, np.inf)
    accuracy = (scored.tp + scored.tn) / samples
    start, end = (int(each[0]) for each in _bounds(fleet, [run]))
    copy_columns(
        cursor,
        "model_evaluations",
        {
            "model_version": versions,
            "window_start": Times(np.full(len(versions), start)),
            "window_end": Times(np.full(len(versions), end)),
            "device_id": devices,
            "evaluation_run_id": run.name,
            "status": "evaluated",
            "quality_status": _verdict(run),
            "evaluation_timestamp": Times(np.full(len(versions), run.planned_ms)),
            "rows": samples,
            "samples": samples,
            "tp": scored.tp,
            "fp": scored.fp,
            "tn": scored.tn,
            "fn": scored.fn,
            "log_loss_sum": scored.loss_sum,
            "brier_sum": scored.brier_sum,
            "accuracy": accuracy,
            "precision": precision,
            "recall": recall,
            "f1": np.where(np.isnan(precision), np.nan, f1),
            "roc_auc": np.where(has_positive, 0.5 + 0.5 * accuracy, np.nan),
            "log_loss": scored.loss_sum / samples,
            "brier": scored.brier_sum / samples,
            "start_offsets": _json(fleet.first_offsets(run.minute - 1)),
            "end_offsets": _json(fleet.first_offsets(run.minute)),
        },
    )


def _write_predictions(cursor: Cursor, fleet: Fleet, run: Run, likely: Floats) -> None:
    """Keep some predictions of the newest version on each device."""
    rows = fleet.rows(run.minute - 1)
    kept = slice(0, FEEDBACK_ROWS)
    prediction, actual = likely[:, kept].ravel(), rows.label[:, kept].ravel()
    devices = np.repeat(np.arange(len(fleet)), FEEDBACK_ROWS)
    copy_columns(
        cursor,
        "model_feedback",
        {
            "model_version": run.due[-1],
            "kafka_partition": fleet.partition[devices],
            "kafka_offset": rows.offset[:, kept].ravel(),
            "event_time": Times(rows.time_ms[:, kept].ravel()),
            "device_id": [fleet.names[each] for each in devices.tolist()],
            "evaluation_run_id": run.name,
            "quality_status": _verdict(run),
            "evaluation_timestamp": Times(np.full(len(devices), run.planned_ms)),
            "prediction": prediction,
            "actual": actual,
            "error": np.abs(actual - prediction),
            "confidence": np.abs(2.0 * prediction - 1.0),
            "created_at": Times(np.full(len(devices), run.planned_ms + TOOK_MS)),
        },
    )


def _write_messages(
    cursor: Cursor, fleet: Fleet, run: Run, scored: Scored, likely: Floats, label: Integers
) -> None:
    """Tell each device how the newest version did on it."""
    accuracy = (scored.tp + scored.tn) / ROWS_PER_MINUTE
    loss = scored.loss_sum / ROWS_PER_MINUTE
    error = np.abs(label - likely).mean(axis=1)
    confidence = np.abs(2.0 * likely - 1.0).mean(axis=1)
    figures = zip(
        fleet.names,
        error.tolist(),
        accuracy.tolist(),
        loss.tolist(),
        confidence.tolist(),
        strict=True,
    )
    encode = msgspec.json.Encoder().encode
    copy_columns(
        cursor,
        "outbox",
        {
            "topic": Topic.FEEDBACK.value,
            "key": fleet.names,
            "value": [
                encode(
                    ModelFeedback(
                        device, run.due[-1], run.name, run.planned_ms, ROWS_PER_MINUTE, *of_device
                    )
                ).decode()
                for device, *of_device in figures
            ],
            "state": "published",
            "created_at": Times(np.full(len(fleet), run.planned_ms + TOOK_MS)),
            "published_at": Times(np.full(len(fleet), run.planned_ms + 3 * TOOK_MS)),
        },
    )


def _write_not_evaluated(cursor: Cursor, fleet: Fleet, history: History) -> None:
    left_out = [each for each in history.versions if each.status in {"rejected", "rolled_back"}]
    created = np.array([fleet.at_ms(each.minute) + 4_000 for each in left_out])
    copy_columns(
        cursor,
        "model_evaluations",
        {
            "model_version": np.array([each.version for each in left_out]),
            "window_start": Times(created),
            "window_end": Times(created),
            "device_id": FLEET,
            "status": "not_evaluated",
            "reason": [each.status for each in left_out],
            "evaluation_timestamp": Times(created + EVERY_MINUTES * MINUTE_MS),
            **dict.fromkeys(
                ("rows", "samples", "tp", "fp", "tn", "fn", "log_loss_sum", "brier_sum"), 0
            ),
        },
    )


def _write_checks(cursor: Cursor, runs: list[Run]) -> None:
    """Write one row a rule of each run; of a quarantined run one rule is broken."""
    rules = [(suite, rule) for suite in SUITES for rule in load(suite).expectations]
    broken = next(
        at for at, (_, rule) in enumerate(rules) if rule.meta.name == "accuracy_fits_the_counts"
    )
    known = [
        (suite, suite, rule.meta.name, rule.type, rule.severity.value, rule.meta.why)
        for suite, rule in rules
    ]
    assert rules[broken][1].severity is Severity.CRITICAL  # noqa: S101 - a quarantine's reason
    copy_rows(
        cursor,
        "data_quality_results",
        (
            "suite", "table_name", "rule", "expectation", "severity", "reason",
            "run_id", "dag_run_id", "success", "element_count", "unexpected_count",
            "failing_examples", "created_at",
        ),
        (
            (
                *rule,
                run.name,
                f"quality__{run.number}",
                not (fails := run.is_quarantined and at == broken),
                len(run.versions),
                int(fails),
                Jsonb(_examples(run) if fails else []),
                datetime.fromtimestamp((run.planned_ms + 2 * TOOK_MS) / 1_000, UTC),
            )
            for run in runs
            for at, rule in enumerate(known)
        ),
    )  # fmt: skip


def _examples(run: Run) -> list[dict[str, Any]]:
    return [{"model_version": run.due[-1], "device_id": FLEET, "accuracy_gap": 0.031}]


def _skill(history: History, version: int) -> float:
    """Return the skill of a version, a little better or worse than its time's."""
    return float(skill_at(history.versions[version - 1].minute)) + 0.01 * ((version * 37) % 11 - 5)


def _bounds(fleet: Fleet, runs: list[Run]) -> tuple[Integers, Integers]:
    """Return the times of the first and the last row of each run."""
    half = MINUTE_MS / ROWS_PER_MINUTE / 2 / int(fleet.of_partition.max())
    starts = np.array([fleet.at_ms(run.minute - 1) + int(half) for run in runs])
    ends = np.array([fleet.at_ms(run.minute) - int(half) - 1 for run in runs])
    return starts, ends


def _verdict(run: Run) -> str:
    return "quarantined" if run.is_quarantined else "passed"


def _array(versions: list[int]) -> str:
    return "{" + ",".join(map(str, versions)) + "}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
