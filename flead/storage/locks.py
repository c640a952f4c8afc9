"""Advisory locks by name, each held by one process at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from flead.storage.connection import Cursor, connect_without_transaction


class Lock(StrEnum):
    """What is done by one process at a time."""

    MIGRATIONS = "flead.migrations"
    ROUNDS = "flead.rounds"
    OUTBOX = "flead.outbox"
    CONTROL = "flead.control"
    SUBMISSIONS = "flead.submissions"
    EVALUATIONS = "flead.evaluations"
    STREAM = "flead.stream"


class LockHeldError(Exception):
    """Another process holds the lock."""


def lock_for_transaction(cursor: Cursor, lock: Lock) -> None:
    """Wait for `lock` and hold it until the transaction of `cursor` ends."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock.value,))


def is_held(cursor: Cursor, lock: Lock) -> bool:
    """Tell whether somebody holds `lock` now."""
    cursor.execute(
        """
        SELECT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(%s, 0)
        )
        """,
        (lock.value,),
    )
    return bool(cursor.fetchall()[0][0])


@contextmanager
def hold(url: str, lock: Lock) -> Iterator[None]:
    """Wait for `lock` and hold it for the block, with a connection of its own.

    The lock dies with the process that holds it, so a killed one blocks nobody.
    """
    # Outside a transaction, which would hold back VACUUM for as long as the lock is held.
    with connect_without_transaction(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (lock.value,))
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (lock.value,))


@contextmanager
def hold_at_once(url: str, lock: Lock) -> Iterator[Cursor]:
    """Hold `lock` for the block if it is free, and yield a cursor on the connection that holds it.

    Each of its statements is a transaction; one that fails tells that the lock may be lost.

    Raises
    ------
    LockHeldError
        Another process holds the lock.
    """
    with connect_without_transaction(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (lock.value,))
        if not cursor.fetchall()[0][0]:
            raise LockHeldError(f"{lock.value} is held by another process")
        yield cursor
