"""Write the pages to a folder: `python -m reference docs/reference`.

The page of tables needs a PostgreSQL, which is started for it in a home of its own; that of DAGs is
made by Airflow's environment.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flead.settings import PREFIX
from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT, Home
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from reference.commands import commands_page
from reference.settings import settings_page
from reference.tables import tables_page
from reference.topics import topics_page


def main(folder: Path) -> None:
    """Write every page to `folder`."""
    home = Home.from_environment()
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "topics": topics_page(),
        "settings": settings_page(),
        "commands": commands_page(),
        "dags": from_airflow(home),
        "tables": from_database(home),
    }
    for name, content in pages.items():
        (folder / f"{name}.md").write_text(content, encoding="utf-8")


def from_airflow(home: Home) -> str:
    """Return the page of DAGs."""
    with tempfile.TemporaryDirectory() as airflow_home:
        # Defaults of Params come from settings: those of whoever writes the page are none of ours.
        inherited = {name: os.environ[name] for name in os.environ if not name.startswith(PREFIX)}
        settings = {
            "AIRFLOW_HOME": airflow_home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }
        written = subprocess.run(
            [home.python("airflow"), "-m", "reference.dags"],
            cwd=CHECKOUT,
            env=inherited | settings,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return written.stdout


def from_database(home: Home) -> str:
    """Return the page of tables."""
    with migrated_database(home) as url, connect(url) as connection, connection.cursor() as cursor:
        return tables_page(cursor)


@contextmanager
def migrated_database(home: Home) -> Iterator[str]:
    """Give the URL of a PostgreSQL with FLEAD's tables, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="flead-reference-") as root:
        # PostgreSQL, which does not run as root, must be able to pass through it.
        Path(root).chmod(0o711)
        own = Home(root=Path(root), envs=home.envs, jars=home.jars)
        run = (home.python("tools"), "-m", "flead.cli")
        environment = os.environ | own.variables
        try:
            subprocess.run([*run, "up", "postgres"], env=environment, check=True)
            url = Addresses.of(own, environ={}).database_url
            migrate(url)
            yield url
        finally:
            subprocess.run([*run, "down", "--wipe"], env=environment, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
