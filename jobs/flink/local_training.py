"""Train a model for each device on its own stream.

    telemetry ─► decode and pack ─┐
    ticks ────────────────────────┤
    feedback ─► decode and pack ──┴─► key by bucket ─┐
                                                     ├─► train ─► updates, anomalies, dead letters
    global models, control ─► broadcast ─────────────┘

Rows meet keyed state packed by *bucket*, the CRC-32 of the device modulo `buckets`: one record and
one state value hold the rows and models of many devices, because each crossing between the JVM and
Python costs more than training a window. Nothing outside this file knows of buckets.
"""

import argparse
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from pyflink.common import Configuration, Row, TypeInformation, Types
from pyflink.datastream import CheckpointingMode, DataStream, StreamExecutionEnvironment
from pyflink.datastream.functions import (
    FlatMapFunction,
    KeyedBroadcastProcessFunction,
    RuntimeContext,
)
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor
from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from flead.contracts.deployment import (
    CHECKPOINT_PAUSE,
    MAX_PARALLELISM,
    TrainingDeployment,
)
from flead.contracts.messages import (
    CANDIDATE_KEY,
    CONTROL_KEY,
    GLOBAL_KEY,
    DeadLetter,
    DeadLetterReason,
    GlobalModel,
    ModelFeedback,
    ModelStatus,
    TrainingControl,
)
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.topics import MESSAGE_BYTES, Topic, dead_letter_topic
from flead.features.decoding import TelemetryDecoder, dead_letter, largest_message
from flead.features.rows import RowBatch
from flead.learning.feedback import decode_feedback
from flead.learning.trainer import FleetState, LocalTrainer, Outcome

ROWS: Final = 0
DEAD_LETTERS: Final = 1
FEEDBACK: Final = 2
NOT_OPERATORS: Final = frozenset({"PartitionTransformation", "UnionTransformation"})
STATELESS: Final = frozenset({"Calc"})
"""Operators of the planner that project and filter: several may follow one source."""

BATCH_ROWS: Final = 10_000
BATCH_BYTES: Final = 48 * 1024 * 1024
"""Bytes of the largest messages that one Arrow batch may hold: it is in memory several times."""

BUNDLE_ELEMENTS: Final = 20_000
"""Two batches of rows, or packed records of about 3 million.

What is sent to a worker ahead of its work is bounded by it, and a job that is far behind its input
gets to its checkpoints.
"""


def byte_array() -> TypeInformation:
    """Return the type of byte strings; made anew, for a used one holds a Java object."""
    return Types.PRIMITIVE_ARRAY(Types.BYTE())


def fleet_descriptor() -> MapStateDescriptor:
    """Describe the broadcast state: the newest message of each kind, as it was read."""
    return MapStateDescriptor("fleet", Types.STRING(), byte_array())


def bucket_of(device_id: str, buckets: int) -> int:
    """Return the bucket of a device: stable over processes and Python versions."""
    return zlib.crc32(device_id.encode()) % buckets


def pack_rows(bucket: int, batch: RowBatch) -> bytes:
    """Encode the rows of one bucket: 2 bytes of bucket, then msgpack of the arrays' bytes."""
    body = msgspec.msgpack.encode(
        (
            ROWS,
            batch.devices,
            batch.device_index.tobytes(),
            batch.partition.tobytes(),
            batch.offset.tobytes(),
            batch.event_time.tobytes(),
            batch.label.tobytes(),
            batch.values.tobytes(),
        )
    )
    return bucket.to_bytes(2, "big") + body


def pack_letters(letters: list[DeadLetter], buckets: int) -> bytes:
    """Encode dead letters of one topic like rows; any bucket would do."""
    topic = dead_letter_topic(Topic(letters[0].topic))
    encoded = [msgspec.json.encode(each) for each in letters]
    body = msgspec.msgpack.encode((DEAD_LETTERS, topic.value, encoded))
    return (letters[0].partition % buckets).to_bytes(2, "big") + body


def pack_feedback(bucket: int, feedback: ModelFeedback) -> bytes:
    """Encode the feedback of one device like rows."""
    body = msgspec.msgpack.encode((FEEDBACK, msgspec.json.encode(feedback)))
    return bucket.to_bytes(2, "big") + body


