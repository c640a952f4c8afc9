"""A stack that runs: what it consists of, what it says, and waiting for it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import psycopg2

from flead.settings import TRAINING_SCRIPT
from flead.stack import processes
from flead.stack.addresses import Addresses
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import Home
from flead.storage import deployments
from flead.storage.connection import connect

WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class RunningStack:
    """A home whose servers run."""

    home: Home
    addresses: Addresses

    @property
    def kafka(self) -> dict[str, str]:
        """Properties of a client of its broker."""
        return {"bootstrap.servers": self.addresses.kafka_bootstrap}

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a statement finds in FLEAD's database."""
        return _query(self.addresses.database_url, statement, values)

    def query_airflow(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what a statement finds in Airflow's database."""
        return _query(self.addresses.airflow_database_url, statement, values)

    def task_logs(self, dag: str, task: str, run: str = "*") -> list[str]:
        """Return what each try of a task, and what it waited for in the triggerer, has written."""
        files = self.home.logs.glob(f"airflow-tasks/dag_id={dag}/run_id={run}/task_id={task}/*")
        return [path.read_text(errors="replace") for path in files]

    def members(self, *services: str) -> list[psutil.Process]:
        """Return the living processes of services, and nothing when they have none."""
        return [each for name in services for each in processes.belonging_to(self.home, name)]

    def scripts_that_submit(self) -> list[psutil.Process]:
        """Wait until the JobManager runs the script of the training job, and return its process."""
        found: list[psutil.Process] = []

        def looked() -> list[psutil.Process]:
            for each in self.members("flink-jobmanager"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if str(TRAINING_SCRIPT) in each.cmdline():
                        found.append(each)
            return found

        wait_until(looked, "the script of the job runs", poll_seconds=0.05)
        return found

    def training_goes_on_since(self, moment_ms: float) -> bool:
        """Tell whether the active job has completed a checkpoint that began after a moment.

        To run is not enough: Flink calls a job so until it misses the TaskManager's heartbeats.
        """
        with connect(self.addresses.database_url) as connection, connection.cursor() as cursor:
            active = deployments.active(cursor)
        flink = FlinkClient(self.addresses.flink_url)
        if active is None or flink.job_state(active.job_id) != "RUNNING":
            return False
        return any(
            each["status"] == "COMPLETED" and each["trigger_timestamp"] > moment_ms
            for each in flink.checkpoints(active.job_id)
        )


@contextlib.contextmanager
def frozen(members: list[psutil.Process]) -> Iterator[None]:
    """Stop processes for the block: they live, and do nothing."""
    assert members
    for process in members:
        process.suspend()
    try:
        yield
    finally:
        for process in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def kill(members: list[psutil.Process]) -> None:
    """Kill processes at once."""
    assert members
    for process in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until(
    holds: Callable[[], object],
    what: str,
    seconds: float = WAIT_SECONDS,
    poll_seconds: float = 0.5,
) -> None:
    """Wait until something holds; a server that does not answer meanwhile is no answer."""
    deadline = time.monotonic() + seconds
    while not answered(holds):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(poll_seconds)


def answered(holds: Callable[[], object]) -> bool:
    """Tell whether something holds, as far as servers that may be down can be asked."""
    try:
        return bool(holds())
    except (psycopg2.OperationalError, httpx.HTTPError):
        return False


def _query(url: str, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()
    finally:
        connection.close()
