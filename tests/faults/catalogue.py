"""The faults: how each is done, and what is expected to come of it without a person."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flead.stack import training
from flead.stack.home import CHECKOUT, Home
from flead.stack.spark import STREAM
from flead.storage.locks import Lock
from tests.faults.stack import Stack
from tests.running_stack import frozen, kill

ROUND = "aggregation_round"
DEPLOY = "deploy_training"
SERVER_DOWN_SECONDS = 30.0
TRANSACTION_SECONDS = 75.0
"""Longer than the 60 s after which Kafka's brokers end the transaction of a producer by default."""
DISK_FULL_SECONDS = 30.0
DISK_BYTES = 256 * 2**20
ABSENCE_SECONDS = 120.0
MIXED_RATES = (0.02, 0.01)
"""Learning rates of deployments in turn, so that each is another one."""


@dataclass(frozen=True)
class Fault:
    """One way to break the stack.

    Parameters
    ----------
    number
        The same in `docs/reliability.md`.
    what, expected
        For the table of faults.
    happen
        Does it, and returns the moment (`time.monotonic`) from which the stack could recover:
        when the harm ended, or when a user began to mend it.
    """

    number: str
    what: str
    expected: str
    happen: Callable[[Stack], float]

    def __str__(self) -> str:
        """Return what pytest calls it."""
        return f"{self.number} {self.what}"


def now() -> float:
    return time.monotonic()


def kill_service(*names: str) -> Callable[[Stack], float]:
    def happen(stack: Stack) -> float:
        kill(stack.members(*names))
        return now()

    return happen


def kill_java(name: str) -> Callable[[Stack], float]:
    def happen(stack: Stack) -> float:
        kill([stack.java(name)])
        return now()

    return happen


def broker_down(seconds: float) -> Callable[[Stack], float]:
    def happen(stack: Stack) -> float:
        stack.keep_down("kafka", seconds)
        return now()

    return happen


def database_down_in_a_round(stack: Stack) -> float:
    with stack.round_held_up():
        stack.keep_down("postgres", SERVER_DOWN_SECONDS)
    return now()


def kill_each_phase_of_a_round(stack: Stack) -> float:
    phases: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "wait_for_updates": lambda: stack.locked(Lock.MIGRATIONS),
        "open_round": lambda: stack.read_only("local_models"),
        "aggregate": stack.round_held_up,
        "publish": lambda: stack.locked(Lock.OUTBOX),
    }
    for task, held in phases.items():
        with held():
            stack.kill_task(ROUND, task)
    return now()


def kill_each_phase_of_a_deployment(stack: Stack) -> float:
    rate = MIXED_RATES[len(stack.query("SELECT 1 FROM training_deployments")) % 2]
    # Both begin at once, and what they wait for is held before they do.
    with stack.locked(Lock.MIGRATIONS), stack.frozen("kafka"):
        run = training.start_deployment(stack.addresses, {"learning_rate": rate})
        for task in ("migrate", "create_topics"):
            stack.kill_task(DEPLOY, task)
    phases: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "find_running_job": lambda: stack.frozen("flink-jobmanager"),
        "stop_running_job": lambda: stack.frozen("flink-jobmanager"),
        "open_attempt": lambda: stack.locked(Lock.SUBMISSIONS),
        "send_hyperparameters": lambda: stack.locked(Lock.OUTBOX),
        "submit": lambda: stack.frozen("flink-jobmanager"),
    }
    for task, held in phases.items():
        if task == "stop_running_job":
            # The repetition of the task before it needs the server that is held next.
            stack.wait_for_task(DEPLOY, "find_running_job")
        with held():
            stack.kill_task(DEPLOY, task)
    # Posted, and not answered yet.
    with frozen(stack.scripts_that_submit()):
        stack.kill_task(DEPLOY, "submit")
    # The repetition writes that it posts, and then waits for the job to start.
    stack.wait_for_task(DEPLOY, "submit", "deferred")
    with stack.read_only("training_deployments"):
        stack.kill_task(DEPLOY, "record_active")
    training.finish_deployment(stack.addresses, run, say=lambda _: None)
    return now()


def lose_the_stream(stack: Stack) -> float:
    kill(stack.members(STREAM))
    return now()


def fill_the_disk(stack: Stack) -> float:
    folder = checkpoints(stack.home)
    filling = folder / "everything-that-is-free"
    with filling.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**20))
            file.flush()
    assert shutil.disk_usage(folder).free < 2**20
    time.sleep(DISK_FULL_SECONDS)
    filling.unlink()
    return now()


