"""The end of an evaluation: what Spark found becomes rows of the database, in one transaction."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from flead.analysis.evaluation import COUNTS
from flead.analysis.figures import BINS, Counts, baselines, mean, rates
from flead.contracts.messages import ModelFeedback
from flead.contracts.schema import ROLLING_ROWS
from flead.contracts.topics import Topic
from flead.storage import evaluations, feedback, outbox
from flead.storage.connection import connect
from flead.storage.copying import Jsonb
from flead.storage.evaluations import FLEET, EvaluationRun, Outcome
from flead.storage.feedback import Prediction
from flead.storage.outbox import OutboxMessage, OutboxState
from flead.storage.times import from_milliseconds, to_milliseconds

_CALIBRATION: Final = ("count", "probability_sum", "positives")
_SUMS: Final = ("log_loss_sum", "brier_sum")
_COLUMNS: Final = (
    "model_version",
    "window_start",
    "window_end",
    "device_id",
    "status",
    "reason",
    "evaluation_timestamp",
    "rows",
    "samples",
    *COUNTS,
    *_SUMS,
    "accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "log_loss",
    "brier",
    "calibration",
    "baselines",
    "start_offsets",
    "end_offsets",
)

logger = logging.getLogger(__name__)

Found = Mapping[str, Any]
"""Sums of a version on a device or the fleet, by the columns of `evaluation.DEVICES`."""


class EmptyWindowError(Exception):
    """There was nothing to score; the message names the offsets."""


def record(
    database_url: str,
    run: EvaluationRun,
    devices: pa.Table,
    fleet_auc: Mapping[int, float | None],
    not_scored: Mapping[int, str],
    *,
    release_feedback: bool,
) -> Outcome:
    """Write the evaluations, predictions and feedback of a run, and close it.

    A run that was closed before gets the same rows again; its devices are told nothing twice.

    Parameters
    ----------
    devices
        With the columns `evaluation.DEVICES` but for the last two.
    fleet_auc
        Area under the ROC curve over all devices, by version.
    not_scored
        Versions of the run that were left out, with the reason.

    Raises
    ------
    EmptyWindowError
        No row of the feature list lies in the window.
    """
    rows = devices.sort_by([("model_version", "ascending"), ("device_id", "ascending")]).to_pylist()
    if not rows:
        raise EmptyWindowError(
            f"evaluation {run.evaluation_run_id} found no row of its feature list in offsets"
            f" {dict(run.start_offsets)} to {dict(run.end_offsets)} of {Topic.TELEMETRY}: were they"
            " deleted, or does the fleet send other features now?"
        )
    newest = rows[-1]["model_version"]
    of_newest = [each for each in rows if each["model_version"] == newest]
    outcome = _outcome(devices, of_newest)
    now = datetime.now(UTC)
    with connect(database_url) as connection, connection.cursor() as cursor:
        is_first = evaluations.complete(cursor, run.evaluation_run_id, outcome, now)
        evaluations.replace_evaluations(
            cursor,
            run.evaluation_run_id,
            _COLUMNS,
            _rows(run, outcome, rows, fleet_auc, not_scored),
        )
        kept = feedback.replace_predictions(
            cursor, run.evaluation_run_id, run.planned_at, newest, _predictions(of_newest)
        )
        if is_first:
            state = OutboxState.READY if release_feedback else OutboxState.HELD
            outbox.add(cursor, _messages(run, newest, of_newest), state)
    logger.info(
        "Evaluation %s: %s rows, %s of them labelled, of %s devices; %s predictions kept",
        run.evaluation_run_id,
        outcome.rows,
        outcome.rows_labelled,
        outcome.devices,
        kept,
    )
    return outcome


def _outcome(devices: pa.Table, of_newest: Sequence[Found]) -> Outcome:
    return Outcome(
        window_start=pc.min(devices["first_timestamp"]).as_py(),
        window_end=pc.max(devices["last_timestamp"]).as_py(),
        rows=sum(each["rows"] for each in of_newest),
        rows_labelled=sum(_samples(each) for each in of_newest),
        devices=len(of_newest),
        devices_short_of_history=sum(each["history_rows"] < ROLLING_ROWS for each in of_newest),
    )


def _rows(
    run: EvaluationRun,
    outcome: Outcome,
    rows: Sequence[Found],
    fleet_auc: Mapping[int, float | None],
    not_scored: Mapping[int, str],
) -> Iterator[Sequence[object]]:
    """Yield the fleet's row of each version, and those of its devices."""
    for version in dict.fromkeys(each["model_version"] for each in rows):
        of_version = [each for each in rows if each["model_version"] == version]
        fleet = _add_up(of_version) | {
            "device_id": FLEET,
            "model_version": version,
            "roc_auc": fleet_auc.get(version),
        }
        for found in (fleet, *of_version):
            yield _row(run, outcome, found)
    for version, reason in not_scored.items():
        yield _left_out(run, outcome, version, reason)


