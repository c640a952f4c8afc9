"""The schema of the database, by yoyo over the plain SQL files of `sql/migrations`."""

import logging
from pathlib import Path

from yoyo import get_backend, read_migrations

from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, hold
from flead.storage.roles import grant_reading

DIRECTORY = Path(__file__).parents[2] / "sql" / "migrations"

logger = logging.getLogger(__name__)


def migrate(url: str, directory: Path = DIRECTORY) -> list[str]:
    """Apply the migrations that the database lacks, in order, each in one transaction.

    Then the role of dashboards, where there is one, may read what they draw.

    yoyo marks a migration after its transaction, so the files are written to be run again by a call
    that follows a crash in between.

    Parameters
    ----------
    url
        `postgresql://...` of a role that owns the database.
    directory
        Holds `NAME.sql` and `NAME.rollback.sql`.

    Returns
    -------
    list of str
        Names of the migrations that were applied; empty when there was nothing to do.

    Raises
    ------
    FileNotFoundError
        When `directory` has no migrations.
    psycopg2.Error
        When a migration fails; those before it stay.
    """
    migrations = read_migrations(str(directory))
    if not migrations:
        raise FileNotFoundError(f"no migrations in {directory}")
    # Not yoyo's own lock: a row, which a killed process would leave behind for ever.
    with hold(url, Lock.MIGRATIONS):
        with get_backend(url.replace("postgres://", "postgresql://", 1)) as backend:
            missing = backend.to_apply(migrations)
            backend.apply_migrations(missing)
        with connect(url) as connection, connection.cursor() as cursor:
            # The role may be younger than the tables.
            grant_reading(cursor)
    applied = [migration.id for migration in missing]
    if applied:
        logger.info("Applied migrations %s", ", ".join(applied))
    return applied


def is_migrated(cursor: Cursor) -> bool:
    """Tell whether the database holds FLEAD's tables, of whatever version."""
    cursor.execute("SELECT to_regclass('training_deployments') IS NOT NULL")
    return bool(cursor.fetchall()[0][0])
