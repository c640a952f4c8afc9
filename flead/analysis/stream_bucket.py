"""What the stream makes of the messages of one bucket of devices in one batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa

from flead.analysis.archive import write_file, write_rows
from flead.analysis.scoring import inputs_of, log_odds_of, moments_of
from flead.analysis.tails import (
    TAIL,
    known_times,
    newest_times,
    read_tail,
    tail_of,
)
from flead.analysis.telemetry import ROWS, TIME, batch_of, decode_messages, in_order
from flead.analysis.windows import Judged, window_sums
from flead.contracts.analysis import StreamAnalysis
from flead.features.rows import Floats, Integers, RowBatch
from flead.learning.anomalies import describe_anomalies
from flead.learning.fleet import PublishedModel
from flead.learning.scoring import probability
from flead.learning.zscore import is_anomalous

SAMPLE_SECONDS = 15
"""Each device leaves one sample of its rows in every slot of this length."""

ANOMALIES = pa.schema(
    [
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("event_time", TIME),
        ("device_id", pa.string()),
        ("feature", pa.string()),
        ("value", pa.float64()),
        ("z_score", pa.float64()),
        ("features", pa.string()),
        ("probability", pa.float64()),
        ("label", pa.int8()),
    ]
)
SAMPLES = pa.schema(
    [
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("event_time", TIME),
        ("device_id", pa.string()),
        ("slot_start", TIME),
        ("features", pa.string()),
        ("label", pa.int8()),
        ("probability", pa.float64()),
        ("is_anomalous", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True)
class Scorer:
    """What a batch is analysed with.

    Without a `model` no row has a probability; without `features` none has a z-score either.
    `moments` are of shape (3, inputs) for each device that has some.
    """

    features: Sequence[str]
    model: PublishedModel | None
    moments: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of the query: its name, what it is analysed with, and the history before it."""

    configuration: StreamAnalysis
    writer: str
    scorer: Scorer
    tails: Mapping[str, Any] | None

    @property
    def tails_uri(self) -> str:
        """Folder of the history of devices."""
        return f"{self.configuration.state_uri}/tails"


class BucketResult(msgspec.Struct, frozen=True):
    """Counts of a bucket, and its results as Arrow streams.

    `first_offsets` and `last_offsets` are of all messages, `days` counts the rows archived for each
    day (ISO), `tail` names the file of the history.
    """

    bucket: int
    messages: int
    rows: int
    late_rows: int
    first_offsets: dict[int, int]
    last_offsets: dict[int, int]
    days: dict[str, int]
    tail: str
    windows: bytes
    anomalies: bytes
    samples: bytes


def analyse_bucket(messages: Iterable[pa.RecordBatch], batch: Batch) -> BucketResult | None:
    """Decode, archive, score and sum up the messages of a bucket, and keep its devices' history.

    May run twice: it writes the same files again. None when there is no message.

    Parameters
    ----------
    messages
        See `decode_messages`; all messages of the devices of one bucket in the batch.
    batch
        The batch that they are of.
    """
    decoded, total = [], 0
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    bucket = 0
    for each in messages:
        if not each.num_rows:
            continue
        if not total:
            key = each["key"][0].as_py() or b""
            bucket = crc32(key) % batch.configuration.buckets
        total += each.num_rows
        _extend(first, last, each)
        decoded.append(decode_messages(each))
    if not total:
        return None
    rows = in_order(pa.Table.from_batches(decoded, ROWS))
    configuration = batch.configuration
    counts = write_rows(configuration.archive_uri, batch.writer, bucket, rows)
    tail = read_tail(
        batch.tails_uri,
        batch.tails,
        bucket,
        configuration.buckets,
        may_lack=configuration.allow_lost_history,
    )
    outcome = analyse(rows, tail, batch.scorer, configuration)
    name = f"{batch.writer}-{bucket}.parquet"
    write_file(batch.tails_uri, name, outcome.tail)
    return BucketResult(
        bucket=bucket,
        messages=total,
        rows=rows.num_rows,
        late_rows=outcome.late_rows,
        first_offsets=first,
        last_offsets=last,
        days={day.isoformat(): count for day, count in counts.items()},
        tail=name,
        windows=_packed(outcome.windows),
        anomalies=_packed(outcome.anomalies),
        samples=_packed(outcome.samples),
    )


