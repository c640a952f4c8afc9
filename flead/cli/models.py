"""Commands for global models: list, show, diff, rollback."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.stack import Json
from flead.stack.home import Home

if TYPE_CHECKING:
    import msgspec
    from rich.table import Table

    from flead.storage.catalog import ListedModel

models = typer.Typer(no_args_is_help=True, help="Global models: list, show, compare, go back.")
app = typer.Typer()
app.add_typer(models, name="models", rich_help_panel="Data")

Version = Annotated[int, typer.Argument(min=1, help="A version.")]
SHOWN_WEIGHTS = 20


@models.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Versions, the newest first.")] = 20,
    json: Json = False,
) -> None:
    """List versions with what became of each: figures are what devices measured.

    Prints a table, the newest first: accuracy and log loss over `rows` labelled rows, measured
    before training on them; empty until there are any. The head of a feature list, which its
    devices use, has a star.

    Example: `flead models list --limit 5`
    """
    from rich.console import Console

    from flead.stack.models import list_models

    found = list_models(Home.from_environment(), limit)
    if json:
        _write(found)
    elif found.models:
        Console().print(_table(found.models))
    else:
        sys.stdout.write("no version was made yet\n")


@models.command()
def show(version: Version, *, json: Json = False) -> None:
    """Show a version: figures, what was decided on it and why, weights by input.

    Prints the version's line of `flead models list`, each decision with its evidence, the artifact
    with its hash, and the 20 largest weights; with --json all of them.

    Example: `flead models show 7`
    """
    from rich.console import Console
    from rich.table import Table

    from flead.stack.models import show_model

    found = show_model(Home.from_environment(), version)
    if json:
        _write(found)
        return
    console = Console(highlight=False)
    console.print(_table([found.model]))
    for made in found.decisions:
        evidence = ""
        if made.mean_difference is not None:
            evidence = (
                f": {made.mean_difference:+.4f} nats on {made.rows:,} rows of"
                f" {made.devices:,} devices"
            )
        console.print(f"{made.decision} by {made.decided_by}: {made.reason}{evidence}")
    console.print(f"{found.artifact_path}\nSHA-256 {found.artifact_sha256}", soft_wrap=True)
    table = Table("input", "weight", box=None)
    table.columns[1].justify = "right"
    for weight in sorted(found.weights, key=lambda each: -abs(each.weight))[:SHOWN_WEIGHTS]:
        table.add_row(weight.input, f"{weight.weight:+.4f}")
    console.print(table)


@models.command()
def diff(before: Version, after: Version, *, json: Json = False) -> None:
    """Compare two versions weight by weight, the largest change first.

    Prints both versions' figures, distance and cosine of their weights, and the 20 weights that
    have changed most; with --json all of them.

    Example: `flead models diff 6 7`
    """
    from rich.console import Console
    from rich.table import Table

    from flead.stack.models import compare_models

    found = compare_models(Home.from_environment(), before, after)
    if json:
        _write(found)
        return
    console = Console(highlight=False)
    console.print(_table([found.after, found.before]))
    cosine = "" if found.cosine is None else f", cosine {found.cosine:.4f}"
    console.print(f"distance {found.distance:.4f}{cosine}")
    table = Table("input", str(before), str(after), "change", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in found.weights[:SHOWN_WEIGHTS]:
        table.add_row(
            each.input, f"{each.before:+.4f}", f"{each.after:+.4f}", f"{each.change:+.4f}"
        )
    console.print(table)


@models.command()
def rollback(
    version: Annotated[
        int | None,
        typer.Argument(min=1, help="A promoted version; the parent of the head when left out."),
    ] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is stored.")] = "asked for",
    json: Json = False,
) -> None:
    """Go back to an earlier version: its weights become the newest version, through Airflow.

    What came after it is taken back, and updates that are based on that are rejected. Runs the DAG
    `rollback_model` and waits for it; ends with 1 when it fails.

    Prints the new version, whose weights it carries, and what was taken back.

    Example: `flead models rollback 5 --reason "learned a broken sensor"`
    """
    from flead.cli.progress import say
    from flead.stack.models import roll_back

    done = roll_back(Home.from_environment(), version, reason, say)
    if json:
        _write(done)
        return
    taken = ", ".join(map(str, done.rolled_back_versions))
    sys.stdout.write(
        f"version {done.version} carries the weights of {done.restored_version};"
        f" taken back: {taken}\n"
    )


def _write(found: "msgspec.Struct") -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def _table(found: "list[ListedModel]") -> "Table":
    """Draw versions; each line fits a terminal of 80 columns."""
    from rich import box
    from rich.table import Table

    table = Table(
        "version", "status", "parent", "devices", "accuracy", "log loss", "rows",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in (table.columns[0], *table.columns[2:]):
        column.justify = "right"
    for model in found:
        parent = str(model.parent_version or "")
        if model.restored_version is not None:
            parent = f"restores {model.restored_version}"
        table.add_row(
            f"{'* ' if model.is_head else ''}{model.version}",
            model.status,
            parent,
            f"{model.devices:,}",
            "" if model.global_accuracy is None else f"{model.global_accuracy:.4f}",
            "" if model.global_loss is None else f"{model.global_loss:.4f}",
            f"{model.rows:,}",
        )
    return table
