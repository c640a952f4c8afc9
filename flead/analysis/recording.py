"""The end of an evaluation: what Spark found is written, in one transaction."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa

from flead.analysis.results import (
    COLUMNS,
    evaluation_rows,
    messages_of,
    outcome_of,
    predictions_of,
    samples_of,
)
from flead.contracts.topics import Topic
from flead.storage import evaluations, feedback, outbox
from flead.storage.connection import connect
from flead.storage.evaluations import EvaluationRun, Outcome
from flead.storage.outbox import OutboxState

logger = logging.getLogger(__name__)


class EmptyWindowError(Exception):
    """There was no row with a label; the message names the offsets."""


def record(
    database_url: str,
    run: EvaluationRun,
    devices: pa.Table,
    fleet_auc: Mapping[int, float | None],
    not_scored: Mapping[int, str],
) -> Outcome:
    """Write the evaluations, predictions and feedback of a run, and close it.

    What its devices are told is held until the quality checks release it. A run that was closed
    before keeps what it has; its devices are told nothing twice.

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
        No labelled row of the feature list lies in the window.
    """
    found = devices.sort_by([("model_version", "ascending"), ("device_id", "ascending")])
    rows = found.to_pylist()
    if not any(map(samples_of, rows)):
        raise EmptyWindowError(
            f"evaluation {run.evaluation_run_id} found no labelled row of its feature list in"
            f" offsets {dict(run.start_offsets)} to {dict(run.end_offsets)} of {Topic.TELEMETRY}:"
            " were they deleted, or does the fleet send other features or no labels now?"
        )
    newest = rows[-1]["model_version"]
    of_newest = [each for each in rows if each["model_version"] == newest]
    outcome = outcome_of(of_newest)
    now = datetime.now(UTC)
    with connect(database_url) as connection, connection.cursor() as cursor:
        is_first = evaluations.complete(cursor, run.evaluation_run_id, outcome, now)
        evaluations.add_evaluations(
            cursor,
            run.evaluation_run_id,
            COLUMNS,
            evaluation_rows(run, outcome, rows, fleet_auc, not_scored),
        )
        kept = feedback.add_predictions(
            cursor, run.evaluation_run_id, run.planned_at, newest, predictions_of(of_newest)
        )
        if is_first:
            outbox.add(cursor, messages_of(run, newest, of_newest), OutboxState.HELD)
    logger.info(
        "Evaluation %s: %s rows, %s of them labelled, of %s devices; %s new predictions",
        run.evaluation_run_id,
        outcome.rows,
        outcome.rows_labelled,
        outcome.devices,
        kept,
    )
    return outcome
