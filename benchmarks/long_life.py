"""`flead bench long-life`: Airflow and our queries once a week of runs has passed.

The baseline is the same machine with an empty database, in the same run.
"""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import psutil

from benchmarks.airflow_runs import RUNS_EVERY, fill_airflow
from benchmarks.filled.database import fill
from benchmarks.filled.fleet import Size
from benchmarks.servers import BenchmarkError, Say, own_home, running
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.health.readings import Part
from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT, Home
from flead.storage import control, deployments, health, models, outbox, rounds, updates
from flead.storage.connection import Cursor, connect
from flead.storage.migrations import migrate

LOOP: Final = re.compile(r"Ran scheduling loop in ([\d.]+) ms")
GRID_DAGS: Final = ("monitor_training", "aggregation_round")
SHOWN_RUNS: Final = 10
"""Runs of a grid when it is opened."""
START_SECONDS: Final = 180.0


SHOWN_TABLES: Final = (
    "aggregation_rounds", "federated_models", "local_models", "training_health",
    "model_evaluations", "stream_analysis_results",
)  # fmt: skip


class Limits(msgspec.Struct, frozen=True):
    """What must hold after the days.

    `scheduler_growth` is the CPU time of a loop as a multiple of what it was before them.
    """

    scheduler_loop_p95_ms: float = 1_000.0
    scheduler_growth: float = 1.5
    page_median_ms: float = 1_000.0
    query_median_ms: float = 100.0


class Options(msgspec.Struct, frozen=True):
    """What is filled, and how long and how often it is measured.

    `devices` is the fleet of our own tables (see `benchmarks.filled.fleet.Size`).
    """

    days: int = 7
    devices: int = 2_407
    scheduler_seconds: float = 120.0
    repeats: int = 15


class Scheduler(msgspec.Struct, frozen=True):
    """Loops of the scheduler while the health gate runs each minute.

    `loop_cpu_ms` is its process's, which depends less than wall time on what else is running.
    """

    loops: int
    loop_median_ms: float
    loop_p95_ms: float
    loop_cpu_ms: float


class Phase(msgspec.Struct, frozen=True):
    """What was measured; medians in milliseconds."""

    scheduler: Scheduler
    pages: dict[str, float]
    queries: dict[str, float]


class LongLife(msgspec.Struct, frozen=True):
    """Measurements before and after the rows of the days, and whether the limits hold."""

    options: Options
    rows: dict[str, int]
    database_mb: float
    empty: Phase
    filled: Phase
    limits: Limits
    beyond: list[str]


def run(options: Options, say: Say) -> LongLife:
    """Measure with an empty database, fill it, and measure again.

    Raises
    ------
    BenchmarkError
        A server does not start, or the scheduler did not run.
    """
    home = own_home()
    with running(home, "postgres", "airflow-api-server", "airflow-dag-processor") as addresses:
        migrate(addresses.database_url)
        pages = Pages(addresses)
        tasks = {dag_id: pages.tasks(dag_id) for dag_id in RUNS_EVERY}
        say("empty")
        empty = _measure(home, addresses, pages, options)
        say(f"filling {options.days} days")
        rows = fill_airflow(addresses.airflow_database_url, tasks, options.days)
        rows |= _fill_flead(addresses.database_url, options)
        say(", ".join(f"{count:,} {table}" for table, count in rows.items()))
        filled = _measure(home, addresses, pages, options)
        database_mb = sum(
            _database_mb(url) for url in (addresses.database_url, addresses.airflow_database_url)
        )
    limits = Limits()
    beyond = beyond_limits(empty, filled, limits)
    for line in beyond:
        say(f"beyond its limit: {line}")
    return LongLife(options, rows, database_mb, empty, filled, limits, beyond)


def _fill_flead(database_url: str, options: Options) -> dict[str, int]:
    """Fill our tables; return their rows. Nothing should run, so that both phases do the same."""
    fill(database_url, Size(devices=options.devices, days=options.days))
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE training_deployments SET status = 'stopped' WHERE status = 'active'")
        cursor.execute("UPDATE stream_deployments SET state = 'stopped', is_wanted = FALSE")
        cursor.execute(
            "SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE relname = ANY(%s)",
            (list(SHOWN_TABLES),),
        )
        return dict(cursor.fetchall())


def beyond_limits(empty: Phase, filled: Phase, limits: Limits) -> list[str]:
    """Name each limit that does not hold once the database is filled."""
    growth = filled.scheduler.loop_cpu_ms / empty.scheduler.loop_cpu_ms
    measured = {
        "scheduler loop, 95 %, ms": (filled.scheduler.loop_p95_ms, limits.scheduler_loop_p95_ms),
        "scheduler loop, growth": (growth, limits.scheduler_growth),
        **{name: (value, limits.page_median_ms) for name, value in filled.pages.items()},
        **{name: (value, limits.query_median_ms) for name, value in filled.queries.items()},
    }
    return [
        f"{name}: {value:.4g}, not {limit:g}"
        for name, (value, limit) in measured.items()
        if value > limit
    ]


def _measure(home: Home, addresses: Addresses, pages: "Pages", options: Options) -> Phase:
    with _scheduler(home) as (process, log):
        scheduler = _watch(process, log, options.scheduler_seconds)
        page_times = {
            name: _median_ms(call, options.repeats) for name, call in pages.of_the_grid().items()
        }
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        queries = {
            name: _median_ms(lambda query=query: query(cursor), options.repeats)
            for name, query in QUERIES.items()
        }
    return Phase(scheduler, page_times, queries)


