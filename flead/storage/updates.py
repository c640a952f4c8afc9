"""Updates as rounds read and judge them (`local_models`, `device_moments`, `device_status`)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from flead.contracts.messages import (
    ClosedBy,
    LabelSource,
    LocalUpdate,
    Metrics,
    Moments,
    UpdateStatus,
)
from flead.storage.connection import Cursor
from flead.storage.copying import Jsonb, copy_rows
from flead.storage.times import from_milliseconds, to_milliseconds


class JudgedAs(StrEnum):
    """What a round made of an update."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class ReadUpdate:
    """An update and its place in Kafka; `timestamp` is the record's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    update: LocalUpdate


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a round made of one update; `weight` is its share in the new model, 0 to 1."""

    read: ReadUpdate
    status: JudgedAs
    reason: str | None = None
    weight: float | None = None


_POSITION: Final = ("kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp")
_MOMENTS: Final = msgspec.json.Decoder(Moments)
_METRICS: Final = msgspec.json.Decoder(Metrics)
_DOCUMENTS: Final[dict[str, msgspec.json.Decoder[Moments] | msgspec.json.Decoder[Metrics]]] = {
    "moments": _MOMENTS,
    "global_metrics": _METRICS,
    "candidate_metrics": _METRICS,
    "personalized_metrics": _METRICS,
}
_TIMES: Final = ("window_start", "window_end", "timestamp")
_PLAIN: Final = (
    "device_id",
    "model_version",
    "base_version",
    "feature_schema",
    "trained",
    "samples_processed",
    "weights",
    "intercept",
    "accuracy",
    "rows",
    "rows_labelled",
    "rows_pseudo_labelled",
    "input_partition",
    "first_offset",
    "last_offset",
    "learning_rate",
    "hyperparameters_revision",
    "trial",
)
_COLUMNS: Final = (
    *_POSITION,
    *_PLAIN,
    *_DOCUMENTS,
    *_TIMES,
    "training_status",
    "label_source",
    "closed_by",
    "offset_sum",
)
# As text, which the typed decoders read several times faster than psycopg2 and convert would.
_SELECTED: Final = ", ".join(f"{name}::text" if name in _DOCUMENTS else name for name in _COLUMNS)


def insert_updates(cursor: Cursor, aggregation_round: int, read: Iterable[ReadUpdate]) -> int:
    """Store the updates of a round as pending; returns how many."""
    return copy_rows(
        cursor,
        "local_models",
        ("aggregation_round", *_COLUMNS),
        ((aggregation_round, *_to_row(each)) for each in read),
    )


def record_status(cursor: Cursor, aggregation_round: int) -> None:
    """Keep the newest update of each device of a round (`device_status`); may run twice."""
    cursor.execute(
        """
        INSERT INTO device_status AS known (
            device_id, kafka_offset, kafka_timestamp, training_status, model_version, base_version,
            learning_rate, trial, rows, rows_labelled, accuracy, log_loss, global_accuracy,
            global_log_loss
        )
        SELECT DISTINCT ON (device_id)
            device_id, kafka_offset, kafka_timestamp, training_status, model_version, base_version,
            learning_rate, trial, local_models.rows, rows_labelled,
            (own.tp + own.tn) / nullif(own.rows, 0),
            -- The quotient of a number that is almost none is an error in PostgreSQL.
            CASE WHEN own.log_loss_sum > 1e-300 THEN own.log_loss_sum ELSE 0 * own.log_loss_sum END
            / nullif(own.rows, 0),
            (global.tp + global.tn) / nullif(global.rows, 0),
            CASE
                WHEN global.log_loss_sum > 1e-300 THEN global.log_loss_sum
                ELSE 0 * global.log_loss_sum
            END / nullif(global.rows, 0)
        FROM local_models
        -- A window has no figures where its sums do not fit together.
        LEFT JOIN LATERAL jsonb_to_record(coalesce(personalized_metrics, '{}')) AS own (
            rows FLOAT8, log_loss_sum FLOAT8, tp FLOAT8, fp FLOAT8, tn FLOAT8, fn FLOAT8
        ) ON own.tp + own.fp + own.tn + own.fn = own.rows
        LEFT JOIN LATERAL jsonb_to_record(coalesce(global_metrics, '{}')) AS global (
            rows FLOAT8, log_loss_sum FLOAT8, tp FLOAT8, fp FLOAT8, tn FLOAT8, fn FLOAT8
        ) ON global.tp + global.fp + global.tn + global.fn = global.rows
        WHERE aggregation_round = %s
        ORDER BY device_id, kafka_timestamp DESC, kafka_offset DESC
        ON CONFLICT (device_id) DO UPDATE SET
            kafka_offset = excluded.kafka_offset,
            kafka_timestamp = excluded.kafka_timestamp,
            training_status = excluded.training_status,
            model_version = excluded.model_version,
            base_version = excluded.base_version,
            learning_rate = excluded.learning_rate,
            trial = excluded.trial,
            rows = excluded.rows,
            rows_labelled = excluded.rows_labelled,
            accuracy = excluded.accuracy,
            log_loss = excluded.log_loss,
            global_accuracy = excluded.global_accuracy,
            global_log_loss = excluded.global_log_loss
        WHERE (known.kafka_timestamp, known.kafka_offset)
            < (excluded.kafka_timestamp, excluded.kafka_offset)
        """,
        (aggregation_round,),
    )


