"""Both databases of the migrations and storage tests: plain PostgreSQL, and a real TimescaleDB.

TimescaleDB's one backend serves all connections in turn, so no test holds a transaction open while
it queries through another connection.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flead.stack.home import Home

SERVER = Path(__file__).parents[2] / "timescaledb" / "server.py"


@pytest.fixture(scope="session")
def timescaledb_server() -> Iterator[str]:
    """Return the URL of a real TimescaleDB."""
    specification = importlib.util.spec_from_file_location("timescaledb_server", SERVER)
    assert specification is not None
    assert specification.loader is not None
    server = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = server
    specification.loader.exec_module(server)
    with server.timescaledb(Home.from_environment().root / "cache") as url:
        yield url


@pytest.fixture(scope="session", params=["postgresql", "timescaledb"])
def database_server(request: pytest.FixtureRequest) -> str:
    """Return the URL of a database of each kind, which the tests of the session share."""
    if request.param == "postgresql":
        return request.getfixturevalue("make_database")()
    return request.getfixturevalue("timescaledb_server")


@pytest.fixture
def empty_database(database_server: str) -> str:
    """Return the URL of a database without FLEAD's tables."""
    roll_back(database_server)
    return database_server


@pytest.fixture
def database(database_server: str) -> str:
    """Return the URL of a database with FLEAD's tables, all empty."""
    from flead.storage.connection import connect  # noqa: PLC0415 - not every environment has it
    from flead.storage.migrations import migrate  # noqa: PLC0415

    migrate(database_server)
    with connect(database_server) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT LIKE '%yoyo%'"
        )
        [(tables,)] = cursor.fetchall()
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
    return database_server


@pytest.fixture
def cursor(database: str) -> Iterator[object]:
    """Return a cursor on a database with FLEAD's tables, all empty; it ends in a commit."""
    from flead.storage.connection import connect  # noqa: PLC0415 - not every environment has it

    with connect(database) as connection, connection.cursor() as cursor:
        yield cursor


def roll_back(url: str) -> None:
    """Undo every migration by its rollback file."""
    from yoyo import get_backend, read_migrations  # noqa: PLC0415 - not every environment has it

    from flead.storage.migrations import DIRECTORY  # noqa: PLC0415

    with get_backend(url) as backend:
        backend.rollback_migrations(backend.to_rollback(read_migrations(str(DIRECTORY))))
