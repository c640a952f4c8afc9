"""Driving the stream analysis, and what its results must be, recounted from the topic."""

import os
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import psutil

from flead.analysis.scoring import inputs_of, log_odds_of, moments_of
from flead.contracts.analysis import StreamAnalysis
from flead.contracts.topics import Topic
from flead.features.rows import RowBatch
from flead.learning.fleet import PublishedModel
from flead.learning.scoring import probability
from flead.learning.zscore import is_anomalous
from flead.messaging.reading import read_committed
from flead.stack.home import CHECKOUT, Home
from flead.stack.spark import prepare_spark, spark_environment, submission
from flead.storage import models
from flead.storage.connection import connect

SCRIPT = CHECKOUT / "jobs" / "spark" / "stream_analysis.py"
SECONDS = 280.0


@dataclass
class Stream:
    """Starts, watches and kills drivers on a broker and a database."""

    home: Home
    configuration: StreamAnalysis
    database_url: str
    log: Path

    def start(self, **changes: object) -> subprocess.Popen[bytes]:
        """Start a driver."""
        prepare_spark(self.home)
        configuration = msgspec.structs.replace(self.configuration, **changes)
        command = submission(
            self.home,
            SCRIPT,
            ["--config", msgspec.json.encode(configuration).decode()],
            configuration={"spark.eventLog.enabled": "false"},
        )
        environment = os.environ | spark_environment(self.home)
        environment |= {"FLEAD_DATABASE_URL": self.database_url}
        with self.log.open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def query(self, statement: str, *parameters: object) -> list[tuple]:
        """Return the rows of a query."""
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def wait_for(self, statement: str, driver: subprocess.Popen[bytes], *parameters: object):
        """Wait until a query has a row, and return its first."""
        deadline = time.monotonic() + SECONDS
        while not (rows := self.query(statement, *parameters)):
            assert driver.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.02)
        return rows[0]

    def finish(self) -> None:
        """Read the topic to its end, which is far on a machine that was slow before."""
        driver = self.start(until_end=True, max_rows=20_000)
        assert driver.wait(SECONDS) == 0, self.log.read_text()[-6000:]

    def python(self) -> psutil.Process:
        """Return the driver's Python process."""
        [(pid,)] = self.query("SELECT pid FROM stream_deployments")
        return psutil.Process(pid)


@dataclass(frozen=True)
class Recount:
    """What the topic holds, and what the committed batches should have made of it."""

    rows: set[tuple[int, int]]
    invalid: int
    late: set[tuple[int, int]]
    windows: dict[tuple[str, int, int, int], np.ndarray]
    anomalies: set[tuple[int, int]]


class Counting:
    """Late rows, anomalies and sums of windows, counted row by row."""

    def __init__(self, configuration: StreamAnalysis, batches: list[tuple]) -> None:
        self._configuration = configuration
        self._batches = batches
        self.late, self.anomalies = set(), set()
        self.windows = defaultdict(lambda: np.zeros(7))

    def count(self, device: str, rows, far, sure) -> None:
        """Count the rows of a device, in their order."""
        newest = newest_before = -np.inf
        batch_before = None
        for number, (record, value) in enumerate(rows):
            batch = _batch_number(self._batches, record)
            if batch != batch_before:
                newest_before, batch_before = newest, batch
            newest = max(newest, min(value["event_time"], record.timestamp))
            position = (record.partition, record.offset)
            if far[number]:
                self.anomalies.add(position)
            watermark = newest_before - 1000 * self._configuration.watermark_seconds
            if value["event_time"] < watermark:
                self.late.add(position)
                continue
            version = self._batches[batch][2]
            self._add(device, value, version, far[number], sure[version][number])

    def _add(self, device: str, value, version: int, is_far: bool, sure: float) -> None:
        label = value.get("label")
        is_right = label is not None and (sure >= 0.5) == (label == 1)
        for seconds in self._configuration.windows_seconds:
            start = value["event_time"] // (1000 * seconds) * seconds
            sums = [1, is_far, 1, sure >= 0.5, sure, label is not None, is_right]
            self.windows[device, start, seconds, version] += sums


def recount(stream: Stream, is_valid, features: list[str], moments) -> Recount:
    """Count rows and windows anew, in plain Python, one row after the other.

    `is_valid` judges a message's value; the batches' offsets say which rows were analysed together.
    """
    kafka = {"bootstrap.servers": stream.configuration.kafka["bootstrap.servers"]}
    records = read_committed(kafka, Topic.TELEMETRY.value, {}, 1_000_000).records
    batches = stream.query(
        "SELECT start_offsets, end_offsets, model_version FROM stream_analysis_batches"
        " WHERE state = 'committed' ORDER BY id"
    )
    decoded = []
    for record in records:
        value = msgspec.json.decode(record.value) if is_valid(record.value) else None
        if value is not None:
            decoded.append((record, value))
    history = defaultdict(list)
    for record, value in sorted(decoded, key=lambda each: (each[0].partition, each[0].offset)):
        history[value["device_id"]].append((record, value))
    with connect(stream.database_url) as connection, connection.cursor() as cursor:
        stored = models.models(cursor, [version for *_, version in batches])
    published = {version: PublishedModel.of(each.model) for version, each in stored.items()}

    counting = Counting(stream.configuration, batches)
    for device, rows in history.items():
        inputs = inputs_of(_batch_of(device, rows, features))
        known = moments_of([device], moments, inputs.shape[1])
        nobody = np.zeros(len(rows), np.int64)
        sure = {
            version: probability(log_odds_of(inputs, nobody, known, model))
            for version, model in published.items()
        }
        counting.count(device, rows, is_anomalous(inputs), sure)
    positions = {(record.partition, record.offset) for record, _ in decoded}
    return Recount(
        positions,
        len(records) - len(decoded),
        counting.late,
        dict(counting.windows),
        counting.anomalies,
    )


def _batch_number(batches, record) -> int:
    partition = str(record.partition)
    for number, (start, end, _) in enumerate(batches):
        if partition in start and start[partition] <= record.offset < end[partition]:
            return number
    raise AssertionError(f"no batch has read {record.partition}/{record.offset}")


def _batch_of(device: str, rows, features: list[str]) -> RowBatch:
    values = [[value["features"].get(name) for name in features] for _, value in rows]
    return RowBatch(
        devices=[device],
        device_index=np.zeros(len(rows), np.int32),
        partition=np.array([record.partition for record, _ in rows], np.int32),
        offset=np.array([record.offset for record, _ in rows]),
        event_time=np.array([value["event_time"] for _, value in rows]),
        label=np.full(len(rows), np.nan),
        values=np.array(values, np.float64),
    )