def _to_row(read: ReadUpdate) -> Iterator[object]:
    update = read.update
    yield from (read.topic, read.partition, read.offset, from_milliseconds(read.timestamp))
    for name in _PLAIN:
        yield getattr(update, name)
    for name in _DOCUMENTS:
        document = getattr(update, name)
        yield None if document is None else Jsonb(document)
    for name in _TIMES:
        yield from_milliseconds(getattr(update, name))
    yield from (update.status, update.label_source, update.closed_by, update.offset_sum)


def _from_row(row: Sequence[Any]) -> ReadUpdate:
    value = dict(zip(_COLUMNS, row, strict=True))
    fields = {name: value[name] for name in _PLAIN}
    for name, decoder in _DOCUMENTS.items():
        fields[name] = None if value[name] is None else decoder.decode(value[name])
    for name in _TIMES:
        fields[name] = to_milliseconds(value[name])
    update = LocalUpdate(
        **fields,
        status=UpdateStatus(value["training_status"]),
        label_source=LabelSource(value["label_source"]),
        closed_by=ClosedBy(value["closed_by"]),
        offset_sum=int(value["offset_sum"]),
    )
    topic, partition, offset, timestamp = (value[name] for name in _POSITION)
    return ReadUpdate(topic, partition, offset, to_milliseconds(timestamp), update)


def updates_of_round(
    cursor: Cursor, aggregation_round: int, *, accepted_only: bool = False
) -> list[ReadUpdate]:
    """Return the updates of a round in (partition, offset) order, equal to what was read."""
    cursor.execute(
        f"""
        SELECT {_SELECTED} FROM local_models
        WHERE aggregation_round = %s AND (status = 'accepted' OR NOT %s)
        ORDER BY kafka_partition, kafka_offset
        """,  # noqa: S608 - the columns are constants of this module
        (aggregation_round, accepted_only),
    )
    return [_from_row(row) for row in cursor.fetchall()]


def judgements_of_round(cursor: Cursor, aggregation_round: int) -> list[Judgement]:
    """Return what a round made of its updates, in (partition, offset) order."""
    cursor.execute(
        f"""
        SELECT status, reject_reason, aggregation_weight, {_SELECTED} FROM local_models
        WHERE aggregation_round = %s ORDER BY kafka_partition, kafka_offset
        """,  # noqa: S608 - the columns are constants of this module
        (aggregation_round,),
    )
    return [
        Judgement(_from_row(row), JudgedAs(status), reason, weight)
        for status, reason, weight, *row in cursor.fetchall()
    ]


