"""The training job on a bare broker and a bare session cluster, for tests that need no Airflow."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from flead.contracts.deployment import TRAINING_GROUP, TrainingDeployment
from flead.contracts.messages import GlobalModel, Hyperparameters, ModelStatus, Moments
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.lag import consumer_lag
from flead.messaging.reading import read_committed
from flead.messaging.topics import create_topics
from flead.settings import TRAINING_SCRIPT
from flead.stack.flink import python_jar
from flead.stack.flink_rest import FlinkClient, FlinkError
from flead.stack.home import Home
from tests.conftest import start

ALL = 10_000_000
WAIT_SECONDS = 240
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
        self._log_url = f"{flink_url}/jobmanager/log"
        self._jar_id = self._flink.upload(python_jar(flink_home))
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
        window_seconds: int | None = None,
    ) -> str:
        """Start the job, from a savepoint if there is one, and return its id."""
        deployment = msgspec.structs.replace(self.deployment, parallelism=parallelism)
        if window_seconds is not None:
            longer = msgspec.structs.replace(
                deployment.hyperparameters, window_seconds=window_seconds
            )
            deployment = msgspec.structs.replace(deployment, hyperparameters=longer)
        arguments = ["--training-config", msgspec.json.encode(deployment).decode()]
        return self._flink.run_python(
            self._jar_id, script, arguments, parallelism=parallelism, savepoint=savepoint
        )

    def refusal(self, script: Path) -> str:
        """Submit a script that must be refused, and return what it wrote to the log."""
        before = len(self._log())
        with pytest.raises(FlinkError):
            self.submit(parallelism=1, script=script)
        return self._log()[before:]

    def stop(self, job_id: str) -> str:
        """Stop the job and return the path of its savepoint."""
        return self._flink.stop_with_savepoint(job_id)

    def cancel(self, job_id: str) -> None:
        self._flink.cancel(job_id)

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        return self._flink.failures(job_id)

    def restarts(self, job_id: str) -> int:
        """Return how often the job was restarted; its metrics come some time after its start."""
        wait_until(lambda: self._flink.restarts(job_id) is not None)
        return self._flink.restarts(job_id) or 0

    def values(self, topic: Topic) -> list[dict[str, Any]]:
        """Decode the committed messages of a topic."""
        records = read_committed(self.kafka, topic, {}, ALL).records
        return [msgspec.json.decode(record.value or b"") for record in records]

    def rows_in_windows(self) -> int:
        return sum(update["rows"] for update in self.values(Topic.LOCAL_UPDATES))

    def has_read_everything(self) -> bool:
        """Tell whether a checkpoint holds every row of the topic, as trained or as open windows."""
        return not any(consumer_lag(self.kafka, TRAINING_GROUP, Topic.TELEMETRY).values())

    def _log(self) -> str:
        return httpx.get(self._log_url, timeout=120).text


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
