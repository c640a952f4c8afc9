"""The one way to get a database connection."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TypeAlias

import psycopg2
from psycopg2 import extensions

Connection: TypeAlias = extensions.connection
Cursor: TypeAlias = extensions.cursor

APPLICATION_NAME = "flead"
CONNECT_TIMEOUT_SECONDS = 10
KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""By these the server ends within a minute what a host held, locks for one, that was lost."""


@contextmanager
def connect(url: str) -> Iterator[Connection]:
    """Open a connection for one transaction: committed on success, rolled back on an error.

    Parameters
    ----------
    url
        `postgresql://user:password@host:port/database`, with any libpq parameter as a query.

    Raises
    ------
    psycopg2.OperationalError
        When the server cannot be reached or refuses the login.
    """
    with closing(_open(url)) as connection, connection:
        yield connection


@contextmanager
def connect_read_only(url: str, statement_seconds: float) -> Iterator[Connection]:
    """Open a connection for one transaction that writes nothing, whoever the account is.

    Parameters
    ----------
    statement_seconds
        How long the server may work on a statement before it gives it up.

    Raises
    ------
    psycopg2.errors.QueryCanceled
        A statement took longer.
    psycopg2.OperationalError
        When the server cannot be reached or refuses the login.
    """
    with closing(_open(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, TRUE)",
                (str(int(1e3 * statement_seconds)),),
            )
            yield connection


@contextmanager
def connect_without_transaction(url: str) -> Iterator[Connection]:
    """Open a connection on which every statement is its own transaction."""
    with closing(_open(url)) as connection:
        connection.autocommit = True
        yield connection


def _open(url: str) -> Connection:
    own = extensions.parse_dsn(url).get("options", "")
    return psycopg2.connect(
        url,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name=APPLICATION_NAME,
        options=f"{KEEPALIVES} {own}",
    )
