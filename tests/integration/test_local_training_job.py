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
from flead.stack.addresses import Addresses
from flead.stack.flink import python_jar
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import Home
from tests.conftest import run_flead, start

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

ALL = 10_000_000
WAIT_SECONDS = 120
INPUTS = len(input_names(FEATURES))


class Cluster:
    """Runs the job of the checkout on a session cluster, with short windows."""

    def __init__(self, url: str, bootstrap_servers: str, script: Path, jar: Path) -> None:
        self._http = httpx.Client(base_url=url, timeout=120)
        with jar.open("rb") as content:
            uploaded = self._http.post("/jars/upload", files={"jarfile": (jar.name, content)})
        self._jar_id = uploaded.json()["filename"].rsplit("/", 1)[-1]
        self._script = script
        self._deployment = TrainingDeployment(
            features=list(FEATURES),
            bootstrap_servers=bootstrap_servers,
            hyperparameters=Hyperparameters(window_seconds=4),
            checkpoint_interval_seconds=1,
        )

    def submit(self, savepoint: str | None = None) -> str:
        job_id = uuid.uuid4().hex
        started = self._http.post(
            f"/jars/{self._jar_id}/run",
            json={
                "entryClass": "org.apache.flink.client.python.PythonDriver",
                "parallelism": self._deployment.parallelism,
                "jobId": job_id,
                "savepointPath": savepoint,
                "programArgsList": [
                    "-py",
                    str(self._script),
                    "--training-config",
                    msgspec.json.encode(self._deployment).decode(),
                ],
            },
        )
        assert started.is_success, started.text
        return job_id

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        history = self._http.get(f"/jobs/{job_id}/exceptions").json()["exceptionHistory"]
        return list(history["entries"])

    def cancel(self, job_id: str) -> None:
        self._http.patch(f"/jobs/{job_id}", params={"mode": "cancel"})


@pytest.fixture(scope="module")
def home(make_home: Callable[[], Home]) -> Iterator[Home]:
    """Make a home whose topics hold nothing but what these tests send."""
    own = make_home()
    yield own
    assert run_flead(own, "down").returncode == 0


@pytest.fixture(scope="module")
def addresses(home: Home) -> Addresses:
    return start(home, "kafka", "flink")


@pytest.fixture(scope="module")
def cluster(home: Home, addresses: Addresses, checkout: Path) -> Cluster:
    create_topics({"bootstrap.servers": addresses.kafka_bootstrap})
    script = checkout / "jobs" / "flink" / "local_training.py"
    return Cluster(addresses.flink_url, addresses.kafka_bootstrap, script, python_jar(home))


@pytest.fixture(scope="module")
def job(cluster: Cluster) -> Iterator[str]:
    job_id = cluster.submit()
    yield job_id
    cluster.cancel(job_id)


@pytest.fixture(scope="module")
def kafka_properties(addresses: Addresses) -> dict[str, str]:
    return {"bootstrap.servers": addresses.kafka_bootstrap}


def test_every_message_is_trained_or_a_dead_letter_with_its_position(
    job: str, home: Home, kafka_properties: dict[str, str]
) -> None:
    sent = run_flead(
        home, "simulate", "--devices", "30", "--rate", "12000/min", "--rows", "3000",
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
    job: str, cluster: Cluster, home: Home, kafka_properties: dict[str, str]
) -> None:
    poison = b'{"version": "seven"}'
    wrong_length = msgspec.json.encode(
        msgspec.structs.replace(global_model(version=4), weights=[0.1])
    )
    good = msgspec.json.encode(global_model(version=3))
    older = msgspec.json.encode(global_model(version=2))
    messages = [
        OutgoingMessage(Topic.GLOBAL_UPDATES, b"global", value)
        for value in (poison, wrong_length, good, older)
    ]
    produce(kafka_properties, messages)

    def adopted() -> bool:
        run_flead(home, "simulate", "--devices", "5", "--rate", "6000/min", "--rows", "100")
        updates = values(kafka_properties, Topic.LOCAL_UPDATES)
        return any(update["base_version"] == 3 for update in updates)

    wait_until(adopted)
    letter, short = values(kafka_properties, Topic.GLOBAL_UPDATES_DLQ)
    bases = [update["base_version"] for update in values(kafka_properties, Topic.LOCAL_UPDATES)]

    assert (letter["topic"], letter["offset"]) == (Topic.GLOBAL_UPDATES, 0)
    assert letter["reason"] == "invalid"
    assert short["offset"] == 1
    assert "length" in short["detail"]
    assert set(bases) == {0, 3}
    assert cluster.failures(job) == []


def test_open_windows_of_a_savepoint_close_though_no_row_comes(
    job: str, cluster: Cluster, home: Home, addresses: Addresses, kafka_properties: dict[str, str]
) -> None:
    sent = run_flead(home, "simulate", "--devices", "30", "--rate", "30000/min", "--rows", "90")
    assert sent.returncode == 0, sent.stderr
    topic = read_committed(kafka_properties, Topic.TELEMETRY, {}, ALL).records
    letters = values(kafka_properties, Topic.TELEMETRY_DLQ)
    savepoint = FlinkClient(addresses.flink_url).stop_with_savepoint(job)
    before = rows_in_windows(kafka_properties)
    restored = cluster.submit(savepoint)

    try:
        wait_until(lambda: rows_in_windows(kafka_properties) >= len(topic) - len(letters))
        assert before < rows_in_windows(kafka_properties) == len(topic) - len(letters)
    finally:
        cluster.cancel(restored)


def rows_in_windows(properties: dict[str, str]) -> int:
    return sum(update["rows"] for update in values(properties, Topic.LOCAL_UPDATES))


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
