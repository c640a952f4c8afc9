"""Sampled predictions and how they turned out (`model_feedback`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flead.storage.connection import Cursor
from flead.storage.copying import copy_new_rows

COLUMNS: Final = (
    "evaluation_run_id",
    "evaluation_timestamp",
    "model_version",
    "kafka_partition",
    "kafka_offset",
    "event_time",
    "device_id",
    "prediction",
    "actual",
    "error",
    "confidence",
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a version said of a labelled row; `prediction` is the probability of an anomaly."""

    device_id: str
    kafka_partition: int
    kafka_offset: int
    event_time: datetime
    prediction: float
    actual: int


def add_predictions(
    cursor: Cursor,
    evaluation_run_id: str,
    evaluation_timestamp: datetime,
    version: int,
    predictions: Iterable[Prediction],
) -> int:
    """Write the predictions of a run; returns how many are new. Those that are stored stay."""
    rows = (
        (
            evaluation_run_id,
            evaluation_timestamp,
            version,
            each.kafka_partition,
            each.kafka_offset,
            each.event_time,
            each.device_id,
            each.prediction,
            each.actual,
            abs(each.actual - each.prediction),
            abs(2.0 * each.prediction - 1.0),
        )
        for each in predictions
    )
    return copy_new_rows(cursor, "model_feedback", COLUMNS, rows)
