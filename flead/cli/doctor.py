"""The command that says what is wrong, and what to do about it."""

import sys
from typing import TYPE_CHECKING

import typer

from flead.cli.stack import PANEL, Json

if TYPE_CHECKING:
    from flead.stack.doctor import Diagnosis

app = typer.Typer()
MARKS = {"ok": "[green]✓[/green]", "note": "[dim]·[/dim]", "wrong": "[red]✗[/red]"}


@app.command(rich_help_panel=PANEL)
def doctor(json: Json = False) -> None:
    """Examine machine, installation, home, settings and servers, and say how to mend each fault.

    Looks at memory, disk, ports, versions, Python environments, jars (by their hashes), who may
    enter and read the folders, variables and servers; changes nothing, and needs nothing to run.

    Prints a line for each finding: ✓ is well, · is worth knowing, ✗ is wrong, with what to do below
    it. Ends with 0 only when nothing is wrong.

    Example: `flead doctor --json | jq '.findings[] | select(.verdict == "wrong")'`
    """
    import msgspec

    from flead.stack.doctor import diagnose
    from flead.stack.home import Home

    diagnosis = diagnose(Home.from_environment())
    if json:
        sys.stdout.write(msgspec.json.encode(diagnosis).decode() + "\n")
    else:
        show(diagnosis)
    if not diagnosis.is_well:
        raise typer.Exit(1)


def show(diagnosis: "Diagnosis") -> None:
    """Print the findings by area, and how many are wrong."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    area = ""
    for each in diagnosis.findings:
        if each.area != area:
            console.print(f"[bold]{each.area}[/bold]")
            area = each.area
        mark = MARKS[each.verdict]
        console.print(f"{mark} {escape(each.subject)}: {escape(each.said)}", soft_wrap=True)
        if each.fix is not None:
            console.print(f"  → {escape(each.fix)}", soft_wrap=True)
    wrong = sum(each.verdict == "wrong" for each in diagnosis.findings)
    console.print("nothing is wrong" if not wrong else f"{wrong} wrong")
