"""What a stack of containers needs before its servers are used: databases, roles, schema, topics.

`python -m flead.stack.provisioning` may run any number of times; a changed password is set anew.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from flead.messaging.topics import create_topics
from flead.stack.postgres import create_databases
from flead.storage.migrations import migrate
from flead.storage.roles import GRAFANA

DATABASES = ("airflow", "flead")


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

    create_databases(
        url("postgres", password("superuser"), "postgres"),
        {name: password(name) for name in DATABASES},
        password(GRAFANA),
    )
    applied = migrate(url("flead", password("flead"), "flead"))
    _say(f"migrations: {', '.join(applied) or 'none was missing'}")
    created = create_topics({"bootstrap.servers": environ["FLEAD_KAFKA"]})
    _say(f"topics: {', '.join(created) or 'none was missing'}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    provision(os.environ)