def record_judgements(
    cursor: Cursor, aggregation_round: int, judgements: Sequence[Judgement]
) -> None:
    """Write status, reason and weight of the updates of a round.

    Raises
    ------
    LookupError
        When one of the updates is not stored with this round.
    """
    if not judgements:
        return
    timestamps = [from_milliseconds(each.read.timestamp) for each in judgements]
    cursor.execute(
        # The range of times spares TimescaleDB the chunks of other rounds.
        """
        UPDATE local_models AS stored
        SET status = judged.status, reject_reason = judged.reason,
            aggregation_weight = judged.weight
        FROM unnest(
            %s::int[], %s::bigint[], %s::text[], %s::text[], %s::double precision[]
        ) AS judged (kafka_partition, kafka_offset, status, reason, weight)
        WHERE stored.aggregation_round = %s
            AND stored.kafka_timestamp BETWEEN %s AND %s
            AND stored.kafka_partition = judged.kafka_partition
            AND stored.kafka_offset = judged.kafka_offset
        """,
        (
            [each.read.partition for each in judgements],
            [each.read.offset for each in judgements],
            [each.status.value for each in judgements],
            [each.reason for each in judgements],
            [each.weight for each in judgements],
            aggregation_round,
            min(timestamps),
            max(timestamps),
        ),
    )
    if cursor.rowcount != len(judgements):
        raise LookupError(
            f"round {aggregation_round} holds {cursor.rowcount} of {len(judgements)} judged updates"
        )


def record_newest_moments(cursor: Cursor, aggregation_round: int) -> None:
    """Keep the newest moments of each device among the accepted updates of a round."""
    cursor.execute(
        """
        INSERT INTO device_moments AS known (
            feature_schema, device_id, aggregation_round, kafka_partition, kafka_offset,
            kafka_timestamp, moments
        )
        SELECT DISTINCT ON (feature_schema, device_id)
            feature_schema, device_id, aggregation_round, kafka_partition, kafka_offset,
            kafka_timestamp, moments
        FROM local_models
        WHERE aggregation_round = %s AND status = 'accepted'
        ORDER BY feature_schema, device_id, kafka_offset DESC
        ON CONFLICT (feature_schema, device_id) DO UPDATE SET
            aggregation_round = excluded.aggregation_round,
            kafka_partition = excluded.kafka_partition,
            kafka_offset = excluded.kafka_offset,
            kafka_timestamp = excluded.kafka_timestamp,
            moments = excluded.moments
        """,
        (aggregation_round,),
    )


def active_devices(cursor: Cursor) -> int:
    """Count the devices of the day before the newest accepted update, whatever its features.

    Not of the last day: after a longer pause the fleet that comes back is as large as before.
    """
    cursor.execute(
        """
        SELECT count(DISTINCT device_id) FROM device_moments
        WHERE kafka_timestamp > (SELECT max(kafka_timestamp) FROM device_moments) - INTERVAL '1 day'
        """
    )
    return int(cursor.fetchall()[0][0])


def newest_moments(cursor: Cursor, feature_schema: str) -> list[Moments]:
    """Return the newest accepted moments of every device of a schema, in the order of their ids."""
    cursor.execute(
        """
        SELECT moments::text FROM device_moments
        WHERE feature_schema = %s ORDER BY device_id COLLATE "C"
        """,
        (feature_schema,),
    )
    return [_MOMENTS.decode(text) for (text,) in cursor.fetchall()]


def newest_moments_as_of(
    cursor: Cursor, feature_schema: str, aggregation_round: int
) -> list[Moments]:
    """Return what `newest_moments` gave when `aggregation_round` was aggregated.

    Exact for rounds after `newest_expired_round`: of the updates that retention has taken, each
    device's newest moments are in `expired_moments`.
    """
    cursor.execute(
        """
        SELECT DISTINCT ON (device_id COLLATE "C") moments::text
        FROM (
            SELECT device_id, aggregation_round, kafka_offset, moments FROM device_moments
            WHERE feature_schema = %(schema)s AND aggregation_round <= %(round)s
            UNION ALL
            SELECT device_id, aggregation_round, kafka_offset, moments FROM local_models
            WHERE feature_schema = %(schema)s AND aggregation_round <= %(round)s
                AND status = 'accepted'
            UNION ALL
            SELECT device_id, aggregation_round, kafka_offset, moments FROM expired_moments
            WHERE feature_schema = %(schema)s AND aggregation_round <= %(round)s
        ) AS known
        ORDER BY device_id COLLATE "C", aggregation_round DESC, kafka_offset DESC
        """,
        {"schema": feature_schema, "round": aggregation_round},
    )
    return [_MOMENTS.decode(text) for (text,) in cursor.fetchall()]
