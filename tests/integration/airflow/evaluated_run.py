"""An evaluation of which every number is written out, for tests to leave clean or to poison.

Devices `a` and `b` have labels, `c` has none. Version 2 was a candidate that the gate rejected, so
the run scores version 3 and its parent, 1.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from flead.contracts.messages import GlobalModel, LocalUpdate, ModelFeedback, ModelStatus
from flead.contracts.topics import Topic
from flead.storage import evaluations, feedback, models, outbox, rounds, updates
from flead.storage.connection import connect
from flead.storage.evaluations import EvaluationRun, Outcome, RunState
from flead.storage.feedback import Prediction
from flead.storage.models import StoredModel
from flead.storage.outbox import OutboxMessage, OutboxState
from flead.storage.times import to_milliseconds
from flead.storage.updates import JudgedAs, Judgement, ReadUpdate

RUN = "v3-20261124T073000000000Z"
EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = datetime.now(UTC)
COLUMNS = (
    "model_version", "window_start", "window_end", "device_id", "status", "reason",
    "evaluation_timestamp", "rows", "samples", "tp", "fp", "tn", "fn", "log_loss_sum", "brier_sum",
    "accuracy", "precision", "recall", "f1", "roc_auc", "log_loss", "brier",
)  # fmt: skip
# rows, samples, tp, fp, tn, fn, sums of log loss and Brier score, and the figures of these
FIGURES = {
    "a": (20, 20, 3, 1, 15, 1, 4.0, 1.6, 0.9, 0.75, 0.75, 0.75, 0.8, 0.2, 0.08),
    "b": (10, 10, 0, 0, 10, 0, 1.0, 0.5, 1.0, None, None, None, None, 0.1, 0.05),
    "c": (5, 0, 0, 0, 0, 0, 0.0, 0.0, None, None, None, None, None, None, None),
    "*": (35, 30, 3, 1, 25, 1, 5.0, 2.1, 28 / 30, 0.75, 0.75, 0.75, 0.8, 5 / 30, 0.07),
}


def fill(database_url):
    """Store a clean run that awaits its check."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'"
        )
        [(tables,)] = cursor.fetchall()
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        _versions(cursor)
        _evaluate(cursor)


def fill_round(cursor, number):
    """Store an open round of an update of each device."""
    at = to_milliseconds(NOW) - 60_000 + number
    rounds.open_round(
        cursor, number, start_offsets={0: 3 * number}, end_offsets={0: 3 * number + 3}, updates=3,
        dead_letters=0, dag_run_id=f"round-{number}", now=NOW,
    )  # fmt: skip
    example = _example("local-model-updates", LocalUpdate)
    read = [
        ReadUpdate(
            Topic.LOCAL_UPDATES, 0, 3 * number + place, at,
            msgspec.structs.replace(
                example, device_id=device, model_version=number, input_partition=place,
                first_offset=100 * number, last_offset=100 * number + 12,
            ),
        )
        for place, device in enumerate("abc")
    ]  # fmt: skip
    updates.insert_updates(cursor, number, read)
    return read


def _versions(cursor):
    for number in (1, 2, 3):
        read = fill_round(cursor, number)
        judged = [Judgement(each, JudgedAs.ACCEPTED, weight=1 / 3) for each in read]
        updates.record_judgements(cursor, number, judged)
        rounds.complete(cursor, number, accepted=3, rejected={}, version=number, now=NOW)
        model = msgspec.structs.replace(
            _example("global-model-updates", GlobalModel), version=number,
            parent_version={1: 0, 2: 1, 3: 1}[number], aggregation_round=number,
            status=ModelStatus.REJECTED if number == 2 else ModelStatus.PROMOTED,
            num_devices=3, num_updates=3, total_samples=39, timestamp=1_764_000_000_000 + number,
        )  # fmt: skip
        models.insert_model(cursor, StoredModel(model, {}, {0: 10}, 0, f"{number}.json", "ab" * 32))


def _evaluate(cursor):
    start, end = NOW - timedelta(minutes=5), NOW - timedelta(minutes=1)
    schema = _example("global-model-updates", GlobalModel).feature_schema
    run = EvaluationRun(
        RUN, RunState.PLANNED, "an-evaluation", schema, [3], [1, 3], {0: 0}, {0: 100}, {0: 200}, NOW
    )
    evaluations.plan(cursor, run)
    outcome = Outcome(start, end, 35, 30, 3, 0)
    assert evaluations.complete(cursor, RUN, outcome, NOW + timedelta(seconds=30))
    evaluations.add_evaluations(
        cursor,
        RUN,
        COLUMNS,
        [
            (version, start, end, device, "evaluated", None, NOW, *figures)
            for version in (1, 3)
            for device, figures in FIGURES.items()
        ],
    )
    # Probabilities whose distances are exact in binary.
    said = [("a", 110, 0.875, 1), ("a", 111, 0.25, 0), ("b", 112, 0.125, 0)]
    predictions = [
        Prediction(device, 0, offset, start, probability, label)
        for device, offset, probability, label in said
    ]
    feedback.add_predictions(cursor, RUN, NOW, 3, predictions)
    messages = [
        ModelFeedback("a", 3, RUN, to_milliseconds(NOW), 20, 0.1875, 0.9, 0.2, 0.625),
        ModelFeedback("b", 3, RUN, to_milliseconds(NOW), 10, 0.125, 1.0, 0.1, 0.75),
    ]
    outbox.add(
        cursor,
        [
            OutboxMessage(Topic.FEEDBACK, each.device_id, msgspec.json.encode(each).decode())
            for each in messages
        ],
        OutboxState.HELD,
    )


def fill_analyses(database_url):
    """Add what the stream and the daily analysis have written since the evaluation before."""
    day = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO stream_analysis_results (window_start, window_seconds, device_id,"
            " model_version, row_count, zscore_anomaly_count, scored_rows, anomaly_count,"
            " probability_sum, rows_labelled, correct, created_at)"
            " VALUES (%s, 300, 'a', 3, 10, 1, 10, 2, 2.5, 8, 6, %s)",
            (day, NOW),
        )
        cursor.execute(
            "INSERT INTO analysis_days (analysis_date, state, read_from, rows, devices, closed,"
            " first_run_at, analysed_at) VALUES (%s, 'done', 'archive', 10, 1, TRUE, %s, %s)",
            (day.date(), NOW, NOW),
        )
        cursor.execute(
            "INSERT INTO batch_analysis_results (analysis_date, device_id, row_count,"
            " rows_labelled, first_event_time, last_event_time, scored_rows, anomaly_count,"
            " zscore_anomaly_count, feature_statistics, drift, feature_drift)"
            " VALUES (%s, 'a', 10, 8, %s, %s, 10, 2, 1, %s, 0.25, %s)",
            (day.date(), day, day, *["{}"] * 2),
        )


def _example(name, kind):
    return msgspec.json.decode((EXAMPLES / f"{name}.json").read_bytes(), type=kind)
