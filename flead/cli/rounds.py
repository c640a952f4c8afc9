"""Commands for aggregation rounds: list, replay, try."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.stack import Json
from flead.cli.strategies import StrategyName, StrategyOptions, strategy_of
from flead.stack.home import Home

if TYPE_CHECKING:
    from rich.table import Table

    from flead.analysis.paired import LossDifference
    from flead.stack.rounds import ListedRound, ReplayReport
    from flead.stack.trying import TriedStrategy

rounds = typer.Typer(no_args_is_help=True, help="Aggregation rounds: list, replay, try.")
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

    Of a round that made no version, because it waited for a verdict or accepted no update, each
    update is judged again. Ends with 0 only when every byte, or every judgement, is the same; a
    round of which something is past its retention cannot be compared.

    Prints the version, its bytes and its SHA-256, or both hashes where they differ; or how many
    updates were judged again, and the first of those that come out otherwise.

    Example: `flead rounds replay 7`
    """
    import msgspec

    from flead.stack.rounds import replay_round

    report = replay_round(Home.from_environment(), number)
    said = msgspec.json.encode(report).decode() if json else summary(report)
    sys.stdout.write(f"{said}\n")
    if not report.identical:
        raise typer.Exit(1)


@rounds.command("try")
def try_(
    *,
    strategy: StrategyName = "fedavg",
    strategy_option: StrategyOptions = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds that made a version, the newest.")
    ] = 10,
    json: Json = False,
) -> None:
    """Aggregate stored rounds again by another strategy, and score both results on later rows.

    Each round goes on from the parent and the updates that it had. The rows are those with a label
    that devices sent after the training of its version and before that of the next, as Kafka has
    them: neither result has seen them. Nothing is stored or adopted.

    Prints the log loss of both for each round, and for all rounds the mean difference over devices
    with its 95 % interval and the p-value of the paired t-test; below zero, the strategy that was
    tried is better.

    Example: `flead rounds try --strategy fedtrimmedavg --strategy-option beta=0.1 --rounds 20`
    """
    import msgspec
    from rich.console import Console

    from flead.stack.trying import try_strategy

    tried = try_strategy(Home.from_environment(), strategy_of(strategy, strategy_option), rounds)
    if json:
        sys.stdout.write(msgspec.json.encode(tried).decode() + "\n")
        return
    Console().print(_tried_table(tried))
    for each in tried.rounds:
        if each.reason is not None:
            sys.stdout.write(f"round {each.round} is not compared: {each.reason}\n")
    sys.stdout.write(verdict(tried.difference) + "\n")


def summary(report: "ReplayReport") -> str:
    """Say what the replay has come to."""
    if report.identical is None:
        return f"not comparable: {report.reason}"
    if report.judged is not None:
        if report.identical:
            return (
                f"round {report.round} made no version, and judges its {report.judged:,} updates"
                " again as it did"
            )
        return f"round {report.round} made no version, and: {report.reason}"
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


def verdict(found: "LossDifference") -> str:
    """Say what all rounds together have come to."""
    said = (
        f"{found.rows:,} rows of {found.devices:,} devices: mean difference over devices"
        f" {found.mean_difference:+.5f} nats a row"
    )
    if found.confidence_interval is None or found.p_value is None:
        return f"{said}, the same for each: no test"
    low, high = found.confidence_interval
    return f"{said}, 95 % interval {low:+.5f} to {high:+.5f}, p = {found.p_value:.2g}"


def _tried_table(tried: "TriedStrategy") -> "Table":
    """Draw what each round was scored with, a line each."""
    from rich import box
    from rich.table import Table

    table = Table(
        "round", "version", "made by", "rows", "devices", "log loss", tried.strategy,
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in (*table.columns[:2], *table.columns[3:]):
        column.justify = "right"
    for each in tried.rounds:
        if (found := each.difference) is not None:
            table.add_row(
                str(each.round), str(each.version), each.strategy, f"{found.rows:,}",
                f"{found.devices:,}", f"{found.reference_log_loss:.4f}", f"{found.log_loss:.4f}",
            )  # fmt: skip
    return table
