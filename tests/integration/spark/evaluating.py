"""Evaluations by the Spark job's own script, and what they must find, by plain definitions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from flead.analysis.planning import plan_or_resume
from flead.contracts.analysis import ModelEvaluation
from flead.contracts.messages import GlobalModel, LocalUpdate, ModelStatus, Moments, Telemetry
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging import client
from flead.messaging.reading import Record, offset_ranges, read_committed
from flead.settings import Settings
from flead.stack.home import CHECKOUT
from flead.storage import models, rounds, updates
from flead.storage.connection import Cursor, connect
from flead.storage.evaluations import EvaluationRun
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel
from flead.storage.updates import ReadUpdate

JOB = CHECKOUT / "jobs" / "spark" / "model_evaluation.py"
EXAMPLES = Path(__file__).parents[2] / "examples"
START_MS = 1_764_000_000_000
WRITTEN = ("model_evaluations", "model_feedback", "outbox")
"""What an evaluation leaves, beside its run."""


class Row(NamedTuple):
    """What a device sends; values are nan where missing."""

    device: str
    values: Sequence[float]
    label: int | None
    event_time: int = START_MS


@dataclass
class Sent:
    """A device's rows as they lie in Kafka."""

    partition: int = 0
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    event_times: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)


class Evaluating:
    """Versions of one feature list in a database, rows on a broker, and evaluations of them.

    Rows of other features lie in the same topic; devices are called differently there.
    """

    def __init__(
        self,
        ask: Callable[[Any], dict[str, Any]],
        kafka: str,
        database_url: str,
        features: list[str],
        **settings: Any,
    ) -> None:
        self.ask = ask
        self.kafka = {"bootstrap.servers": kafka}
        self.database_url = database_url
        self.features = features
        self.schema = feature_schema(features)
        self.settings = Settings(**settings)
        self._updates = 0
        migrate(database_url)

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            yield cursor

    def query(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        with self.cursor() as cursor:
            cursor.execute(statement, parameters)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def written(self) -> dict[str, list[Any]]:
        """Return all that evaluations have left, every column of it."""
        return {table: self.query(f"SELECT * FROM {table} AS t ORDER BY t") for table in WRITTEN}  # noqa: S608 - constants

    def send(self, rows: Sequence[Row]) -> None:
        producer = client.producer(self.kafka)
        for each in rows:
            readings = zip(self.features, each.values, strict=True)
            features = {
                name: None if math.isnan(value) else float(value) for name, value in readings
            }
            row = Telemetry(each.device, each.event_time, features, each.label)
            producer.produce(Topic.TELEMETRY, msgspec.json.encode(row), each.device)
        assert producer.flush(30) == 0

    def send_no_row(self, device: str) -> None:
        producer = client.producer(self.kafka)
        producer.produce(Topic.TELEMETRY, b"no row", device)
        assert producer.flush(30) == 0

    def records(self) -> list[Record]:
        """Return the messages of this feature list and those that are no rows."""
        return [
            record
            for record in read_committed(self.kafka, Topic.TELEMETRY, {}, 100_000).records
            if record.value == b"no row" or self._is_own(record)
        ]

    def _is_own(self, record: Record) -> bool:
        row = msgspec.json.decode(record.value or b"", type=Telemetry)
        return list(row.features) == self.features

    def sent(self) -> dict[str, Sent]:
        found: dict[str, Sent] = {}
        for record in self.records():
            if record.value == b"no row":
                continue
            row = msgspec.json.decode(record.value or b"", type=Telemetry)
            sent = found.setdefault(row.device_id, Sent())
            sent.partition = record.partition
            sent.offsets.append(record.offset)
            sent.timestamps.append(record.timestamp)
            sent.event_times.append(row.event_time)
            sent.labels.append(row.label)
            values = [row.features[name] for name in self.features]
            sent.values.append([math.nan if value is None else value for value in values])
        return found

    def ends(self) -> dict[int, int]:
        """Return the last offset of each partition that has one."""
        ranges = offset_ranges(self.kafka, Topic.TELEMETRY)
        return {partition: end - 1 for partition, (_, end) in ranges.items() if end}

    def open_round(self, number: int) -> None:
        with self.cursor() as cursor:
            rounds.open_round(
                cursor, number, start_offsets={}, end_offsets={}, updates=0, dead_letters=0,
                dag_run_id=None, now=datetime.now(UTC),
            )  # fmt: skip
            rounds.complete(
                cursor, number, accepted=0, rejected={}, version=None, now=datetime.now(UTC)
            )

    def remember(
        self,
        number: int,
        windows: Sequence[tuple[str, int, list[int], Moments]],
        reject_reason: str | None = None,
    ) -> None:
        """Store windows of a round: device, partition, offsets of the rows, moments after it."""
        update = msgspec.json.decode(
            (EXAMPLES / "local-model-updates.json").read_bytes(), type=LocalUpdate
        )
        counted: dict[str, int] = {}
        read = []
        for device, partition, offsets, moments in windows:
            counted[device] = counted.get(device, 0) + 1
            self._updates += 1
            window = msgspec.structs.replace(
                update, device_id=device, model_version=counted[device], rows=len(offsets),
                feature_schema=self.schema, moments=moments, input_partition=partition,
                first_offset=offsets[0], last_offset=offsets[-1], offset_sum=sum(offsets),
            )  # fmt: skip
            at = START_MS + self._updates
            read.append(ReadUpdate(Topic.LOCAL_UPDATES, 0, self._updates, at, window))
        with self.cursor() as cursor:
            updates.insert_updates(cursor, number, read)
            cursor.execute(
                "UPDATE local_models SET status = %s, reject_reason = %s WHERE status = 'pending'",
                ("rejected" if reject_reason else "accepted", reject_reason),
            )
            updates.record_newest_moments(cursor, number)

    def store(
        self,
        version: int,
        weights: Sequence[float],
        standardizer: Moments,
        input_offsets: Mapping[int, int],
        **changes: Any,
    ) -> None:
        """Store a version, the child of the one before, and make it the head of its schema."""
        model = msgspec.json.decode(
            (EXAMPLES / "global-model-updates.json").read_bytes(), type=GlobalModel
        )
        values = {
            "version": version, "parent_version": version - 1, "restored_version": None,
            "status": ModelStatus.PROMOTED, "aggregation_round": None, "standardizer": standardizer,
            "feature_names": self.features, "feature_schema": self.schema,
            "weights": list(weights[:-1]), "intercept": weights[-1],
        }  # fmt: skip
        model = msgspec.structs.replace(model, **values | changes)
        with self.cursor() as cursor:
            models.insert_model(
                cursor, StoredModel(model, {}, input_offsets, 0, "m.json", "ab" * 32)
            )
            head = models.head(cursor, model.feature_schema)
            models.advance_head(cursor, model.feature_schema, head, version)

    def take_back(self, version: int) -> None:
        with self.cursor() as cursor:
            cursor.execute(
                "UPDATE federated_models SET status = 'rolled_back' WHERE version = %s", (version,)
            )

    def plan(self) -> EvaluationRun:
        return plan_or_resume(self.database_url, self.kafka, self.settings, None, at_once=True)

    def run(self, run: EvaluationRun) -> None:
        """Run the job's script; RuntimeError has the name and the message of what it raised."""
        config = ModelEvaluation(
            run.evaluation_run_id, self.kafka, self.settings.feedback_rows, buckets=2
        )
        arguments = ["--config", msgspec.json.encode(config).decode()]
        self.ask([str(JOB), arguments, {"FLEAD_DATABASE_URL": self.database_url}])

    def evaluations(self, run: EvaluationRun) -> dict[tuple[int, str], dict[str, Any]]:
        """Return what a run has written of each version and device."""
        rows = self.query(
            "SELECT * FROM model_evaluations WHERE evaluation_run_id = %s", run.evaluation_run_id
        )
        return {(row["model_version"], row["device_id"]): row for row in rows}

    def predictions(self, run: EvaluationRun) -> list[dict[str, Any]]:
        return self.query(
            "SELECT * FROM model_feedback WHERE evaluation_run_id = %s", run.evaluation_run_id
        )


def rows_in(run: EvaluationRun, sent: Sent) -> list[int]:
    """Return which of a device's rows lie in the window, as numbers from its first."""
    first, end = run.start_offsets[sent.partition], run.end_offsets[sent.partition]
    return [number for number, offset in enumerate(sent.offsets) if first <= offset < end]


def naive_inputs(values: Sequence[Sequence[float]]) -> np.ndarray:
    """Make inputs by their definition, row by row."""
    made = np.full((len(values), len(values[0]), 4), np.nan)
    for row, now in enumerate(values):
        before = np.array(values[max(row - 100, 0) : row]).reshape(-1, len(now))
        for feature, value in enumerate(now):
            seen = before[:, feature][~np.isnan(before[:, feature])]
            made[row, feature, 0] = value
            if len(seen):
                made[row, feature, 2:] = seen.mean(), seen.std()
            if not math.isnan(value):
                known = len(seen) >= 30 and seen.std() > 0
                z_score = (value - seen.mean()) / seen.std() if known else 0.0
                made[row, feature, 1] = min(max(z_score, -10.0), 10.0)
    return made.reshape(len(values), -1)


def moments_of(inputs: np.ndarray) -> Moments:
    counted = (~np.isnan(inputs)).sum(axis=0)
    mean = np.nanmean(inputs, axis=0)
    spread = np.nansum((inputs - mean) ** 2, axis=0)
    return Moments(counted.astype(float).tolist(), mean.tolist(), spread.tolist())


def log_odds(inputs: np.ndarray, moments: Moments, weights: Sequence[float]) -> np.ndarray:
    """Return what a version says of rows, by its definition."""
    count, mean, m2 = (np.array(part) for part in msgspec.structs.astuple(moments))
    deviation = np.where(m2 > 0, np.sqrt(m2 / count), np.inf)
    scaled = np.nan_to_num(np.clip((inputs - mean) / deviation, -10, 10))
    return scaled @ np.array(weights[:-1]) + weights[-1]