def run_a_round_twice(stack: Stack) -> float:
    plan = json.loads(stack.home.plan_file("airflow-scheduler").read_text())
    command = [stack.home.python("airflow"), CHECKOUT / "tests" / "faults" / "a_round.py"]
    with stack.round_held_up():
        twins = [
            subprocess.Popen(
                command,
                env=os.environ
                | plan["environment"]
                | {
                    "FLEAD_DATABASE_URL": stack.addresses.database_url,
                    "KAFKA": stack.addresses.kafka_bootstrap,
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        time.sleep(5)
    for twin in twins:
        said, _ = twin.communicate(timeout=120)
        assert twin.returncode == 0, said
    return now()


def lose_everything(absence_seconds: float) -> Callable[[Stack], float]:
    def happen(stack: Stack) -> float:
        kill(stack.everything())
        time.sleep(absence_seconds)
        mending_began = now()
        stack.up()
        return mending_began

    return happen


FAULTS = (
    Fault(
        "1",
        "TaskManager killed",
        "its supervisor starts another, Flink restarts the job from its last checkpoint",
        kill_java("flink-taskmanager"),
    ),
    Fault(
        "2",
        "JobManager killed",
        "`monitor_training` finds that the job is gone, and deploys it from its last checkpoint",
        kill_java("flink-jobmanager"),
    ),
    Fault(
        "3a",
        f"Kafka broker down for {SERVER_DOWN_SECONDS:g} s",
        "everybody waits and goes on",
        broker_down(SERVER_DOWN_SECONDS),
    ),
    Fault(
        "3b",
        f"Kafka broker down for {TRANSACTION_SECONDS:g} s",
        "the job's open transactions outlive it (their timeout is six days)",
        broker_down(TRANSACTION_SECONDS),
    ),
    Fault(
        "4",
        f"PostgreSQL down for {SERVER_DOWN_SECONDS:g} s in the middle of a round",
        "Airflow comes back, and the round that was open is resumed",
        database_down_in_a_round,
    ),
    Fault(
        "5",
        "Airflow's scheduler killed, with the tasks that it ran",
        "another one fails its tasks within half a minute and goes on",
        kill_service("airflow-scheduler"),
    ),
    Fault(
        "6",
        "Airflow's triggerer killed",
        "another one takes over what was deferred",
        kill_service("airflow-triggerer"),
    ),
    Fault(
        "7a",
        "the task killed in each phase of `aggregation_round`",
        "each is tried again; nothing is counted twice",
        kill_each_phase_of_a_round,
    ),
    Fault(
        "7b",
        "the task killed in each phase of `deploy_training`",
        "each is tried again, and finds the job that it had posted",
        kill_each_phase_of_a_deployment,
    ),
    Fault(
        "8",
        "Airflow's DAG processor and API server killed",
        "others take their places; tasks wait for the API server",
        kill_service("airflow-dag-processor", "airflow-api-server"),
    ),
    Fault(
        "9",
        "the driver of the Spark stream killed",
        "`monitor_training` finds that it is lost, and deploys it again",
        lose_the_stream,
    ),
    Fault(
        "10",
        f"the disk for checkpoints full for {DISK_FULL_SECONDS:g} s",
        "checkpoints fail; the job goes back to the last good one and repeats what came after",
        fill_the_disk,
    ),
    Fault(
        "11",
        "a round run by three processes at once",
        "one makes the version, the others find it made",
        run_a_round_twice,
    ),
    Fault(
        "12",
        f"everything killed at once, `up` {ABSENCE_SECONDS:g} s later",
        "the servers start, job and stream are resumed where they were",
        lose_everything(ABSENCE_SECONDS),
    ),
)
QUICK = (
    Fault(
        "12",
        "everything killed at once, then `up`",
        "the servers start, the job is resumed where it was",
        lose_everything(0),
    ),
)


def checkpoints(home: Home) -> Path:
    """Return the folder of Flink's checkpoints."""
    return home.data / "flink" / "checkpoints"


@contextlib.contextmanager
def small_disk(home: Home) -> Iterator[None]:
    """Keep checkpoints on a file system of their own, which is filled without harm to others."""
    if os.geteuid() != 0:
        pytest.fail("to fill a disk the test mounts one: run it as root, or quick (FLEAD_QUICK=1)")
    folder = checkpoints(home)
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "flead-test", folder]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607
