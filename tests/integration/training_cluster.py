"""The training job on a bare broker and a bare session cluster, for tests that need no Airflow."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import GlobalModel, Hyperparameters, ModelStatus, Moments
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.reading import read_committed
from flead.messaging.topics import create_topics
from flead.settings import TRAINING_SCRIPT
from flead.stack.flink import python_jar
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import Home
from tests.conftest import start

ALL = 10_000_000
WAIT_SECONDS = 120
INPUTS = len(input_names(FEATURES))


class TrainingCluster:
    """Runs the job of the checkout on a session cluster, with short windows, and reads its topics.

    Parameters
    ----------
    home
        Its broker is started, its topics are created.
    flink_home
        Its Flink, which may run jobs of others too, is started.
    """

    def __init__(self, home: Home, flink_home: Home) -> None:
        bootstrap_servers = start(home, "kafka").kafka_bootstrap
        flink_url = start(flink_home, "flink").flink_url
        self.kafka = {"bootstrap.servers": bootstrap_servers}
        create_topics(self.kafka)
        self._flink = FlinkClient(flink_url)
        self._http = httpx.Client(base_url=flink_url, timeout=120)
        jar = python_jar(flink_home)
        with jar.open("rb") as content:
            uploaded = self._http.post("/jars/upload", files={"jarfile": (jar.name, content)})
        self._jar_id = uploaded.json()["filename"].rsplit("/", 1)[-1]
        self.deployment = TrainingDeployment(
            features=list(FEATURES),
            bootstrap_servers=bootstrap_servers,
            hyperparameters=Hyperparameters(window_seconds=4),
            checkpoint_interval_seconds=1,
        )

    def submit(
        self,
        savepoint: str | None = None,
        *,
        parallelism: int = 2,
        script: Path = TRAINING_SCRIPT,
    ) -> str:
        """Start the job, from a savepoint if there is one, and return its id."""
        job_id = uuid.uuid4().hex
        started = self._run(job_id, savepoint, parallelism, script)
        assert started.is_success, started.text
        return job_id

    def refusal(self, script: Path) -> str:
        """Submit a script that must be refused, and return what it wrote to the log."""
        before = len(self._log())
        refused = self._run(uuid.uuid4().hex, None, 1, script)
        assert refused.is_client_error, refused.text
        return self._log()[before:]

    def _run(
        self, job_id: str, savepoint: str | None, parallelism: int, script: Path
    ) -> httpx.Response:
        deployment = msgspec.structs.replace(self.deployment, parallelism=parallelism)
        return self._http.post(
            f"/jars/{self._jar_id}/run",
            json={
                "entryClass": "org.apache.flink.client.python.PythonDriver",
                "parallelism": parallelism,
                "jobId": job_id,
                "savepointPath": savepoint,
                "programArgsList": [
                    "-py",
                    str(script),
                    "--training-config",
                    msgspec.json.encode(deployment).decode(),
                ],
            },
        )

    def stop(self, job_id: str) -> str:
        """Stop the job and return the path of its savepoint."""
        return self._flink.stop_with_savepoint(job_id)

    def cancel(self, job_id: str) -> None:
        self._http.patch(f"/jobs/{job_id}", params={"mode": "cancel"})

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        history = self._http.get(f"/jobs/{job_id}/exceptions").json()["exceptionHistory"]
        return list(history["entries"])

    def restarts(self, job_id: str) -> int:
        """Return how often the job was restarted; its metrics come some time after its start."""
        metrics: list[dict[str, str]] = []

        def known() -> bool:
            asked = self._http.get(f"/jobs/{job_id}/metrics", params={"get": "numRestarts"})
            metrics.extend(asked.json())
            return bool(metrics)

        wait_until(known)
        return int(metrics[-1]["value"])

    def values(self, topic: Topic) -> list[dict[str, Any]]:
        """Decode the committed messages of a topic."""
        records = read_committed(self.kafka, topic, {}, ALL).records
        return [msgspec.json.decode(record.value or b"") for record in records]

    def rows_in_windows(self) -> int:
        return sum(update["rows"] for update in self.values(Topic.LOCAL_UPDATES))

    def _log(self) -> str:
        return self._http.get("/jobmanager/log").text


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
