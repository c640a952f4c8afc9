"""The stream analysis on Spark: one query without state of its own, from Kafka to the database.

Spark decides what a batch reads and repeats a batch that was cut short. The database decides what
counts: a batch's results, the history that the next one goes on from, and the position in Kafka are
one transaction.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from flead.analysis import archive
from flead.analysis.stream_bucket import (
    ANOMALIES,
    SAMPLES,
    Batch,
    BucketResult,
    Scorer,
    analyse_bucket,
    unpacked,
)
from flead.analysis.tails import read_tail, remove_other_tails
from flead.analysis.windows import WINDOWS
from flead.contracts.analysis import StreamAnalysis
from flead.contracts.topics import Topic
from flead.learning.fleet import PublishedModel
from flead.storage import offsets, stream_batches, stream_deployments, stream_results
from flead.storage.analysis_days import add_late_rows
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, LockHeldError, hold_at_once
from flead.storage.stream_batches import CONSUMER, BatchCounts, BatchState
from flead.storage.stream_deployments import StreamState

TOPIC: Final = Topic.TELEMETRY.value
LOOK_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 5.0
EXPIRE_SECONDS: Final = 3600.0
REASON_CHARACTERS: Final = 2_000

logger = logging.getLogger(__name__)


class StreamError(Exception):
    """The stream analysis cannot start, or has ended by itself."""


class StreamAnalyser:
    """Analyses batches, one at a time; `stop` lets the one at work end and begins no other."""

    def __init__(self, configuration: StreamAnalysis, database_url: str) -> None:
        self._configuration = configuration
        self._database_url = database_url
        self._at_work = threading.Lock()
        self._is_over = False
        self._query_id: str | None = None

    def end_between_batches(self, seconds: float) -> bool:
        """Wait until no batch is at work, and let none begin; False when one still is."""
        if not self._at_work.acquire(timeout=seconds):
            return False
        self._is_over = True
        self._at_work.release()
        return True

    def __call__(self, messages: Any, batch_id: int) -> None:
        """Analyse a batch of messages (a Spark DataFrame) and commit what comes out.

        Raises
        ------
        StreamError
            It came after the end: Hadoop swallows the interrupt of a query that is stopped while it
            writes to its checkpoint. The next start repeats the batch.
        """
        query_id = messages.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
        with self._at_work:
            if self._is_over:
                raise StreamError(f"batch {batch_id} came after the end: the next start does it")
            self._analyse(messages, query_id, batch_id)

    def _analyse(self, messages: Any, query_id: str, batch_id: int) -> None:
        began = time.monotonic()
        if query_id != self._query_id:
            self._clear_up_after_others(query_id)
            self._query_id = query_id
        batch = self._open(query_id, batch_id)
        if batch is None:
            logger.warning("Batch %s was committed before: skipped", batch_id)
            return
        results = [
            msgspec.msgpack.decode(row["result"], type=BucketResult)
            for row in _analysed(messages, batch).collect()
        ]
        if not results:
            return
        counts = _counts(results, time.monotonic() - began)
        tails = {
            "buckets": self._configuration.buckets,
            "files": _files(batch, {str(each.bucket): each.tail for each in results}),
        }
        with connect(self._database_url) as connection, connection.cursor() as cursor:
            stream_batches.commit_batch(cursor, query_id, batch_id, counts, tails)
            version = batch.scorer.model.version if batch.scorer.model else 0
            stream_results.add_windows(
                cursor, _rows(unpacked((each.windows for each in results), WINDOWS), version)
            )
            stream_results.add_anomalies(
                cursor, _rows(unpacked((each.anomalies for each in results), ANOMALIES), version)
            )
            stream_results.add_samples(
                cursor, _rows(unpacked((each.samples for each in results), SAMPLES), version)
            )
            add_late_rows(cursor, _days(results))
            offsets.store_next_offsets(cursor, CONSUMER, TOPIC, counts.end_offsets)
            stream_deployments.record_batch(cursor, self._configuration.deployment_id)
        remove_other_tails(batch.tails_uri, tails)
        logger.info(
            "Batch %s: %s messages, %s rows, %s late, by model %s in %.3g s",
            batch_id, counts.messages, counts.rows, counts.late_rows, version, counts.seconds,
        )  # fmt: skip

    def _clear_up_after_others(self, query_id: str) -> None:
        """Remove what a query that is no more has archived without committing it."""
        with connect(self._database_url) as connection, connection.cursor() as cursor:
            left = stream_batches.open_batches_of_others(cursor, query_id)
        for each in left:
            archive.remove_writer(
                self._configuration.archive_uri, stream_batches.writer_name(*each)
            )
        with connect(self._database_url) as connection, connection.cursor() as cursor:
            stream_batches.abandon(cursor, left)

    def _open(self, query_id: str, batch_id: int) -> Batch | None:
        with connect(self._database_url) as connection, connection.cursor() as cursor:
            opened = stream_batches.open_batch(cursor, query_id, batch_id)
            if opened.state is not BatchState.OPEN:
                return None
            model = stream_batches.model_of(cursor, opened.model_version)
            moments = (
                stream_batches.moments_by_device(cursor, model.feature_schema) if model else {}
            )
            tails = stream_batches.newest_tails(cursor)
        writer = stream_batches.writer_name(query_id, batch_id)
        if opened.is_repeated:
            # It may have been cut in other buckets then.
            archive.remove_writer(self._configuration.archive_uri, writer)
        scorer = Scorer(
            opened.features,
            PublishedModel.of(model) if model else None,
            {
                device: np.array([each.count, each.mean, each.m2])
                for device, each in moments.items()
            },
        )
        return Batch(self._configuration, writer, scorer, tails)


def _analysed(messages: Any, batch: Batch) -> Any:
    """Return a DataFrame with the result of each bucket that has messages."""
    from pyspark.sql import functions as F  # noqa: N812, PLC0415 - in Spark's environment only

    def analyse(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        result = analyse_bucket(batches, batch)
        if result is not None:
            yield pa.RecordBatch.from_pydict({"result": [msgspec.msgpack.encode(result)]})

    buckets = batch.configuration.buckets
    key = F.coalesce("key", F.lit(b""))
    return (
        messages.select("key", "value", "partition", "offset", "timestamp")
        .repartitionById(buckets, (F.crc32(key) % buckets).cast("int"))
        .mapInArrow(analyse, "result binary")
    )


def _counts(results: list[BucketResult], seconds: float) -> BatchCounts:
    start: dict[int, int] = {}
    end: dict[int, int] = {}
    for each in results:
        for partition, offset in each.first_offsets.items():
            start[partition] = min(start.get(partition, offset), offset)
        for partition, offset in each.last_offsets.items():
            end[partition] = max(end.get(partition, 0), offset + 1)
    return BatchCounts(
        start_offsets=start,
        end_offsets=end,
        messages=sum(each.messages for each in results),
        rows=sum(each.rows for each in results),
        late_rows=sum(each.late_rows for each in results),
        seconds=seconds,
    )


def _files(batch: Batch, written: dict[str, str]) -> dict[str, str]:
    """Return the file of each bucket: of this batch, or of the one that last had its devices."""
    tails, buckets = batch.tails, batch.configuration.buckets
    if tails is None:
        return written
    if tails["buckets"] == buckets:
        return dict(tails["files"]) | written
    # Files of another number of buckets have devices of all buckets: each one is written anew.
    files = dict(written)
    for bucket in range(buckets):
        if str(bucket) not in files:
            files[str(bucket)] = _carried_over(batch, bucket)
    return files


def _carried_over(batch: Batch, bucket: int) -> str:
    configuration = batch.configuration
    tail = read_tail(
        batch.tails_uri,
        batch.tails,
        bucket,
        configuration.buckets,
        may_lack=configuration.allow_lost_history,
    )
    name = f"{batch.writer}-{bucket}.parquet"
    archive.write_file(batch.tails_uri, name, tail)
    return name


def _days(results: list[BucketResult]) -> dict[date, int]:
    days: dict[date, int] = {}
    for each in results:
        for day, count in each.days.items():
            of_day = date.fromisoformat(day)
            days[of_day] = days.get(of_day, 0) + count
    return days


def _rows(table: pa.Table, version: int) -> Iterator[tuple[object, ...]]:
    columns = [column.to_pylist() for column in table.columns]
    return ((*row, version) for row in zip(*columns, strict=True))


def start_query(spark: Any, configuration: StreamAnalysis, analyser: Any, database_url: str) -> Any:
    """Start the query, from its checkpoint or, without one, from the position in the database.

    Raises
    ------
    StreamError
        The topic is not there.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        known = offsets.next_offsets(cursor, CONSUMER, TOPIC)
    partitions = _partitions(spark, configuration.kafka)
    # -2 is the earliest.
    start = {str(partition): known.get(partition, -2) for partition in partitions}
    options = {f"kafka.{name}": value for name, value in configuration.kafka.items()}
    messages = (
        spark.readStream.format("kafka")
        .options(**options)
        .option("kafka.isolation.level", "read_committed")
        .option("subscribe", TOPIC)
        .option("startingOffsets", json.dumps({TOPIC: start}))
        .option("maxOffsetsPerTrigger", configuration.max_rows)
        .option("failOnDataLoss", "true")
        .load()
    )
    writer = messages.writeStream.foreachBatch(analyser).option(
        "checkpointLocation", configuration.checkpoint_uri
    )
    if configuration.until_end:
        return writer.trigger(availableNow=True).start()
    return writer.trigger(processingTime=f"{configuration.trigger_seconds} seconds").start()