def unpack_rows(fields: list[Any]) -> RowBatch:
    """Rebuild the rows that `pack_rows` encoded."""
    devices, index, partition, offset, event_time, label, values = fields
    rows = len(label) // 8
    return RowBatch(
        devices=devices,
        device_index=np.frombuffer(index, np.int32),
        partition=np.frombuffer(partition, np.int32),
        offset=np.frombuffer(offset, np.int64),
        event_time=np.frombuffer(event_time, np.int64),
        label=np.frombuffer(label, np.float64),
        values=np.frombuffer(values, np.float64).reshape(rows, -1),
    )


class PackByBucket(ScalarFunction):
    """Turn a batch of Kafka messages into one packed record for each bucket, NULL elsewhere.

    Stateless, so that a batch may be decoded twice after a failure: exactly-once rests on the
    source's offsets and the keyed state alone. The name cache is only a cache. A message with a
    negative offset is in another place.
    """

    def __init__(self, features: list[str], buckets: int) -> None:
        self.features = features
        self.buckets = buckets

    def open(self, function_context: FunctionContext) -> None:
        self.decoder = TelemetryDecoder(self.features)
        self.bucket_by_device: dict[str, int] = {}

    def eval(
        self,
        key: pd.Series,
        value: pd.Series,
        partition: pd.Series,
        offset: pd.Series,
        timestamp: pd.Series,
    ) -> pd.Series:
        offsets = offset.to_numpy(np.int64)
        here = slice(None) if offsets.min() >= 0 else np.flatnonzero(offsets >= 0)
        batch, rejected = self.decoder.decode(
            key.iloc[here].tolist(),
            value.iloc[here].tolist(),
            partition.to_numpy(np.int32)[here],
            offsets[here],
            timestamp.to_numpy("datetime64[ms]").astype(np.int64)[here],
        )
        buckets = np.array([self.bucket(device) for device in batch.devices], np.int64)
        packed = [pack_rows(bucket, rows) for bucket, rows in batch.split(buckets)]
        if rejected:
            packed.append(pack_letters(rejected, self.buckets))
        return pd.Series(packed + [None] * (len(value) - len(packed)), dtype=object)

    def bucket(self, device: str) -> int:
        bucket = self.bucket_by_device.get(device)
        if bucket is None:
            bucket = self.bucket_by_device[device] = bucket_of(device, self.buckets)
        return bucket


class SendToBuckets(FlatMapFunction):
    """Pass packed records on, a tick to every bucket, and large messages as dead letters."""

    def __init__(self, features: list[str], buckets: int) -> None:
        self.features = features
        self.buckets = buckets

    def open(self, runtime_context: RuntimeContext) -> None:
        self.decoder = TelemetryDecoder(self.features)
        self.ticks = [bucket.to_bytes(2, "big") for bucket in range(self.buckets)]

    def flat_map(self, value: Row) -> list[bytes]:
        packed, key, message, partition, offset, timestamp = value
        if packed is not None:
            return [bytes(packed)] if packed else self.ticks
        _, rejected = self.decoder.decode(
            [None if key is None else bytes(key)],
            [None if message is None else bytes(message)],
            np.array([partition], np.int32),
            np.array([offset]),
            np.array([timestamp.to_epoch_milli()]),
        )
        return [pack_letters(rejected, self.buckets)]


class PackFeedback(FlatMapFunction):
    """Turn a message of `model-feedback` into a packed record of its device, or a dead letter."""

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    def flat_map(self, value: Row) -> list[bytes]:
        key, message, partition, offset, timestamp = value
        found = decode_feedback(
            None if key is None else bytes(key),
            None if message is None else bytes(message),
            partition,
            offset,
            timestamp.to_epoch_milli(),
        )
        if isinstance(found, DeadLetter):
            return [pack_letters([found], self.buckets)]
        return [pack_feedback(bucket_of(found.device_id, self.buckets), found)]


