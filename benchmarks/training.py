"""The training job as deployed, against a plain consumer on the same rows.

Both read a topic that is full before they start; one message in 500 is malformed. Throughput is
taken from the positions and times of the dead letters and anomalies that the job wrote, so that it
does not depend on when somebody looked, and leaves out the rows of the warm-up, in which the JVM
compiles. Latency is measured after that, at a steady rate.
"""

import contextlib
import json
import os
import subprocess
import time
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition

from benchmarks.latency import Percentiles, measure
from benchmarks.servers import BenchmarkError, Say, flead, own_home, running
from benchmarks.usage import Usage
from flead.contracts.deployment import TrainingDeployment, checkpoint_interval
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.topics import create_topics
from flead.settings import TRAINING_SCRIPT
from flead.stack.addresses import Addresses
from flead.stack.flink import python_jar
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import CHECKOUT, Home
from flead.stack.processes import belonging_to

SERVICES = ("flink-jobmanager", "flink-taskmanager")
GROUP = "bench"
MALFORMED_RATE = 0.002
READ_TIMEOUT_SECONDS = 120.0


class Options(msgspec.Struct, frozen=True):
    """What to measure."""

    rows: int = 2_000_000
    warm_up_rows: int = 4_000_000
    """Rows before those that are timed: with half as many the JVM still compiles."""
    devices: int = 2_407
    buckets: int | None = None
    parallelism: int = 2
    checkpoint_interval_seconds: float | None = None
    latency_rate: float = 10_000.0
    """Rows a second while latency is measured; the fleet's own is 517."""
    latency_seconds: float = 30.0
    memory_mb: int = 2_048
    """Of the TaskManager."""

    @property
    def checkpoint_seconds(self) -> float:
        """Time between checkpoints, by default what a deployment for such a fleet has."""
        if self.checkpoint_interval_seconds is None:
            return checkpoint_interval(self.devices)
        return self.checkpoint_interval_seconds


class TrainingResult(msgspec.Struct, frozen=True):
    """Figures of one run; CPU seconds are those of Flink's processes, without the broker."""

    rows: int
    devices: int
    buckets: int
    parallelism: int
    checkpoint_seconds: float
    rows_per_second: float
    rows_per_cpu_second: float
    plain_rows_per_second: float
    plain_rows_per_cpu_second: float
    ratio_to_plain_consumer: float
    updates_per_second: float
    row_to_update_ms: Percentiles | None
    row_to_anomaly_ms: Percentiles | None
    checkpoint_bytes: int
    checkpoint_ms: float
    peak_memory_mb: float
    updates: int
    anomalies: int
    restarts: int


