"""Real servers for tests: each starts when first asked for, once a session, in a home of its own.

The fixtures call the `flead` command of the tools environment, so that tests of every environment
can use them.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from flead.messaging import client
from flead.stack.addresses import Addresses
from flead.stack.files import exclusive
from flead.stack.home import CHECKOUT, Home
from flead.stack.ports import Ports

# JVMs of tests end before the code of HotSpot's second compiler pays for its making.
os.environ["_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1"
# Evaluations on Spark would take a core from the tests of training; they have tests of their own.
NO_EVALUATIONS = {"FLEAD_EVALUATION_MIN_ROWS": "1000000000"}
HOME_PREFIX = "flead-test-"


def run_flead(home: Home, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the `flead` command on a home and return what it said."""
    environment = {
        name: value for name, value in os.environ.items() if name != "FLEAD_DATABASE_URL"
    }
    return subprocess.run(
        [home.python("tools"), "-m", "flead.cli", *arguments],
        env=NO_EVALUATIONS | environment | home.variables,
        capture_output=True,
        text=True,
        check=False,
    )


def start(home: Home, *services: str) -> Addresses:
    """Start services and return where they answer."""
    started = run_flead(home, "up", *services)
    assert started.returncode == 0, started.stderr
    return Addresses.of(home, environ={})


@pytest.fixture(scope="session")
def make_home() -> Iterator[Callable[[], Home]]:
    """Make homes that share the environments and jars of the checkout; all end with the session."""
    shared = Home.from_environment()
    homes: list[Home] = []

    def make() -> Home:
        root = Path(tempfile.mkdtemp(prefix=HOME_PREFIX))
        # PostgreSQL, which does not run as root, must be able to pass through it.
        root.chmod(0o711)
        homes.append(Home(root=root, envs=shared.envs, jars=shared.jars))
        give_ports(homes[-1])
        return homes[-1]

    yield make
    with ThreadPoolExecutor() as pool:
        stopped = list(pool.map(lambda home: run_flead(home, "down", "--wipe"), homes))
    for home in homes:
        shutil.rmtree(home.root, ignore_errors=True)
    failures = [each.stderr for each in stopped if each.returncode]
    assert not failures, failures


def give_ports(home: Home) -> None:
    """Give a home ports that none of another suite has, whose servers may not run yet."""
    folder = Path(tempfile.gettempdir())
    with exclusive(folder / f"{HOME_PREFIX}ports-{os.geteuid()}.lock"):
        taken: set[int] = set()
        for file in folder.glob(f"{HOME_PREFIX}*/{home.ports_file.name}"):
            with contextlib.suppress(FileNotFoundError):  # its suite has ended
                taken.update(json.loads(file.read_bytes()).values())
        while taken.intersection(msgspec.structs.astuple(Ports.of(home))):
            home.ports_file.unlink()


@pytest.fixture(scope="session")
def flead() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return the function that runs the `flead` command: flead(home, *arguments)."""
    return run_flead


@pytest.fixture(scope="session")
def stack_home(make_home: Callable[[], Home]) -> Home:
    """Return the home that the servers of the session share."""
    return make_home()


@pytest.fixture(scope="session")
def kafka(stack_home: Home) -> str:
    """Return the `bootstrap.servers` of a real broker without topics."""
    return start(stack_home, "kafka").kafka_bootstrap


@pytest.fixture(scope="session")
def producer(kafka: str) -> Producer:
    """Return a producer for the broker; each new one waits half a second before it sends."""
    return client.producer({"bootstrap.servers": kafka})


@pytest.fixture(scope="session")
def flink(stack_home: Home) -> str:
    """Return the REST URL of a real session cluster with four slots."""
    return start(stack_home, "flink").flink_url


@pytest.fixture(scope="session")
def postgres_server(stack_home: Home) -> str:
    """Return the URL of a real PostgreSQL as its superuser."""
    return start(stack_home, "postgres").superuser_url


@pytest.fixture(scope="session")
def make_database(postgres_server: str) -> Callable[[], str]:
    """Make empty databases; each call returns the superuser's URL of another one."""
    import psycopg2  # noqa: PLC0415 - the flink environment, which needs no database, lacks it

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        connection = psycopg2.connect(postgres_server)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return postgres_server.rpartition("/")[0] + f"/{name}"

    return make


@pytest.fixture(scope="session")
def postgres(make_database: Callable[[], str]) -> str:
    """Return the URL of a database that the tests of the session share; empty at first."""
    return make_database()


@pytest.fixture
def database_url(make_database: Callable[[], str]) -> str:
    """Return the URL of an empty database for one test."""
    return make_database()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Return the folder of the repository."""
    return CHECKOUT
