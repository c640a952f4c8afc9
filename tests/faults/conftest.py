"""The training job through Airflow under load, while its processes are killed one after another."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from flead.contracts.messages import Anomaly, LocalUpdate
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic, dead_letter_topic
from flead.messaging.client import assigned_consumer
from flead.messaging.reading import offset_ranges
from flead.stack import processes, training
from flead.stack.home import Home
from flead.stack.services import all_services
from flead.stack.supervision import NAME as SUPERVISOR
from tests.accounting import Judged, Letter, dead_letters, messages_of
from tests.conftest import NO_EVALUATIONS, start

FLEET = (
    "--devices", "300", "--rate", "2500/s", "--malformed-rate", "0.01", "--seed", "23",
)  # fmt: skip
DEPLOYMENT = {"checkpoint_interval_seconds": 2, "window_seconds": 8}
OUTPUTS = (Topic.LOCAL_UPDATES, Topic.ANOMALIES, dead_letter_topic(Topic.TELEMETRY))
STEADY_SECONDS = 8.0
WAIT_SECONDS = 180.0


@dataclass(frozen=True)
class Kill:
    """What was killed, and how long a reader of committed updates then waited at most.

    `after_recovery_seconds` counts from when what a user does had returned: what keeps a reader
    waiting then are transactions that the kill has left open, not the time that programs need to
    start.
    """

    name: str
    longest_wait_seconds: float
    after_recovery_seconds: float


@dataclass(frozen=True)
class Aftermath:
    """What the topics hold after all kills, and what the fleet had sent.

    `aborted` counts the messages of transactions that a kill has cut off.
    """

    kills: list[Kill]
    aborted: int
    telemetry: Judged
    updates: list[LocalUpdate]
    anomalies: list[Anomaly]
    letters: list[Letter]


class Follower:
    """Reads the committed updates as they come, and notes when."""

    def __init__(self, kafka: dict[str, str]) -> None:
        self.arrivals: list[float] = []
        # A broker that is back is found within half a second.
        self._consumer = assigned_consumer(kafka | {"reconnect.backoff.max.ms": "500"})
        ranges = offset_ranges(kafka, Topic.LOCAL_UPDATES)
        self._consumer.assign(
            [TopicPartition(Topic.LOCAL_UPDATES, part, low) for part, (low, _) in ranges.items()]
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def longest_wait(self, since: float) -> float:
        """Return the longest time without a new message from a moment until now."""
        moments = [since, *self.after(since), time.monotonic()]
        return max(after - before for before, after in pairwise(moments))

    def after(self, moment: float) -> list[float]:
        return [arrival for arrival in self.arrivals if arrival > moment]

    def _follow(self) -> None:
        while not self._ended.is_set():
            batch = self._consumer.consume(1000, 0.1)
            if any(message.error() is None for message in batch):
                self.arrivals.append(time.monotonic())


class Fleet:
    """Sends rows all the time; starts again when the broker was away for too long."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process = self._start()

    def keep_running(self) -> None:
        if self._process.poll() is not None:
            self._process = self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self._home.python("tools"), "-m", "flead.cli", "simulate", *FLEET],
            env=os.environ | self._home.variables,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="session")
def aftermath(make_home: Callable[[], Home]) -> Aftermath:
    """Kill under load, each time followed by what a user does; then let all rows be trained.

    With `FLEAD_QUICK` everything is killed at once, and nothing before that by itself.
    """
    home = make_home()
    addresses = start(home)
    kafka = {"bootstrap.servers": addresses.kafka_bootstrap}
    run_id = training.start_deployment(addresses, dict(DEPLOYMENT))
    training.finish_deployment(addresses, run_id, say=lambda _: None)
    fleet, follower = Fleet(home), Follower(kafka)
    try:
        wait_until(lambda: bool(follower.arrivals))
        time.sleep(STEADY_SECONDS)
        kills = []
        if not os.environ.get("FLEAD_QUICK"):
            kills = [
                kill(home, fleet, follower, "the TaskManager", taskmanager, recover=nothing),
                kill(home, fleet, follower, "the JobManager", jobmanager, recover=up),
            ]
        kills.append(kill(home, fleet, follower, "everything", everything, recover=up))
        fleet.stop()
        telemetry = Judged.of(kafka, FEATURES)
        wait_until(lambda: rows_in_windows(kafka) >= len(telemetry.rows))
    finally:
        fleet.stop()
        follower.stop()
    return Aftermath(
        kills,
        sum(messages_in(kafka, topic, "read_uncommitted") for topic in OUTPUTS)
        - sum(messages_in(kafka, topic, "read_committed") for topic in OUTPUTS),
        telemetry,
        list(messages_of(kafka, Topic.LOCAL_UPDATES, LocalUpdate)),
        list(messages_of(kafka, Topic.ANOMALIES, Anomaly)),
        dead_letters(kafka, Topic.TELEMETRY),
    )


def kill(
    home: Home,
    fleet: Fleet,
    follower: Follower,
    name: str,
    victims: Callable[[Home], list[psutil.Process]],
    recover: Callable[[Home], float],
) -> Kill:
    """Kill processes at once, do what a user does, and go on for a while."""
    found = victims(home)
    moment = time.monotonic()
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    recovered = recover(home)
    fleet.keep_running()
    wait_until(lambda: len(follower.after(moment + STEADY_SECONDS)) > 1)
    time.sleep(STEADY_SECONDS)
    return Kill(name, follower.longest_wait(moment), follower.longest_wait(recovered))


def taskmanager(home: Home) -> list[psutil.Process]:
    """Return the TaskManager without its Python workers."""
    return java(processes.belonging_to(home, "flink-taskmanager"))


def jobmanager(home: Home) -> list[psutil.Process]:
    return java(processes.belonging_to(home, "flink-jobmanager"))


def everything(home: Home) -> list[psutil.Process]:
    """Return all processes of the stack, the supervisor first: it would start the others again."""
    names = [SUPERVISOR, *all_services(home)]
    return [process for name in names for process in processes.belonging_to(home, name)]


def java(found: list[psutil.Process]) -> list[psutil.Process]:
    servers = [process for process in found if process.name() == "java"]
    assert len(servers) == 1, found
    return servers


def nothing(_: Home) -> float:
    """Do what a user does when a TaskManager dies: the supervisor starts another."""
    return time.monotonic()


def up(home: Home) -> float:
    """Bring the stack up, and return when that has ended: the job has resumed by then."""
    ended = subprocess.run(
        [home.python("tools"), "-m", "flead.cli", "up"],
        env=NO_EVALUATIONS | os.environ | home.variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return time.monotonic()


def rows_in_windows(kafka: dict[str, str]) -> int:
    return sum(update.rows for update in messages_of(kafka, Topic.LOCAL_UPDATES, LocalUpdate))


def messages_in(kafka: dict[str, str], topic: Topic, isolation_level: str) -> int:
    """Count the messages that a consumer of this isolation gets."""
    ranges = offset_ranges(kafka, topic)
    consumer = Consumer(
        kafka
        | {
            "group.id": "counting",
            "isolation.level": isolation_level,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, part, low) for part, (low, _) in ranges.items()])
    count = ended = 0
    while ended < len(ranges):
        batch = consumer.consume(10_000, 1)
        errors = [message.error() for message in batch if message.error() is not None]
        assert {error.code() for error in errors} <= {KafkaError._PARTITION_EOF}
        ended += len(errors)
        count += len(batch) - len(errors)
    consumer.close()
    return count


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS:g} s"
        time.sleep(1)