def _add_up(devices: Sequence[Found]) -> dict[str, Any]:
    """Add up the devices' sums: figures of the fleet are no means of their ratios."""
    names = ("rows", *COUNTS, *(f"zscore_{name}" for name in COUNTS))
    added: dict[str, Any] = {name: sum(each[name] for each in devices) for name in names}
    for name in _SUMS:
        added[name] = math.fsum(each[name] for each in devices)
    for name in _CALIBRATION:
        columns = zip(*(each[f"calibration_{name}"] for each in devices), strict=True)
        added[f"calibration_{name}"] = [math.fsum(column) for column in columns]
    return added


def _row(run: EvaluationRun, outcome: Outcome, found: Found) -> Sequence[object]:
    counts, samples = _counts(found), _samples(found)
    decided = rates(counts)
    calibration = {
        name: [number if name == "probability_sum" else int(number) for number in numbers]
        for name in _CALIBRATION
        if len(numbers := found[f"calibration_{name}"]) == BINS
    }
    return (
        found["model_version"],
        outcome.window_start,
        outcome.window_end,
        found["device_id"],
        "evaluated",
        None,
        run.planned_at,
        found["rows"],
        samples,
        *counts,
        *(found[name] for name in _SUMS),
        *msgspec.structs.astuple(decided),
        found["roc_auc"],
        mean(found["log_loss_sum"], samples),
        mean(found["brier_sum"], samples),
        Jsonb(calibration),
        Jsonb(baselines(_counts(found, "zscore_"))),
        Jsonb(dict(run.start_offsets)),
        Jsonb(dict(run.end_offsets)),
    )


def _left_out(run: EvaluationRun, outcome: Outcome, version: int, reason: str) -> Sequence[object]:
    times = (outcome.window_start, outcome.window_end)
    counts = (0,) * (2 + len(COUNTS) + len(_SUMS))
    known = (version, *times, FLEET, "not_evaluated", reason, run.planned_at, *counts)
    return (*known, *(None,) * (len(_COLUMNS) - len(known)))


def _counts(found: Found, prefix: str = "") -> Counts:
    return Counts(*(found[f"{prefix}{name}"] for name in COUNTS))


def _samples(found: Found) -> int:
    return sum(_counts(found))


def _predictions(devices: Iterable[Found]) -> Iterator[Prediction]:
    for each in devices:
        for sample in each["samples"]:
            event_time = from_milliseconds(sample["event_time"])
            yield Prediction(each["device_id"], **sample | {"event_time": event_time})


def _messages(
    run: EvaluationRun, version: int, devices: Iterable[Found]
) -> Iterator[OutboxMessage]:
    """Tell each device how the version did on all its labelled rows."""
    for each in devices:
        if not (samples := _samples(each)):
            continue
        message = ModelFeedback(
            device_id=each["device_id"],
            model_version=version,
            evaluation_run_id=run.evaluation_run_id,
            evaluation_timestamp=to_milliseconds(run.planned_at),
            samples=samples,
            mean_error=each["error_sum"] / samples,
            accuracy=rates(_counts(each)).accuracy,
            log_loss=each["log_loss_sum"] / samples,
            confidence=each["confidence_sum"] / samples,
        )
        yield OutboxMessage(
            Topic.FEEDBACK, each["device_id"], msgspec.json.encode(message).decode()
        )
