"""Time from the send of a row to the committed outputs that it caused, at a steady rate."""

import subprocess
import time
from collections.abc import Mapping

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from flead.contracts.topics import Topic

DRAIN_SECONDS = 20.0
SETTLE_SECONDS = 5.0
"""Rows at the start that are not counted."""


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds from the send of a row to a committed output that a reader holds."""

    p50: float
    p99: float

    @classmethod
    def of(cls, latencies: list[float]) -> "Percentiles | None":
        """Percentiles of measurements; None when there are none."""
        if not latencies:
            return None
        p50, p99 = np.percentile(latencies, [50, 99])
        return cls(round(float(p50)), round(float(p99)))


class _Update(msgspec.Struct):
    input_partition: int
    last_offset: int
    closed_by: str


class _Anomaly(msgspec.Struct):
    partition: int
    offset: int


def measure(
    servers: Mapping[str, str], sending: "subprocess.Popen[str]"
) -> tuple[Percentiles | None, Percentiles | None]:
    """Follow the outputs while a process sends rows; return those of updates and of anomalies.

    An update's row is the one that filled the window; windows that closed by time are left out.
    """
    outputs = _at_end(servers, [Topic.LOCAL_UPDATES, Topic.ANOMALIES])
    rows = _at_end(servers, [Topic.TELEMETRY])
    update, anomaly = msgspec.json.Decoder(_Update), msgspec.json.Decoder(_Anomaly)
    sent: dict[tuple[int, int], int] = {}
    seen: dict[Topic, list[tuple[tuple[int, int], float]]] = {
        Topic.LOCAL_UPDATES: [], Topic.ANOMALIES: [],
    }  # fmt: skip
    ends_at: float | None = None
    while ends_at is None or time.monotonic() < ends_at:
        for message in outputs.consume(5_000, 0.05):
            received = time.time() * 1000.0
            if message.topic() == Topic.ANOMALIES:
                found = anomaly.decode(message.value() or b"")
                row = (found.partition, found.offset)
                seen[Topic.ANOMALIES].append((row, received))
            else:
                closed = update.decode(message.value() or b"")
                if closed.closed_by == "count":
                    row = (closed.input_partition, closed.last_offset)
                    seen[Topic.LOCAL_UPDATES].append((row, received))
        for message in rows.consume(20_000, 0.0):
            sent[message.partition() or 0, message.offset() or 0] = message.timestamp()[1]
        if ends_at is None and sending.poll() is not None:
            ends_at = time.monotonic() + DRAIN_SECONDS
    outputs.close()
    rows.close()
    begin = min(sent.values(), default=0) + 1000.0 * SETTLE_SECONDS
    updates, anomalies = (
        Percentiles.of([at - sent[row] for row, at in found if sent.get(row, 0) > begin])
        for found in seen.values()
    )
    return updates, anomalies


def _at_end(servers: Mapping[str, str], topics: list[Topic]) -> Consumer:
    consumer = Consumer(
        {**servers, "group.id": "bench-latency", "isolation.level": "read_committed",
         "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign(
        [
            TopicPartition(topic.value, partition, OFFSET_END)
            for topic in topics
            for partition in consumer.list_topics(topic.value).topics[topic.value].partitions
        ]
    )
    consumer.poll(2.0)
    return consumer