def run(options: Options, say: Say) -> TrainingResult:
    """Start a broker and a cluster of their own, measure, and stop them.

    Raises
    ------
    BenchmarkError
        When a server does not start, or the job restarts or loses a row.
    """
    home = own_home()
    say("starting a broker and a Flink cluster")
    memory = {"FLEAD_TASKMANAGER_MEMORY_MB": str(options.memory_mb)}
    with running(home, "kafka", "flink", **memory) as addresses:
        servers = {"bootstrap.servers": addresses.kafka_bootstrap}
        create_topics(servers)
        total = options.warm_up_rows + options.rows
        say(f"sending {total:,} rows of {options.devices:,} devices")
        flead(
            home, "simulate", "--devices", str(options.devices), "--speed", "max", "--rate",
            f"{13 * options.devices}/min", "--rows", str(total), "--seed", "1",
            "--malformed-rate", str(MALFORMED_RATE),
        )  # fmt: skip
        _commit_start(servers)
        given = {} if options.buckets is None else {"buckets": options.buckets}
        deployment = TrainingDeployment(
            features=list(FEATURES),
            bootstrap_servers=addresses.kafka_bootstrap,
            parallelism=options.parallelism,
            checkpoint_interval_seconds=options.checkpoint_seconds,
            consumer_group=GROUP,
            **given,
        )
        say("plain consumer")
        plain = _plain(home, deployment, options)
        say("training job")
        with Usage(lambda: [p for name in SERVICES for p in belonging_to(home, name)]) as usage:
            job = _Job(home, addresses, deployment)
            outputs = _Outputs(servers, options)
            outputs.follow(job)
            throughput = outputs.throughput(usage)
            say(f"{throughput['rows_per_second']:,.0f} rows/s; latency at a steady rate")
            latency = _latency(home, servers, options)
            checkpoint = job.checkpoint()
            restarts = job.restarts()
    per_cpu, plain_per_cpu = throughput["rows_per_cpu_second"], plain["rows_per_cpu_second"]
    return TrainingResult(
        rows=options.rows,
        devices=options.devices,
        buckets=deployment.buckets,
        parallelism=options.parallelism,
        checkpoint_seconds=options.checkpoint_seconds,
        rows_per_second=round(throughput["rows_per_second"]),
        rows_per_cpu_second=round(per_cpu),
        plain_rows_per_second=round(plain["rows_per_second"]),
        plain_rows_per_cpu_second=round(plain_per_cpu),
        ratio_to_plain_consumer=round(per_cpu / plain_per_cpu, 3),
        updates_per_second=round(throughput["updates_per_second"]),
        row_to_update_ms=latency[0],
        row_to_anomaly_ms=latency[1],
        checkpoint_bytes=checkpoint[0],
        checkpoint_ms=checkpoint[1],
        peak_memory_mb=round(usage.peak_memory_mb),
        updates=outputs.updates,
        anomalies=outputs.anomalies,
        restarts=restarts,
    )


def _latency(
    home: Home, servers: dict[str, str], options: Options
) -> tuple[Percentiles | None, Percentiles | None]:
    """Send rows at a steady rate, and measure how long those to updates and anomalies take."""
    if not options.latency_seconds:
        return None, None
    command = [
        home.python("tools"), "-m", "flead.cli", "simulate", "--devices", str(options.devices),
        "--rate", f"{60 * options.latency_rate:g}/min",
        "--duration", f"{options.latency_seconds:g}",
        "--seed", "2",
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=os.environ | home.variables, stderr=subprocess.DEVNULL, text=True
    ) as sending:
        return measure(servers, sending)


def _commit_start(servers: dict[str, str]) -> None:
    """Let the job's group start at the first row."""
    consumer = Consumer(servers | {"group.id": GROUP})
    partitions = consumer.list_topics(Topic.TELEMETRY.value).topics[Topic.TELEMETRY.value]
    consumer.commit(
        offsets=[TopicPartition(Topic.TELEMETRY.value, p, 0) for p in partitions.partitions],
        asynchronous=False,
    )
    consumer.close()


