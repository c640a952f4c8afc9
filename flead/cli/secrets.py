"""The command that makes the secrets of the containers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flead.cli.stack import Json
from flead.stack.home import CHECKOUT, Home

app = typer.Typer()


@app.command(rich_help_panel="A stack of containers")
def secrets(
    *,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the files go (default: secrets in FLEAD_HOME)."),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="What Compose reads beside its file (default: .env in the checkout)."),
    ] = None,
    json: Json = False,
) -> None:
    """Make the passwords and keys that `docker compose` gives to its containers.

    Each is a file that only you can read, in a folder that git ignores; what exists is kept, so
    that a second run changes nothing. To choose a password yourself, or to change one, write it
    into its file and run this again, then `docker compose up --detach --force-recreate`.

    Two lines of .env say where the files are and which account the containers run as: yours, for
    no other can read them. Made by root, they belong to the account 10001 of the images.

    Prints where they are and how many were written, never a secret; with --json the folder, the
    names of the files, which were written now, and the account.

    Example: `flead secrets`, then `docker compose up --detach --wait`
    """
    import msgspec

    from flead.stack.secret_files import write_secret_files

    home = Home.from_environment()
    made = write_secret_files(
        (folder or home.root / "secrets").absolute(), (env_file or CHECKOUT / ".env").absolute()
    )
    if json:
        sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
        return
    count = f"{len(made.written)} of {len(made.files)} written" if made.written else "unchanged"
    sys.stdout.write(
        f"{made.folder}: {count}\n"
        f"{made.env_file}: containers run as account {made.user}\n"
        f"Airflow's login is admin, its password in {made.folder}/airflow_admin\n"
    )