@contextlib.contextmanager
def _scheduler(home: Home) -> Iterator[tuple[psutil.Process, Path]]:
    """Run a scheduler that logs how long each of its loops takes."""
    plan = json.loads(home.plan_file("airflow-api-server").read_text())
    log = home.logs / "long-life-scheduler.log"
    command = [str(home.python("airflow")), "-m", "airflow", "scheduler", "--skip-serve-logs"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | plan["environment"] | {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"},
            cwd=CHECKOUT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield psutil.Process(process.pid), log
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _watch(process: psutil.Process, log: Path, seconds: float) -> Scheduler:
    deadline = time.monotonic() + START_SECONDS
    while not _loops(log):
        if time.monotonic() > deadline:
            raise BenchmarkError(f"the scheduler did not begin: {log.read_text()[-2_000:]}")
        time.sleep(0.5)
    before, cpu = len(_loops(log)), process.cpu_times()
    time.sleep(seconds)
    used = process.cpu_times()
    loops = np.array(_loops(log)[before:])
    if not len(loops):
        raise BenchmarkError(f"the scheduler has stopped: {log.read_text()[-2_000:]}")
    return Scheduler(
        loops=len(loops),
        loop_median_ms=float(np.median(loops)),
        loop_p95_ms=float(np.percentile(loops, 95)),
        loop_cpu_ms=1_000 * (used.user + used.system - cpu.user - cpu.system) / len(loops),
    )


def _loops(log: Path) -> list[float]:
    return [float(found) for found in LOOP.findall(log.read_text(errors="replace"))]


class Pages:
    """What Airflow's pages ask its API for, with a login."""

    def __init__(self, addresses: Addresses) -> None:
        self._http = httpx.Client(base_url=addresses.airflow_url, timeout=60, trust_env=False)
        token = self._http.post(
            "/auth/token",
            json={"username": addresses.airflow_user, "password": addresses.airflow_password},
        )
        token.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"

    def tasks(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a DAG, once Airflow has parsed it."""
        deadline = time.monotonic() + 120
        while (answer := self._http.get(f"/api/v2/dags/{dag_id}/tasks")).is_error:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{dag_id} is not there: {answer.text}")
            time.sleep(1)
        found: list[dict[str, Any]] = answer.json()["tasks"]
        return found

    def of_the_grid(self) -> dict[str, Callable[[], None]]:
        """Return the requests of the pages by name: all that one page asks for is one."""
        return {"list of DAGs": self._list} | {
            f"grid of {dag_id}": lambda dag_id=dag_id: self._grid(dag_id) for dag_id in GRID_DAGS
        }

    def _list(self) -> None:
        self._get("/ui/dags", limit=50, dag_runs_limit=14)

    def _grid(self, dag_id: str) -> None:
        shown: dict[str, Any] = {"limit": SHOWN_RUNS, "order_by": "-run_after"}
        self._get(f"/ui/grid/structure/{dag_id}", **shown)
        runs = self._get(f"/ui/grid/runs/{dag_id}", **shown).json()
        run_ids = [run["run_id"] for run in runs]
        self._get(f"/ui/grid/ti_summaries/{dag_id}", run_ids=run_ids)
        self._get(f"/api/v2/dags/{dag_id}/dagRuns", limit=25, order_by="-run_after")

    def _get(self, path: str, **params: Any) -> httpx.Response:
        answer = self._http.get(path, params=params)
        answer.raise_for_status()
        return answer


def _newest_round(cursor: Cursor) -> None:
    newest = rounds.newest(cursor)
    if newest is not None:
        updates.updates_of_round(cursor, newest.number)


def _head(cursor: Cursor) -> None:
    version = models.head(cursor, feature_schema(FEATURES))
    if version is not None:
        models.models(cursor, [version, version - 1])


QUERIES: Final[dict[str, Callable[[Cursor], object]]] = {
    "readings of ten minutes": lambda cursor: health.readings_since(
        cursor, datetime.now(UTC) - timedelta(minutes=10), "none"
    ),
    "attempts to heal of an hour": lambda cursor: health.healings_since(
        cursor, Part.TRAINING, datetime.now(UTC) - timedelta(hours=1), "none"
    ),
    "a reading replaced": lambda cursor: cursor.execute(
        "DELETE FROM training_health WHERE dag_run_id = 'none'"
    ),
    "the deployment that should run": deployments.expected,
    "the head and its parent": _head,
    "the newest round and its updates": _newest_round,
    "moments of the fleet": lambda cursor: updates.newest_moments(cursor, feature_schema(FEATURES)),
    "the next revision": control.next_revision,
    "messages to publish": lambda cursor: outbox.next_ready(cursor, 100),
    "the newest control message": lambda cursor: outbox.newest_value(
        cursor, Topic.CONTROL, "control"
    ),
}
"""What the DAGs that run each minute ask the database for, by what it is."""


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    call()  # plans and caches are there in the course of a week
    times: Sequence[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times = [*times, 1_000 * (time.perf_counter() - began)]
    return float(np.median(times))


def _database_mb(database_url: str) -> float:
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        [(size,)] = cursor.fetchall()
    return float(size) / 2**20
