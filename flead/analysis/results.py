"""What Spark found in an evaluation, as rows of the database and messages to the devices."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from flead.analysis.evaluation import COUNTS
from flead.analysis.figures import Counts, baselines, mean, rates
from flead.contracts.messages import ModelFeedback
from flead.contracts.schema import ROLLING_ROWS
from flead.contracts.topics import Topic
from flead.storage.copying import Jsonb
from flead.storage.evaluations import FLEET, EvaluationRun, Outcome
from flead.storage.feedback import Prediction
from flead.storage.outbox import OutboxMessage
from flead.storage.times import from_milliseconds, to_milliseconds

_CALIBRATION: Final = ("count", "probability_sum", "positives")
_SUMS: Final = ("log_loss_sum", "brier_sum")
COLUMNS: Final = (
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
"""Columns of `model_evaluations` that are written, beside the run's id."""

Found = Mapping[str, Any]
"""Sums of a version on a device or the fleet, by the columns of `evaluation.DEVICES`."""


def outcome_of(devices: Sequence[Found]) -> Outcome:
    """Count what an evaluation found, by what it found of one version on all devices."""
    return Outcome(
        window_start=min(each["first_timestamp"] for each in devices),
        window_end=max(each["last_timestamp"] for each in devices),
        rows=sum(each["rows"] for each in devices),
        rows_labelled=sum(samples_of(each) for each in devices),
        devices=len(devices),
        devices_short_of_history=sum(each["history_rows"] < ROLLING_ROWS for each in devices),
    )


def evaluation_rows(
    run: EvaluationRun,
    outcome: Outcome,
    rows: Sequence[Found],
    fleet_auc: Mapping[int, float | None],
    not_scored: Mapping[int, str],
) -> Iterator[Sequence[object]]:
    """Yield the fleet's row of each version and those of its devices, with the columns `COLUMNS`.

    Parameters
    ----------
    rows
        Of all versions and devices.
    fleet_auc
        Area under the ROC curve over all devices, by version.
    not_scored
        Versions that were left out, with the reason.
    """
    for version in dict.fromkeys(each["model_version"] for each in rows):
        of_version = [each for each in rows if each["model_version"] == version]
        fleet = _add_up(of_version) | {
            "device_id": FLEET,
            "model_version": version,
            "roc_auc": fleet_auc.get(version),
        }
        yield _row(run, outcome, fleet)
        # A device that has the name of the fleet counts in it, and has no row of its own.
        yield from (_row(run, outcome, each) for each in of_version if each["device_id"] != FLEET)
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
    counts, samples = _counts(found), samples_of(found)
    decided = rates(counts)
    calibration = {
        name: [
            number if name == "probability_sum" else int(number)
            for number in found[f"calibration_{name}"]
        ]
        for name in _CALIBRATION
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
    return (*known, *(None,) * (len(COLUMNS) - len(known)))


def _counts(found: Found, prefix: str = "") -> Counts:
    return Counts(*(found[f"{prefix}{name}"] for name in COUNTS))


def samples_of(found: Found) -> int:
    """Return how many labelled rows there were."""
    return sum(_counts(found))


def predictions_of(devices: Iterable[Found]) -> Iterator[Prediction]:
    """Yield the sampled predictions of a version."""
    for each in devices:
        for sample in each["samples"]:
            event_time = from_milliseconds(sample["event_time"])
            yield Prediction(each["device_id"], **sample | {"event_time": event_time})


def messages_of(
    run: EvaluationRun, version: int, devices: Iterable[Found]
) -> Iterator[OutboxMessage]:
    """Tell each device how the version did on all its labelled rows."""
    for each in devices:
        if not (samples := samples_of(each)):
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
