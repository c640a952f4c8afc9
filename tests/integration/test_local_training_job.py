"""The training job on a real broker and a real session cluster, without Airflow."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import GlobalModel, Hyperparameters, ModelStatus, Moments
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.producing import OutgoingMessage, produce
from flead.messaging.reading import read_committed
from flead.messaging.topics import create_topics
from flead.stack.flink import python_jar
from flead.stack.home import Home
from tests.conftest import run_flead

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

ALL = 10_000_000
WAIT_SECONDS = 120
INPUTS = len(input_names(FEATURES))


@pytest.fixture(scope="module")
def job(stack_home: Home, kafka: str, flink: str, checkout: Path) -> Iterator[str]:
    """Submit the job to the cluster, with short windows, and return its id."""
    create_topics({"bootstrap.servers": kafka})
    deployment = TrainingDeployment(
        features=list(FEATURES),
        bootstrap_servers=kafka,
        hyperparameters=Hyperparameters(window_seconds=4),
        checkpoint_interval_seconds=1,
    )
    with httpx.Client(base_url=flink, timeout=120) as client:
        jar = python_jar(stack_home).read_bytes()
        uploaded = client.post("/jars/upload", files={"jarfile": ("flink-python.jar", jar)})
        jar_id = uploaded.json()["filename"].rsplit("/", 1)[-1]
        job_id = uuid.uuid4().hex
        started = client.post(
            f"/jars/{jar_id}/run",
            json={
                "entryClass": "org.apache.flink.client.python.PythonDriver",
                "parallelism": deployment.parallelism,
                "jobId": job_id,
                "programArgsList": [
                    "-py",
                    str(checkout / "jobs" / "flink" / "local_training.py"),
                    "--training-config",
                    msgspec.json.encode(deployment).decode(),
                ],
            },
        )
        assert started.is_success, started.text
        yield job_id
        client.patch(f"/jobs/{job_id}", params={"mode": "cancel"})


@pytest.fixture(scope="module")
def kafka_properties(kafka: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka}


def test_every_message_is_trained_or_a_dead_letter_with_its_position(
    job: str, stack_home: Home, kafka_properties: dict[str, str]
) -> None:
    sent = run_flead(
        stack_home, "simulate", "--devices", "30", "--rate", "12000/min", "--rows", "3000",
        "--malformed-rate", "0.05", "--seed", "5", "--json",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    fleet = json.loads(sent.stdout)

    def accounted() -> bool:
        updates = values(kafka_properties, Topic.LOCAL_UPDATES)
        return sum(update["rows"] for update in updates) >= fleet["rows"]

    wait_until(accounted)
    updates = values(kafka_properties, Topic.LOCAL_UPDATES)
    letters = values(kafka_properties, Topic.TELEMETRY_DLQ)
    sent_at = {
        (record.partition, record.offset)
        for record in read_committed(kafka_properties, Topic.TELEMETRY, {}, ALL).records
    }
    rejected_at = {(letter["partition"], letter["offset"]) for letter in letters}
    trained: Counter[int] = Counter()
    for update in updates:
        trained[update["input_partition"]] += update["offset_sum"]

    assert fleet["malformed"] > 0
    assert len(rejected_at) == len(letters) == fleet["malformed"]
    assert sum(update["rows"] for update in updates) == fleet["rows"]
    for partition in {partition for partition, _ in sent_at}:
        valid = [o for p, o in sent_at - rejected_at if p == partition]
        assert trained[partition] == sum(valid)


def test_a_poisoned_global_model_is_a_dead_letter_and_the_next_good_one_is_adopted(
    job: str, stack_home: Home, flink: str, kafka_properties: dict[str, str]
) -> None:
    poison = b'{"version": "seven"}'
    good = msgspec.json.encode(global_model(version=3))
    older = msgspec.json.encode(global_model(version=2))
    messages = [
        OutgoingMessage(Topic.GLOBAL_UPDATES, b"global", value) for value in (poison, good, older)
    ]
    produce(kafka_properties, messages)

    def adopted() -> bool:
        run_flead(stack_home, "simulate", "--devices", "5", "--rate", "6000/min", "--rows", "100")
        updates = values(kafka_properties, Topic.LOCAL_UPDATES)
        return any(update["base_version"] == 3 for update in updates)

    wait_until(adopted)
    (letter,) = values(kafka_properties, Topic.GLOBAL_UPDATES_DLQ)
    bases = [update["base_version"] for update in values(kafka_properties, Topic.LOCAL_UPDATES)]
    restarts = httpx.get(f"{flink}/jobs/{job}/metrics", params={"get": "numRestarts"}).json()

    assert (letter["topic"], letter["offset"]) == (Topic.GLOBAL_UPDATES, 0)
    assert letter["reason"] == "invalid"
    assert set(bases) == {0, 3}
    assert restarts[0]["value"] == "0"


def values(properties: dict[str, str], topic: Topic) -> list[dict[str, Any]]:
    records = read_committed(properties, topic, {}, ALL).records
    return [json.loads(record.value or b"") for record in records]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s"
        time.sleep(1)


def global_model(version: int) -> GlobalModel:
    neutral = Moments([0.0] * INPUTS, [0.0] * INPUTS, [0.0] * INPUTS)
    return GlobalModel(
        version=version,
        parent_version=version - 1,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=version,
        feature_schema=feature_schema(FEATURES),
        feature_names=list(FEATURES),
        weights=[0.1] * INPUTS,
        intercept=0.0,
        standardizer=neutral,
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=1,
        global_accuracy=None,
        global_loss=None,
        timestamp=0,
    )
