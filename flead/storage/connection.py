"""The one way to get a database connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import psycopg2
from psycopg2 import extensions

Connection: TypeAlias = extensions.connection
Cursor: TypeAlias = extensions.cursor

APPLICATION_NAME = "flead"
CONNECT_TIMEOUT_SECONDS = 10


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
    connection = psycopg2.connect(
        url, connect_timeout=CONNECT_TIMEOUT_SECONDS, application_name=APPLICATION_NAME
    )
    try:
        with connection:
            yield connection
    finally:
        connection.close()
