"""Fill a database: the project's migrations, then every table."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from benchmarks.filled.daily import write_days
from benchmarks.filled.evaluations import write_evaluations
from benchmarks.filled.fleet import Fleet, Size
from benchmarks.filled.history import History, correct_measured, write_rounds, write_versions
from benchmarks.filled.operation import write_operation
from benchmarks.filled.streams import write_streams
from flead.storage.connection import connect, connect_without_transaction
from flead.storage.migrations import migrate
from flead.storage.updates import record_status


class Filled(msgspec.Struct, frozen=True):
    """A filled database: its size, its newest promoted version, and when its data ends."""

    size: Size
    head: int
    devices: list[str]
    end: datetime


def fill(url: str, size: Size, say: Callable[[str], None] = lambda _: None) -> Filled:
    """Migrate an empty database and fill it, in one transaction; statistics of the tables too.

    Parameters
    ----------
    url
        Of a role that owns the database.
    """
    migrate(url)
    fleet = Fleet(size)
    say(f"{len(fleet):,} devices, {fleet.minutes:,} minutes")
    history = History(fleet)
    with connect(url) as connection, connection.cursor() as cursor:
        # `columns.Times` are written without a zone.
        cursor.execute("SET LOCAL TimeZone = 'UTC'")
        write_rounds(cursor, fleet, history)
        write_versions(cursor, fleet, history)
        say(f"{len(history.versions):,} versions")
        fleet.tuning.write(cursor, fleet.schema, fleet.at_ms, history.head_at)
        write_operation(cursor, fleet, history)
        write_evaluations(cursor, fleet, history)
        say("evaluations")
        write_days(cursor, fleet, history)
        say("days")
        sums = write_streams(cursor, fleet, history)
        correct_measured(cursor, fleet, history, sums)
        record_status(cursor, fleet.minutes)
        say("streams")
    with connect_without_transaction(url) as connection, connection.cursor() as cursor:
        # As autovacuum leaves tables that have been there for days.
        cursor.execute("VACUUM ANALYZE")
    return Filled(
        size, history.head.version, fleet.names, datetime.fromtimestamp(fleet.end_ms / 1_000, UTC)
    )
