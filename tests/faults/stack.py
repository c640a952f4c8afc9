"""The stack under load: what it says of itself, and the ways to do it harm."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg2

from flead.contracts.topics import Topic
from flead.messaging.reading import offset_ranges
from flead.stack.home import Home
from flead.stack.services import all_services
from flead.stack.spark import STREAM
from flead.stack.supervision import NAME as SUPERVISOR
from flead.storage.locks import Lock, hold
from tests.conftest import run_flead
from tests.faults.load import Fleet, Follower, Ledger
from tests.running_stack import RunningStack, frozen, kill, wait_until

TASK_SECONDS = 1.0
"""How long a task is given to come to what holds it."""


@dataclass(frozen=True)
class Stack(RunningStack):
    """One with a fleet and readers of what that sends and what comes of it.

    Parameters
    ----------
    has_stream
        Whether the stream analysis runs, too.
    """

    fleet: Fleet
    follower: Follower
    ledger: Ledger
    has_stream: bool

    def messages_sent(self) -> int:
        """Count what the fleet has sent so far, the bad messages too."""
        ranges = offset_ranges(self.kafka, Topic.TELEMETRY)
        return sum(end - first for first, end in ranges.values())

    def up(self) -> None:
        """Bring it up as a user does."""
        started = run_flead(self.home, "up")
        assert started.returncode == 0, started.stderr

    # What it is made of

    def java(self, service: str) -> psutil.Process:
        """Return the JVM of a service, without its Python workers."""
        [found] = [each for each in self.members(service) if each.name() == "java"]
        return found

    def processes_of_home(self) -> list[psutil.Process]:
        """Return whatever runs for this home, but this process with its parents and children.

        Found by the variable that leads to the home, or by a working folder in it: not by what the
        supervisor or the launcher know of.
        """
        this = psutil.Process()
        own = {each.pid for each in (this, *this.parents(), *this.children(recursive=True))}
        return [
            each
            for each in psutil.process_iter()
            if each.pid not in own and _is_of_home(each, self.home)
        ]

    def everything(self) -> list[psutil.Process]:
        """Return all processes, the supervisor first: it would start the others again."""
        return self.members(SUPERVISOR, *all_services(self.home), STREAM)

    # What is well

    def airflow_is_well(self) -> bool:
        """Tell whether all of Airflow's parts report healthy."""
        answer = httpx.get(f"{self.addresses.airflow_url}/api/v2/monitor/health")
        parts = answer.raise_for_status().json().values()
        return all(part["status"] == "healthy" for part in parts)

    def version_was_made_since(self, moment_ms: float) -> bool:
        """Tell whether a round that was opened after a moment has made a version."""
        statement = (
            "SELECT 1 FROM aggregation_rounds"
            " WHERE opened_at > to_timestamp(%s) AND version IS NOT NULL LIMIT 1"
        )
        return bool(self.query(statement, moment_ms / 1000))

    def batch_began_since(self, moment_ms: float) -> bool:
        """Tell whether the stream analysis has committed a batch that began after a moment."""
        statement = (
            "SELECT 1 FROM stream_analysis_batches"
            " WHERE opened_at > to_timestamp(%s) AND committed_at IS NOT NULL LIMIT 1"
        )
        return bool(self.query(statement, moment_ms / 1000))

    # Harm

    def kill_task(self, dag_id: str, task_id: str) -> None:
        """Kill the process of a task that is held up in the middle of its work."""

        def pid() -> int | None:
            rows = self.query_airflow(
                "SELECT pid FROM task_instance WHERE dag_id = %s AND task_id = %s"
                " AND state = 'running' AND pid IS NOT NULL ORDER BY start_date DESC LIMIT 1",
                dag_id, task_id,
            )  # fmt: skip
            return rows[0][0] if rows and psutil.pid_exists(rows[0][0]) else None

        victims: list[int] = []

        def is_held() -> bool:
            # One that was already past what is held ends by itself.
            found = pid()
            time.sleep(TASK_SECONDS)
            victims.extend(each for each in [found] if each is not None and each == pid())
            return bool(victims)

        wait_until(is_held, f"{dag_id} is held up in {task_id}", poll_seconds=0.1)
        [victim] = victims
        psutil.Process(victim).kill()
        wait_until(lambda: not psutil.pid_exists(victim), f"{task_id} is dead")

    def wait_for_task(self, dag_id: str, task_id: str, *states: str) -> None:
        """Wait until a task of the newest run of a DAG has succeeded, or is in one of `states`."""

        def state() -> str | None:
            [(found,)] = self.query_airflow(
                "SELECT task.state FROM task_instance AS task INNER JOIN dag_run AS run"
                " USING (dag_id, run_id) WHERE dag_id = %s AND task_id = %s"
                " ORDER BY run.run_after DESC LIMIT 1",
                dag_id, task_id,
            )  # fmt: skip
            return found

        wanted = {"success", *states}
        wait_until(lambda: state() in wanted, f"{task_id} is one of {wanted}", poll_seconds=0.1)

    @contextlib.contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Stop the processes of a service for the block: they live, and do nothing."""
        with frozen(self.members(service)):
            yield

    @contextlib.contextmanager
    def locked(self, lock: Lock) -> Iterator[None]:
        """Hold one of FLEAD's own locks for the block."""
        with hold(self.addresses.database_url, lock):
            yield

    @contextlib.contextmanager
    def read_only(self, table: str) -> Iterator[None]:
        """Let nobody write to a table for the block."""
        connection = psycopg2.connect(self.addresses.database_url)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
        finally:
            connection.close()

    @contextlib.contextmanager
    def round_held_up(self) -> Iterator[None]:
        """Wait until a round is open, and let it not be completed for the block."""

        def is_open() -> bool:
            return bool(self.query("SELECT 1 FROM aggregation_rounds WHERE state = 'open'"))

        while True:
            wait_until(is_open, "a round is open", poll_seconds=0.1)
            with self.read_only("local_models"):
                # It may have been completed before the table was.
                if is_open():
                    yield
                    return

    def keep_down(self, service: str, seconds: float) -> None:
        """Kill a server, whose supervisor cannot start it again for a while."""
        with frozen(self.members(SUPERVISOR)):
            kill(self.members(service))
            time.sleep(seconds)


def _is_of_home(process: psutil.Process, home: Home) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        leads_to_it = process.environ().get("FLEAD_HOME") == str(home.root)
        return leads_to_it or Path(process.cwd()).is_relative_to(home.root)
    except psutil.Error:
        return False