def _extend(first: dict[int, int], last: dict[int, int], messages: pa.RecordBatch) -> None:
    places = pa.table({"partition": messages["partition"], "offset": messages["offset"]})
    found = places.group_by("partition").aggregate([("offset", "min"), ("offset", "max")])
    for partition, low, high in zip(*(column.to_pylist() for column in found.columns), strict=True):
        first[partition] = min(first.get(partition, low), low)
        last[partition] = max(last.get(partition, high), high)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def unpacked(packed: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Return tables of several buckets as one."""
    tables = [pa.ipc.open_stream(each).read_all() for each in packed]
    return pa.concat_tables([schema.empty_table(), *tables])


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of the rows of a bucket, and the history of its devices after them.

    `windows` has the columns `WINDOWS`, `anomalies` and `samples` those of the same name, `tail`
    those of `TAIL`.
    """

    windows: pa.Table
    anomalies: pa.Table
    samples: pa.Table
    late_rows: int
    tail: pa.Table


def analyse(
    rows: pa.Table, tail: pa.Table, scorer: Scorer, configuration: StreamAnalysis
) -> Outcome:
    """Score and sum up rows that follow on a history.

    Parameters
    ----------
    rows
        With the columns `ROWS`, in the order of `in_order`.
    tail
        With the columns `TAIL`.
    """
    history = pa.concat_tables([tail.select(ROWS.names), rows]).combine_chunks()
    scored = _score(history, tail.num_rows, scorer)
    times = known_times(tail)
    judged = _judged(rows, scored)
    late = _is_late(rows, times, configuration.watermark_seconds)
    in_time = judged.select(~late)
    for device, time in newest_times(rows).items():
        times[device] = max(time, times.get(device, time))
    return Outcome(
        windows=window_sums(in_time, configuration.windows_seconds),
        anomalies=scored.anomalies,
        samples=_samples(rows, judged, ~late),
        late_rows=int(late.sum()),
        tail=tail_of(
            history, scored.is_known, times, timedelta(days=configuration.device_ttl_days)
        ).cast(TAIL),
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """What the feature list and the model say of rows, of shape (history,) and (rows,)."""

    is_known: np.ndarray
    is_anomalous: np.ndarray
    probability: Floats
    anomalies: pa.Table


def _score(history: pa.Table, warm_up: int, scorer: Scorer) -> _Scored:
    is_known = np.zeros(history.num_rows, np.bool_)
    anomalous = np.zeros(history.num_rows, np.bool_)
    sure = np.full(history.num_rows, np.nan)
    anomalies = ANOMALIES.empty_table()
    if scorer.features and history.num_rows:
        batch, number = batch_of(history, scorer.features)
        is_known[number] = True
        inputs = inputs_of(batch)
        anomalous[number] = is_anomalous(inputs)
        if scorer.model is not None and len(batch):
            moments = moments_of(batch.devices, scorer.moments, inputs.shape[1])
            logits = log_odds_of(inputs, batch.device_index.astype(np.int64), moments, scorer.model)
            sure[number] = probability(logits)
        found = np.flatnonzero(anomalous[number] & (number >= warm_up))
        anomalies = _anomalies(batch, found, inputs[found], sure[number][found], scorer.features)
    return _Scored(is_known, anomalous[warm_up:], sure[warm_up:], anomalies)


def _anomalies(
    batch: RowBatch, found: Integers, inputs: Floats, sure: Floats, features: Sequence[str]
) -> pa.Table:
    described = describe_anomalies(batch, found, inputs, sure, features, 0)
    labels = batch.label[found]
    records = [
        {
            "kafka_partition": each.partition,
            "kafka_offset": each.offset,
            "event_time": each.event_time * 1000,
            "device_id": each.device_id,
            "feature": each.feature,
            "value": each.value,
            "z_score": each.z_score,
            "features": msgspec.json.encode(each.features).decode(),
            "probability": None if np.isnan(each.probability) else each.probability,
            "label": None if np.isnan(label) else int(label),
        }
        for each, label in zip(described, labels.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(records, ANOMALIES)


def _judged(rows: pa.Table, scored: _Scored) -> Judged:
    device = rows["device_id"].combine_chunks().dictionary_encode()
    return Judged(
        devices=device.dictionary.to_pylist(),
        device=device.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        event_time=rows["event_time"].cast(pa.int64()).to_numpy() // 1000,
        is_anomalous=scored.is_anomalous,
        probability=scored.probability,
        label=rows["label"].cast(pa.float64()).to_numpy(),
    )


def _is_late(rows: pa.Table, times: Mapping[str, int], watermark_seconds: float) -> np.ndarray:
    """Whether each row lies too far before what its device had sent in earlier batches."""
    names = rows["device_id"].combine_chunks().dictionary_encode()
    never = np.iinfo(np.int64).min // 2
    newest = np.array([times.get(name, never) for name in names.dictionary.to_pylist()], np.int64)
    of_row = newest[names.indices.to_numpy(zero_copy_only=False)]
    event_time = rows["event_time"].cast(pa.int64()).to_numpy()
    return np.asarray(event_time < of_row - int(watermark_seconds * 1e6))


def _samples(rows: pa.Table, judged: Judged, eligible: np.ndarray) -> pa.Table:
    """Return the first row of each device in every slot, by its place in Kafka."""
    slot = judged.event_time // (SAMPLE_SECONDS * 1000)
    number = np.flatnonzero(eligible)
    pairs = np.stack([judged.device[number], slot[number]])
    _, first = np.unique(pairs, axis=1, return_index=True)
    chosen = number[first]
    table = rows.take(pa.array(chosen))
    features = [msgspec.json.encode(dict(each)).decode() for each in table["features"].to_pylist()]
    sure = judged.probability[chosen]
    return pa.table(
        [
            table["kafka_partition"],
            table["kafka_offset"],
            table["event_time"],
            table["device_id"],
            pa.array(slot[chosen] * SAMPLE_SECONDS * 1_000_000, pa.int64()).cast(TIME),
            pa.array(features, pa.string()),
            table["label"],
            pa.array(sure, mask=np.isnan(sure)),
            pa.array(judged.is_anomalous[chosen]),
        ],
        schema=SAMPLES,
    )
