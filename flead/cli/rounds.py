"""Commands for aggregation rounds: list, replay."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.stack import Json
from flead.stack.home import Home

if TYPE_CHECKING:
    from rich.table import Table

    from flead.stack.rounds import ListedRound, ReplayReport

rounds = typer.Typer(no_args_is_help=True, help="Aggregation rounds: list, replay.")
app = typer.Typer()
app.add_typer(rounds, name="rounds", rich_help_panel="Data")


@rounds.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Rounds, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List rounds with what became of each: updates accepted and rejected, the version it made.

    Prints a table, the newest first: updates that the round read, how many were averaged or
    rejected, the version that it made and the one that it promoted; with --json rejected ones by
    their reasons.

    Example: `flead rounds list --limit 5`
    """
    import msgspec
    from rich.console import Console

    from flead.stack.rounds import list_rounds

    found = list_rounds(Home.from_environment(), limit)
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif found.rounds:
        Console().print(_table(found.rounds))
    else:
        sys.stdout.write("no round was opened yet\n")


@rounds.command()
def replay(
    number: Annotated[int, typer.Argument(min=1, metavar="ROUND", help="A round.")],
    *,
    json: Json = False,
) -> None:
    """Recompute a round from its stored updates and its parent, and compare it with what it made.

    Ends with 0 only when every byte is the same; a round that made no version, or of which
    something is past its retention, cannot be compared.

    Prints the version, its bytes and its SHA-256, or both hashes where they differ.

    Example: `flead rounds replay 7`
    """
    import msgspec

    from flead.stack.rounds import replay_round

    report = replay_round(Home.from_environment(), number)
    said = msgspec.json.encode(report).decode() if json else summary(report)
    sys.stdout.write(f"{said}\n")
    if not report.identical:
        raise typer.Exit(1)


def summary(report: "ReplayReport") -> str:
    """Say what the replay has come to."""
    if report.identical is None:
        return f"not comparable: {report.reason}"
    if report.identical:
        return (
            f"round {report.round} gives version {report.version} again: {report.bytes:,} bytes,"
            f" SHA-256 {report.sha256}"
        )
    return (
        f"round {report.round} does not give version {report.version} again:\n"
        f"SHA-256 {report.sha256}\ninstead of {report.stored_sha256}"
    )


def _table(found: "list[ListedRound]") -> "Table":
    """Draw rounds; each line fits a terminal of 80 columns."""
    from rich import box
    from rich.table import Table

    table = Table(
        "round", "state", "updates", "accepted", "rejected", "version", "promoted", "opened",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in (table.columns[0], *table.columns[2:7]):
        column.justify = "right"
    for each in found:
        table.add_row(
            str(each.round),
            each.state,
            f"{each.updates:,}",
            "" if each.accepted is None else f"{each.accepted:,}",
            "" if each.rejected is None else f"{sum(each.rejected.values()):,}",
            str(each.version or ""),
            str(each.promoted_version or ""),
            f"{each.opened_at:%m-%d %H:%M:%S}",
        )
    return table