def _plain(home: Home, deployment: TrainingDeployment, options: Options) -> dict[str, float]:
    """Run the baseline with the interpreter and the libraries of the job's workers."""
    ran = subprocess.run(
        [
            home.python("flink"), "-m", "benchmarks.plain_consumer",
            msgspec.json.encode(deployment).decode(), str(options.warm_up_rows), str(options.rows),
        ],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise BenchmarkError(f"the plain consumer failed: {ran.stderr[-2000:]}")
    return dict(json.loads(ran.stdout))


class _Job:
    """The training job on a session cluster."""

    def __init__(self, home: Home, addresses: Addresses, deployment: TrainingDeployment) -> None:
        self._flink = FlinkClient(addresses.flink_url)
        self._job_id = self._flink.run_python(
            self._flink.upload(python_jar(home)),
            TRAINING_SCRIPT,
            ["--training-config", msgspec.json.encode(deployment).decode()],
            parallelism=deployment.parallelism,
        )

    def restarts(self) -> int:
        """Ask until the JobManager has fetched the metric."""
        while (restarts := self._flink.restarts(self._job_id)) is None:
            time.sleep(1.0)
        return restarts

    def failure(self) -> str | None:
        """Return the causes of the job's newest failure, without their stack traces."""
        failures = self._flink.failures(self._job_id)
        if not failures:
            return None
        lines = str(failures[0]["stacktrace"]).splitlines()
        return "\n".join(line[:500] for line in lines if not line.startswith("\tat "))

    def checkpoint(self) -> tuple[int, float]:
        """Bytes of the newest checkpoint, and the milliseconds of the slowest of the last ten."""
        checkpoints = self._flink.checkpoints(self._job_id)
        done = [each for each in checkpoints if each["status"] == "COMPLETED"]
        if not done:
            raise BenchmarkError("no checkpoint was completed")
        return done[0]["state_size"], float(max(each["end_to_end_duration"] for each in done))


class _Outputs:
    """What the job has written: how many updates, and how far it was at which time."""

    def __init__(self, servers: dict[str, str], options: Options) -> None:
        self._consumer = Consumer(
            servers
            | {"group.id": "bench-outputs", "isolation.level": "read_committed",
               "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        )  # fmt: skip
        self._options = options
        self.updates = 0
        self.anomalies = 0
        self._update_times: list[int] = []
        self._positions: list[tuple[int, int, int]] = []

    def follow(self, job: _Job) -> None:
        """Read until the job has come to the end of its input."""
        self._consumer.subscribe(
            [Topic.LOCAL_UPDATES.value, Topic.ANOMALIES.value, Topic.TELEMETRY_DLQ.value]
        )
        with contextlib.closing(self._consumer):
            self._follow(job)

    def _follow(self, job: _Job) -> None:
        decoder = msgspec.json.Decoder(dict[str, Any])
        quiet_since = time.monotonic()
        patience = READ_TIMEOUT_SECONDS + 2 * self._options.checkpoint_seconds
        while time.monotonic() - quiet_since < patience:
            messages = self._consumer.consume(10_000, 1.0)
            for message in messages:
                if message.error():
                    raise BenchmarkError(str(message.error()))
                if message.topic() == Topic.LOCAL_UPDATES:
                    self.updates += 1
                    self._update_times.append(message.timestamp()[1])
                    continue
                self.anomalies += message.topic() == Topic.ANOMALIES
                output = decoder.decode(message.value() or b"")
                self._positions.append(
                    (message.timestamp()[1], output["partition"], output["offset"])
                )
            if messages:
                quiet_since = time.monotonic()
            elif self._is_over(quiet_since):
                return
            elif failure := job.failure():
                raise BenchmarkError(f"the job failed: {failure}")
        raise BenchmarkError("the job wrote nothing in time")

    def _is_over(self, quiet_since: float) -> bool:
        """Whether nothing has come for two checkpoints, and nearly all rows have passed."""
        if time.monotonic() - quiet_since <= 2 * self._options.checkpoint_seconds + 2:
            return False
        reached: dict[int, int] = {}
        for _, partition, offset in self._positions:
            reached[partition] = max(reached.get(partition, 0), offset + 1)
        return sum(reached.values()) >= self._last_timed_row

    @property
    def _last_timed_row(self) -> float:
        """Nearly the last: those after it wait for the end of a bundle."""
        return self._options.warm_up_rows + 0.98 * self._options.rows

    def throughput(self, usage: Usage) -> dict[str, float]:
        """Rows a second, wall and CPU, from the end of the warm-up to nearly the end."""
        times, done = self._progress()
        first, last = self._options.warm_up_rows, self._last_timed_row
        start, end = (np.interp([first, last], done, times) / 1000.0).tolist()
        rows = last - first
        written = np.array(self._update_times) / 1000.0
        return {
            "rows_per_second": rows / (end - start),
            "rows_per_cpu_second": rows / usage.cpu_seconds(start, end),
            "updates_per_second": int(((written >= start) & (written < end)).sum()) / (end - start),
        }

    def _progress(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows passed at the time of each output: the sum of the partitions' positions."""
        positions = np.array(sorted(self._positions))
        done = np.zeros(len(positions))
        for partition in np.unique(positions[:, 1]):
            mine = np.where(positions[:, 1] == partition, positions[:, 2] + 1, 0)
            done += np.maximum.accumulate(mine)
        return positions[:, 0].astype(float), done
