"""The baseline of the training job: the same learning in one plain process.

    python -m benchmarks.plain_consumer DEPLOYMENT_JSON WARM_UP_ROWS ROWS

Reads the telemetry with confluent-kafka, decodes, trains and encodes every output with the same
`flead` code as the job, and sends nothing: no state backend, no checkpoints, no transactions, no
second process. What the job costs beyond it is the price of running on Flink. Prints one JSON
object.
"""

import json
import sys
import time

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import TrainingControl
from flead.contracts.topics import Topic
from flead.features.decoding import TelemetryDecoder
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer

BATCH_MESSAGES = 10_000
TIMEOUT_SECONDS = 30.0


def run(deployment: TrainingDeployment, warm_up_rows: int, rows: int) -> dict[str, float]:
    """Train on the topic, and measure wall and CPU seconds of the rows after the warm-up."""
    consumer = Consumer(
        {
            "bootstrap.servers": deployment.bootstrap_servers,
            "group.id": "plain-consumer",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 256 * 1024,
        }
    )
    partitions = consumer.list_topics(Topic.TELEMETRY.value).topics[Topic.TELEMETRY.value]
    consumer.assign(
        [
            TopicPartition(Topic.TELEMETRY.value, partition, OFFSET_BEGINNING)
            for partition in partitions.partitions
        ]
    )
    decoder = TelemetryDecoder(deployment.features)
    trainer = LocalTrainer(deployment.features)
    fleet = FleetState(None, None, TrainingControl(0, deployment.hyperparameters))
    encode = msgspec.json.Encoder().encode
    done = warm = updates = anomalies = 0
    wall = cpu = 0.0
    while done < warm_up_rows + rows:
        messages = consumer.consume(BATCH_MESSAGES, TIMEOUT_SECONDS)
        if not messages:
            raise TimeoutError(f"only {done} of {warm_up_rows + rows} messages came")
        batch, rejected = decoder.decode(
            [message.key() for message in messages],
            [message.value() for message in messages],
            np.array([message.partition() for message in messages], np.int32),
            np.array([message.offset() for message in messages], np.int64),
            np.array([message.timestamp()[1] for message in messages], np.int64),
        )
        now_ms = time.time_ns() // 1_000_000
        outcome = trainer.close_due(now_ms, fleet)
        outcome.extend(trainer.process(batch, now_ms, fleet))
        for output in (*outcome.updates, *outcome.anomalies, *rejected):
            encode(output)
        done += len(messages)
        updates += len(outcome.updates)
        anomalies += len(outcome.anomalies)
        if not warm and done >= warm_up_rows:
            warm, wall, cpu = done, time.perf_counter(), time.process_time()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    consumer.close()
    timed = done - warm
    return {
        "rows_per_second": timed / wall,
        "rows_per_cpu_second": timed / cpu,
        "updates": updates,
        "anomalies": anomalies,
    }


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=TrainingDeployment)
    print(json.dumps(run(given, *map(int, sys.argv[2:]))))