class TrainBucket(KeyedBroadcastProcessFunction):
    """Hold the trainer of a bucket's devices in one state value; adopt what is broadcast.

    A subtask owns its buckets until it is restarted, so trainers stay in memory once they are read
    from the state. PyFlink sends changed state values to the JVM when a bundle ends, always before
    a checkpoint, and asks the gauges just before: then, and not after every element, trainers that
    have changed are encoded into the buffers that the state holds.
    """

    def __init__(self, deployment: TrainingDeployment) -> None:
        self.deployment_json = msgspec.json.encode(deployment)

    def open(self, runtime_context: RuntimeContext) -> None:
        deployment = msgspec.json.decode(self.deployment_json, type=TrainingDeployment)
        self.features = deployment.features
        self.device_ttl_days = deployment.device_ttl_days
        self.schema = feature_schema(deployment.features)
        self.inputs = len(input_names(deployment.features))
        self.initial_control = TrainingControl(0, deployment.hyperparameters)
        self.first_subtask = runtime_context.get_index_of_this_subtask() == 0
        self.state = runtime_context.get_state(ValueStateDescriptor("trainer", byte_array()))
        self.fleet: FleetState | None = None
        self.trainers: dict[int, LocalTrainer] = {}
        self.changed: dict[int, bytearray] = {}
        metrics = runtime_context.get_metrics_group()
        metrics.gauge("devices", self.store_changed_trainers)
        self.rejected = metrics.counter("rejected_broadcast_messages")
        self.evicted = metrics.counter("evicted_devices")

    def process_element(self, value: bytes, ctx: Any) -> Iterator[Row]:
        bucket, body = int.from_bytes(value[:2], "big"), value[2:]
        now = ctx.timer_service().current_processing_time()
        if not body:
            yield from self.close_due(bucket, now, ctx)
            return
        kind, *fields = msgspec.msgpack.decode(body)
        if kind == DEAD_LETTERS:
            topic, letters = fields
            for encoded in letters:
                yield Row(topic, None, encoded)
        elif kind == ROWS:
            trainer = self.trainer(bucket)
            self.mark_changed(bucket)
            yield from emit(trainer.process(unpack_rows(fields), now, self.fleet_state(ctx)))
        elif kind == FEEDBACK:
            feedback = msgspec.json.decode(fields[0], type=ModelFeedback)
            self.mark_changed(bucket)
            self.trainer(bucket).take_feedback([feedback], self.fleet_state(ctx))
        else:
            raise ValueError(f"a packed record is of the unknown kind {kind!r}")

    def close_due(self, bucket: int, now: int, ctx: Any) -> Iterator[Row]:
        """Close the windows that have waited long enough; most ticks find none and end here."""
        trainer = self.trainer(bucket)
        deadline = trainer.next_deadline_ms()
        if deadline is None or deadline > now:
            return
        self.mark_changed(bucket)
        outcome = trainer.close_due(now, self.fleet_state(ctx))
        self.evicted.inc(outcome.evicted)
        yield from emit(outcome)

    def trainer(self, bucket: int) -> LocalTrainer:
        """Return the trainer of the current key's bucket, read from the state the first time."""
        trainer = self.trainers.get(bucket)
        if trainer is None:
            stored = self.state.value()
            trainer = (
                LocalTrainer(self.features, self.device_ttl_days)
                if stored is None
                else LocalTrainer.from_bytes(stored, self.features, self.device_ttl_days)
            )
            self.trainers[bucket] = trainer
        return trainer

    def mark_changed(self, bucket: int) -> None:
        """Give the state a buffer that is filled when the bundle ends."""
        if bucket not in self.changed:
            self.changed[bucket] = bytearray()
            self.state.update(self.changed[bucket])

    def store_changed_trainers(self) -> int:
        """Encode the trainers of the bundle; return how many devices this subtask holds."""
        for bucket, buffer in self.changed.items():
            buffer[:] = self.trainers[bucket].to_bytes()
        self.changed.clear()
        return sum(trainer.devices for trainer in self.trainers.values())

    def process_broadcast_element(self, value: Row, ctx: Any) -> Iterator[Row]:
        topic, _, message, partition, offset, timestamp = value
        # Outside: that the kept state cannot be read is no fault of the message.
        fleet = self.fleet_state(ctx)
        try:
            key = self.adopted_as(topic, message, fleet)
        except (ValueError, RecursionError) as error:
            self.rejected.inc()
            # Every subtask reads every broadcast message; one of them reports it.
            if self.first_subtask:
                yield self.reject(topic, message, partition, offset, timestamp, error)
            return
        if key is not None:
            ctx.get_broadcast_state(fleet_descriptor()).put(key, bytes(message))
            self.fleet = None

    def adopted_as(self, topic: str, message: bytes | None, fleet: FleetState) -> str | None:
        """Return the key to keep a message under, None when it is not for this job.

        A model of another feature list is for another job, and versions only grow. So a message
        that deletes its key takes nothing back: the job keeps what it has, and refuses it.
        """
        if message is None:
            raise ValueError("the message has no value")
        if topic == Topic.CONTROL:
            msgspec.json.decode(message, type=TrainingControl)
            return CONTROL_KEY
        model = msgspec.json.decode(message, type=GlobalModel)
        moments = model.standardizer
        arrays = (model.weights, moments.count, moments.mean, moments.m2)
        if model.feature_schema == self.schema and {len(a) for a in arrays} != {self.inputs}:
            raise msgspec.ValidationError(f"arrays of the model are not of length {self.inputs}")
        is_candidate = model.status is ModelStatus.CANDIDATE
        known = fleet.candidate if is_candidate else fleet.global_model
        if model.feature_schema != self.schema or (known and known.version >= model.version):
            return None
        fleet.check_plausible(model)
        return CANDIDATE_KEY if is_candidate else GLOBAL_KEY

    @staticmethod
    def reject(
        topic: str,
        message: bytes | None,
        partition: int,
        offset: int,
        timestamp: Any,
        error: Exception,
    ) -> Row:
        """Make a dead letter of a broadcast message that does not validate."""
        reason = DeadLetterReason.INVALID
        if message is None:
            reason = DeadLetterReason.TOMBSTONE
        elif type(error) in (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            reason = DeadLetterReason.MALFORMED
        letter = dead_letter(
            topic, partition, offset, timestamp.to_epoch_milli(), reason, str(error), message
        )
        return Row(dead_letter_topic(Topic(topic)).value, None, msgspec.json.encode(letter))

    def fleet_state(self, ctx: Any) -> FleetState:
        """Read the broadcast state once after a start or a change, not for each element."""
        if self.fleet is None:
            stored = ctx.get_broadcast_state(fleet_descriptor())

            def decode(key: str, kind: type) -> Any:
                message = stored.get(key)
                return None if message is None else msgspec.json.decode(message, type=kind)

            self.fleet = FleetState(
                global_model=decode(GLOBAL_KEY, GlobalModel),
                candidate=decode(CANDIDATE_KEY, GlobalModel),
                control=decode(CONTROL_KEY, TrainingControl) or self.initial_control,
            )
        return self.fleet


def emit(outcome: Outcome) -> Iterator[Row]:
    """Turn what a trainer produced into keyed output messages."""
    for update in outcome.updates:
        yield Row(Topic.LOCAL_UPDATES.value, update.device_id, msgspec.json.encode(update))
    for anomaly in outcome.anomalies:
        yield Row(Topic.ANOMALIES.value, anomaly.device_id, msgspec.json.encode(anomaly))


def options(**settings: object) -> str:
    """Render the options of a table, quoted as SQL strings."""
    return ", ".join(
        "'{}' = '{}'".format(*(str(part).replace("'", "''") for part in item))
        for item in settings.items()
    )


def kafka_options(deployment: TrainingDeployment) -> dict[str, str]:
    """Return the options of every table over Kafka."""
    properties = {"bootstrap.servers": deployment.bootstrap_servers, **deployment.kafka}
    return {"connector": "kafka"} | {f"properties.{k}": v for k, v in properties.items()}


def source(tables: StreamTableEnvironment, name: str, deployment: TrainingDeployment,
           topics: list[Topic], *, group: str, start: str, reset: str = "earliest",
           further: str = "") -> None:  # fmt: skip
    """Declare a table over the raw bytes and positions of topics; a restored job goes on.

    `start` is where one that starts from nothing begins, a `scan.startup.mode` of the connector,
    and `reset` where it does without an offset of its group; `further` declares columns that are
    computed from the others.
    """
    tables.execute_sql(
        f"CREATE TABLE {name} (k BYTES, v BYTES, topic STRING METADATA VIRTUAL,"
        " part INT METADATA FROM 'partition' VIRTUAL, off BIGINT METADATA FROM 'offset' VIRTUAL,"
        f" ts TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL{further}) WITH ("
        + options(
            **kafka_options(deployment),
            **{
                "topic": ";".join(topics),
                "properties.group.id": group,
                "properties.isolation.level": "read_committed",
                "properties.auto.offset.reset": reset,
                "scan.startup.mode": start,
                "key.format": "raw",
                "key.fields": "k",
                "value.format": "raw",
                "value.fields-include": "EXCEPT_KEY",
            },
        )
        + ")"
    )


def sink(tables: StreamTableEnvironment, deployment: TrainingDeployment) -> None:
    """Declare the one table that takes all outputs; the transactional prefix never changes.

    A start under another prefix would leave the transactions of a killed job open, and readers of
    committed messages would wait for their timeout.
    """
    outputs = [
        Topic.LOCAL_UPDATES, Topic.ANOMALIES, Topic.TELEMETRY_DLQ, Topic.GLOBAL_UPDATES_DLQ,
        Topic.CONTROL_DLQ, Topic.FEEDBACK_DLQ,
    ]  # fmt: skip
    tables.execute_sql(
        "CREATE TABLE outputs (topic STRING METADATA, k STRING, v BYTES) WITH ("
        + options(
            **kafka_options(deployment),
            **{
                "topic": ";".join(outputs),
                "key.format": "raw",
                "key.fields": "k",
                "value.format": "raw",
                "value.fields-include": "EXCEPT_KEY",
                "sink.delivery-guarantee": "exactly-once",
                "sink.transactional-id-prefix": deployment.transactional_id_prefix,
                "properties.transaction.timeout.ms": deployment.transaction_timeout_seconds * 1000,
                "properties.max.request.size": MESSAGE_BYTES,
                "properties.compression.type": "lz4",
                "properties.linger.ms": 50,
            },
        )
        + ")"
    )


def packed_records(tables: StreamTableEnvironment, deployment: TrainingDeployment) -> DataStream:
    """Decode and pack the fleet's rows, and add a tick for each bucket every second.

    What is larger than any row goes past the Arrow batches, whose memory it would exhaust. A filter
    would not keep it out of them: the planner puts it behind the Python function.

    A tick is a record with nothing but its bucket: time passes for a bucket that gets no rows. It
    takes the place of a timer, because Flink leaves the timers that Python registered in the last
    bundle out of a checkpoint, and a window could wait for a lost one for ever.
    """
    largest = largest_message(deployment.features)
    # Rows that a job before this one took are not read again, whatever this one's features are.
    source(
        tables, "telemetry", deployment, [Topic.TELEMETRY],
        group=deployment.consumer_group, start="group-offsets",
        further=f", is_large AS {is_longer('k', largest)} OR {is_longer('v', largest)}",
    )  # fmt: skip
    pack = PackByBucket(deployment.features, deployment.buckets)
    tables.create_temporary_function(
        "pack_by_bucket", udf(pack, result_type=DataTypes.BYTES(), func_type="pandas")
    )
    tables.execute_sql(
        "CREATE TABLE ticks (nothing BOOLEAN)"
        " WITH ('connector' = 'datagen', 'rows-per-second' = '1', 'scan.parallelism' = '1')"
    )
    packed = tables.sql_query(
        "SELECT packed, CAST(NULL AS BYTES) AS k, CAST(NULL AS BYTES) AS v, 0 AS part,"
        " CAST(0 AS BIGINT) AS off, CAST(NULL AS TIMESTAMP_LTZ(3)) AS ts FROM (SELECT"
        " pack_by_bucket(IF(is_large, x'', k), IF(is_large, x'', v), part,"
        " IF(is_large, CAST(-1 AS BIGINT), off), ts) AS packed FROM telemetry"
        " UNION ALL SELECT x'' AS packed FROM ticks) WHERE packed IS NOT NULL"
        " UNION ALL"
        " SELECT CAST(NULL AS BYTES) AS packed, k, v, part, off, ts FROM telemetry WHERE is_large"
    )
    return tables.to_data_stream(packed).flat_map(
        SendToBuckets(deployment.features, deployment.buckets), output_type=byte_array()
    )


def feedback_records(tables: StreamTableEnvironment, deployment: TrainingDeployment) -> DataStream:
    """Decode and pack the released feedback, message by message: there is little of it.

    A job without state begins at the end of the topic: what was said before is of other devices.
    """
    source(
        tables, "feedback", deployment, [Topic.FEEDBACK],
        group=f"{deployment.consumer_group}-feedback", start="group-offsets", reset="latest",
    )  # fmt: skip
    feedback = tables.to_data_stream(tables.sql_query("SELECT k, v, part, off, ts FROM feedback"))
    return feedback.flat_map(PackFeedback(deployment.buckets), output_type=byte_array())


def is_longer(column: str, limit: int) -> str:
    """Return an expression of SQL, which knows no length of bytes: their cast to fewer cuts."""
    return f"({column} IS NOT NULL AND CAST({column} AS VARBINARY({limit})) <> {column})"


def fleet_messages(tables: StreamTableEnvironment, deployment: TrainingDeployment) -> DataStream:
    """Read global models and control messages with their positions."""
    source(
        tables, "fleet", deployment, [Topic.GLOBAL_UPDATES, Topic.CONTROL],
        group=f"{deployment.consumer_group}-fleet", start="earliest-offset",
    )  # fmt: skip
    return tables.to_data_stream(tables.sql_query("SELECT topic, k, v, part, off, ts FROM fleet"))


def set_uids(env: StreamExecutionEnvironment) -> None:
    """Name every operator that may have state, so that a savepoint survives a change of the plan.

    The planner numbers its operators, and a number changes with every source or sink that comes
    before. A uid here is the path from the nearest operator named by hand, without numbers.

    Raises
    ------
    ValueError
        When two operators would get one name: a savepoint could not tell them apart.
    """
    named: dict[int, str] = {}

    def name(operator: Any) -> str:
        if operator.getId() in named:
            return named[operator.getId()]
        inputs = "+".join(name(each) for each in operator.getInputs())
        kind = operator.getName().split("[")[0]
        if operator.getClass().getSimpleName() in NOT_OPERATORS or kind in STATELESS:
            uid = inputs
        else:
            uid = operator.getUid() or f"{inputs}/{kind}"
            if uid in named.values():
                raise ValueError(f"two operators have the uid {uid!r}")
            operator.setUid(uid)
        return named.setdefault(operator.getId(), uid)

    for end in env._j_stream_execution_environment.getTransformations():
        name(end)


def checkpoint_ms(deployment: TrainingDeployment) -> int:
    """Return the time between two checkpoints in milliseconds."""
    return int(deployment.checkpoint_interval_seconds * 1000)


def configuration(deployment: TrainingDeployment) -> Configuration:
    """Return the settings that this job's shape needs, whatever the cluster's defaults are.

    Bundles end with checkpoints: no output can be read earlier anyway, and the trainers that have
    changed are sent to the state once for each checkpoint.
    """
    batch_rows = min(BATCH_ROWS, BATCH_BYTES // largest_message(deployment.features))
    settings = Configuration()
    for name, value in {
        "pipeline.name": "flead local training",
        "pipeline.object-reuse": "true",
        "pipeline.max-parallelism": str(MAX_PARALLELISM),
        "table.local-time-zone": "UTC",
        "python.execution-mode": "process",
        # Trainers are stored when the gauges are asked.
        "python.metric.enabled": "true",
        "python.fn-execution.arrow.batch.size": str(batch_rows),
        "python.fn-execution.bundle.size": str(BUNDLE_ELEMENTS),
        "python.fn-execution.bundle.time": str(checkpoint_ms(deployment)),
        # A value that has to leave the cache before its bundle ends would be stored unfilled.
        "python.state.cache-size": str(max(10_000, 2 * deployment.buckets)),
    }.items():
        settings.set_string(name, value)
    return settings


def main() -> None:
    """Build the data flow and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training-config", required=True, help="a TrainingDeployment as JSON")
    arguments = parser.parse_args()
    deployment = msgspec.json.decode(arguments.training_config, type=TrainingDeployment)

    env = StreamExecutionEnvironment.get_execution_environment(configuration(deployment))
    env.set_parallelism(deployment.parallelism)
    env.set_max_parallelism(MAX_PARALLELISM)
    env.enable_checkpointing(checkpoint_ms(deployment), CheckpointingMode.EXACTLY_ONCE)
    # Where the fleet has outgrown its interval, rows still get most of the time.
    env.get_checkpoint_config().set_min_pause_between_checkpoints(
        int(CHECKPOINT_PAUSE * checkpoint_ms(deployment))
    )
    tables = StreamTableEnvironment.create(env)

    packed = packed_records(tables, deployment).union(feedback_records(tables, deployment))
    records = packed.key_by(lambda record: int.from_bytes(record[:2], "big"), key_type=Types.INT())
    output_type = Types.ROW_NAMED(
        ["topic", "k", "v"], [Types.STRING(), Types.STRING(), byte_array()]
    )
    fleet = fleet_messages(tables, deployment).broadcast(fleet_descriptor())
    outputs = (
        records.connect(fleet).process(TrainBucket(deployment), output_type=output_type)
        .name("train").uid("train")
    )  # fmt: skip

    sink(tables, deployment)
    statements = tables.create_statement_set()
    statements.add_insert("outputs", tables.from_data_stream(outputs))
    statements.attach_as_datastream()
    set_uids(env)
    env.execute("flead local training")


if __name__ == "__main__":
    main()
