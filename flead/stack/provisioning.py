"""What a stack of containers needs before its servers are used: databases, roles, schema, topics.

`python -m flead.stack.provisioning` may run any number of times; a changed password is set anew.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from psycopg2 import sql

from flead.messaging.topics import create_topics
from flead.stack.postgres import create_databases
from flead.storage.connection import connect
from flead.storage.migrations import migrate

DATABASES = ("airflow", "flead")
READER = "grafana"
"""The role of dashboards: it reads FLEAD's tables, and nothing else."""


def provision(environ: Mapping[str, str]) -> None:
    """Bring database and brokers to the state that every other container expects.

    Parameters
    ----------
    environ : mapping
        `FLEAD_SECRETS` is the folder with the files `postgres_<role>`, `FLEAD_POSTGRES` the host
        and port of the server, `FLEAD_KAFKA` the brokers.
    """
    folder = Path(environ["FLEAD_SECRETS"])

    def password(role: str) -> str:
        return (folder / f"postgres_{role}").read_text(encoding="utf-8").removesuffix("\n")

    def url(role: str, secret: str, database: str) -> str:
        account = f"{role}:{quote(secret, safe='')}"
        return f"postgresql://{account}@{environ['FLEAD_POSTGRES']}/{database}"

    superuser = password("superuser")
    create_databases(
        url("postgres", superuser, "postgres"), {name: password(name) for name in DATABASES}
    )
    applied = migrate(url("flead", password("flead"), "flead"))
    _say(f"migrations: {', '.join(applied) or 'none was missing'}")
    allow_reading(url("postgres", superuser, "flead"), password(READER))
    created = create_topics({"bootstrap.servers": environ["FLEAD_KAFKA"]})
    _say(f"topics: {', '.join(created) or 'none was missing'}")


def allow_reading(superuser_url: str, password: str) -> None:
    """Make the role of dashboards, or give it another password; it cannot write.

    Parameters
    ----------
    superuser_url : str
        Of FLEAD's database.
    """
    names = {"reader": sql.Identifier(READER), "password": sql.Literal(password)}
    with connect(superuser_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (READER,))
        verb = sql.SQL("ALTER" if cursor.fetchone() is not None else "CREATE")
        for statement in (
            "{verb} ROLE {reader} LOGIN PASSWORD {password}",
            "ALTER ROLE {reader} SET default_transaction_read_only = on",
            # A panel that asks for too much must not hold the fleet's database up.
            "ALTER ROLE {reader} SET statement_timeout = '30s'",
            "GRANT USAGE ON SCHEMA public, flead_compat TO {reader}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE flead IN SCHEMA public"
            " GRANT SELECT ON TABLES TO {reader}",
        ):
            cursor.execute(sql.SQL(statement).format(verb=verb, **names))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    provision(os.environ)
