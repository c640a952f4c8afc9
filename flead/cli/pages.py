"""The command that leads to the pages of the running stack."""

import os
import sys
import webbrowser
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.stack import PANEL, Json

if TYPE_CHECKING:
    from flead.stack.web_pages import WebPage, WebPages

app = typer.Typer()
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


class Page(StrEnum):
    """The pages by their names."""

    FLEET = "fleet"
    AIRFLOW = "airflow"
    DATA_DOCS = "data-docs"
    FLINK = "flink"
    SPARK = "spark"


@app.command("open", rich_help_panel=PANEL)
def open_(
    page: Annotated[Page | None, typer.Argument(help="The page; all are listed without.")] = None,
    *,
    json: Json = False,
) -> None:
    """Open a page of the running stack in the browser, or list all with the login.

    Without a browser on this machine (no display), the address is only printed: forward its port,
    as by `ssh -L`, for all servers listen on loopback. With --json nothing is opened, and the
    password is named by its file and key.

    Prints the address, whether its server runs, and the login. Ends with 1 when the server of the
    named page does not run.

    Example: `flead open fleet`
    """
    import msgspec

    from flead.stack.addresses import Addresses
    from flead.stack.home import Home
    from flead.stack.web_pages import web_pages

    home = Home.from_environment()
    found = web_pages(home)
    if page is not None:
        found = msgspec.structs.replace(
            found, pages=[each for each in found.pages if each.name == page]
        )
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        show(found, Addresses.of(home).airflow_password)
    if page is None:
        return
    [wanted] = found.pages
    if not wanted.is_running:
        sys.stderr.write(f"flead: {wanted.service} does not run: `flead up` starts it\n")
        raise typer.Exit(1)
    if not json:
        launch(wanted)


def launch(page: "WebPage") -> None:
    """Open a page in a browser with a window; one of the terminal would take that over."""
    if any(name in os.environ for name in DISPLAYS):
        webbrowser.open(page.url)


def show(found: "WebPages", password: str) -> None:
    """Print the pages as a table that fits a terminal of 80 columns, and the login below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(
        "page", "address", "shows", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.columns[1].no_wrap = True
    for each in found.pages:
        shows = each.shows if each.is_running else "[dim]its server does not run[/dim]"
        table.add_row(each.name, each.url, shows)
    console.print(table)
    if any(each.needs_login and each.is_running for each in found.pages):
        console.print(f"login {found.user}, password {password}", soft_wrap=True)
