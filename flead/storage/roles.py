"""The role of dashboards, which reads what they draw and writes nothing."""

from pathlib import Path
from typing import Final

from psycopg2 import sql

from flead.storage.connection import Cursor

GRAFANA: Final = "grafana"
GRANTS: Final = Path(__file__).parents[2] / "sql" / "roles" / "grafana.sql"
STATEMENT_TIMEOUT: Final = "30s"
"""A panel that asks for too much must not hold up the fleet's database."""


def create_grafana(cursor: Cursor, password: str) -> None:
    """Create the role, or give it another password; `migrate` lets it read.

    Parameters
    ----------
    cursor
        Of a role that may create roles.
    """
    role = sql.Identifier(GRAFANA)
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (GRAFANA,))
    verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
    cursor.execute(
        sql.SQL("{} ROLE {} LOGIN CONNECTION LIMIT 20 PASSWORD {}").format(
            verb, role, sql.Literal(password)
        )
    )
    for setting, value in (
        ("default_transaction_read_only", "on"),
        ("statement_timeout", STATEMENT_TIMEOUT),
    ):
        cursor.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(
                role, sql.Identifier(setting), sql.Literal(value)
            )
        )


def grant_reading(cursor: Cursor) -> None:
    """Let the role, where there is one, read what dashboards draw.

    Parameters
    ----------
    cursor
        Of the role that owns the tables, all of which exist.
    """
    cursor.execute(GRANTS.read_text(encoding="utf-8"))