def _partitions(spark: Any, kafka: Mapping[str, str]) -> list[int]:
    """Partitions of the topic, asked of the brokers by the client that will read it."""
    from py4j.protocol import Py4JJavaError  # noqa: PLC0415 - in Spark's environment only

    jvm = spark.sparkContext._jvm
    properties = jvm.java.util.HashMap()
    for name, value in kafka.items():
        properties.put(name, value)
    admin = jvm.org.apache.kafka.clients.admin.AdminClient.create(properties)
    try:
        names = jvm.java.util.Collections.singletonList(TOPIC)
        described = admin.describeTopics(names).allTopicNames().get().get(TOPIC)
    except Py4JJavaError as error:
        raise StreamError(
            f"the partitions of {TOPIC} cannot be read: {error.java_exception.getMessage()}"
        ) from error
    finally:
        admin.close()
    return [each.partition() for each in described.partitions()]


def run(
    spark: Any, configuration: StreamAnalysis, database_url: str, stopping: threading.Event
) -> None:
    """Analyse the stream until it is asked to stop, by `stopping` or in the database.

    Raises
    ------
    StreamError
        Another driver runs, the topic is not there, or the query has failed.
    psycopg2.Error
        The database does not answer.
    """
    name = configuration.deployment_id
    try:
        with hold_at_once(database_url, Lock.STREAM) as cursor:
            try:
                _drive(spark, configuration, database_url, stopping, cursor)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]
                stream_deployments.end(cursor, name, StreamState.FAILED, reason)
                raise
            reason = "read to the end" if configuration.until_end else "stopped as asked"
            stream_deployments.end(cursor, name, StreamState.STOPPED, reason)
    except LockHeldError as error:
        reason = "another driver of the stream analysis runs: stop it first"
        with connect(database_url) as connection, connection.cursor() as cursor:
            stream_deployments.refuse(cursor, name, reason)
        raise StreamError(reason) from error


