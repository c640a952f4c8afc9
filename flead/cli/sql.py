"""The command that asks the database of the stack."""

from typing import Annotated

import typer

from flead.cli.stack import PANEL
from flead.stack.home import Home

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def sql(
    statement: Annotated[
        str | None, typer.Argument(help="A statement; without one psql asks for them.")
    ] = None,
) -> None:
    """Ask FLEAD's database with psql, and end with psql's exit status.

    The database is the embedded one, or that of FLEAD_DATABASE_URL.

    Prints what psql prints; docs/reference/tables.md has the tables and their columns.

    Example: `flead sql "SELECT version, status, global_loss FROM federated_models"`
    """
    from flead.stack.addresses import Addresses
    from flead.stack.postgres import run_psql

    home = Home.from_environment()
    raise typer.Exit(run_psql(home, Addresses.of(home).database_url, statement))