def _drive(
    spark: Any,
    configuration: StreamAnalysis,
    database_url: str,
    stopping: threading.Event,
    cursor: Cursor,
) -> None:
    analyser = StreamAnalyser(configuration, database_url)
    query = start_query(spark, configuration, analyser, database_url)
    stream_deployments.begin(
        cursor, configuration, socket.gethostname(), os.getpid(), str(query.id)
    )
    logger.info("Query %s is started", query.id)
    expire_at = beat_at = 0.0
    while query.isActive:
        now = time.monotonic()
        if now >= beat_at:
            beat_at = now + BEAT_SECONDS
            asked = stream_deployments.beat(
                cursor,
                configuration.deployment_id,
                lag_of(query.lastProgress),
                is_stopping=stopping.is_set(),
            )
            if asked:
                stopping.set()
        if now >= expire_at:
            expire_at = now + EXPIRE_SECONDS
            _expire(configuration, cursor)
        if stopping.is_set() and analyser.end_between_batches(LOOK_SECONDS):
            query.stop()
            return
        stopping.wait(LOOK_SECONDS)
    if (error := query.exception()) is not None:
        raise StreamError(str(error))


def _expire(configuration: StreamAnalysis, cursor: Cursor) -> None:
    keep = timedelta(days=configuration.archive_keep_days)
    archive.expire(configuration.archive_uri, datetime.now(UTC), keep)
    stream_batches.forget_batches(cursor, configuration.archive_keep_days)


def lag_of(progress: Mapping[str, Any] | None) -> int | None:
    """Messages that the query lay behind the topic when its newest batch ended."""
    if progress is None or not progress["sources"]:
        return None
    source = progress["sources"][0]
    end, latest = _offsets(source["endOffset"]), _offsets(source["latestOffset"])
    if not latest:
        return None
    return sum(max(offset - end.get(partition, 0), 0) for partition, offset in latest.items())


def _offsets(described: Any) -> dict[str, int]:
    found = json.loads(described) if isinstance(described, str) else described
    return dict((found or {}).get(TOPIC, {}))
