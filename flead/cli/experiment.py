"""The command that tries the system's learning on CSV files, without servers."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flead.cli.stack import Json
from flead.cli.strategies import StrategyName, StrategyOptions, strategy_of
from flead.contracts.messages import Hyperparameters

if TYPE_CHECKING:
    from flead.offline.figures import Figures
    from flead.offline.results import ExperimentResult, PartResult

app = typer.Typer()

DEFAULTS = Hyperparameters()
SHOWN_DEVICES = 10
COLUMNS = ("accuracy", "precision", "recall", "f1", "roc_auc", "log_loss")
MODELS = {
    "global_model": "global",
    "local": "local",
    "local_only": "local only",
    "centralised": "centralised",
    "majority": "majority",
    "zscore": "z-score rule",
}
LEARNED = ("global_model", "local", "local_only", "centralised")


@app.command(rich_help_panel="Data")
def experiment(
    *,
    data: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder that holds the CSV files.")
    ],
    spec: Annotated[
        Path, typer.Option(help="How they become rows: a YAML file; see specs/dasia.yaml.")
    ],
    split: Annotated[
        str, typer.Option(help="Share of each device's rows, in its time, that comes first.")
    ] = "temporal:0.7",
    strategy: StrategyName = "fedavg",
    strategy_option: StrategyOptions = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Draws the rows for the centralised baseline where they are too many to fit at "
            "once; nothing else is random.",
        ),
    ] = 0,
    order: Annotated[
        str | None,
        typer.Option(
            help="`time`, or `aligned`: each device's clock starts at its first row (default: "
            "aligned where the spec has a file for each device)."
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Step size of the gradient descent.")
    ] = DEFAULTS.learning_rate,
    alpha: Annotated[float, typer.Option(help="L2 penalty.")] = DEFAULTS.alpha,
    window_rows: Annotated[
        int, typer.Option(help="Rows after which a device trains and sends an update.")
    ] = DEFAULTS.window_rows,
    local_epochs: Annotated[
        int, typer.Option(help="Passes over each window.")
    ] = DEFAULTS.local_epochs,
    ditto_pull: Annotated[
        float, typer.Option(help="Pull of the personalized models to the global one.")
    ] = DEFAULTS.ditto_pull,
    round_updates: Annotated[
        int | None,
        typer.Option(min=1, help="Updates of a round (default: one of each device)."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the prequential curves to this file (png, svg, pdf).")
    ] = None,
    json: Json = False,
) -> None:
    """Try federated learning on your own CSV files, without any server.

    Runs the very code of the training job and of the rounds over the rows, and compares it with
    baselines on the same rows: each device alone, scikit-learn on all data in one place, the more
    frequent class, and the z-score rule.

    **prequential**: the whole stream; each row is scored before anything is trained on it.

    **holdout**: trained on the first part of each device, then frozen, and scored on the rest.

    `global` is the federation's model, `local` each device's personalized one. Labels are
    used where there are any; rows without one are trained by the z-score rule and count in no
    accuracy.

    Prints a table of each part, a line a model, and F1 of the devices with most rows.

    Example: `flead experiment --data DIR --spec specs/dasia.yaml --plot curves.png`
    """
    import msgspec

    from flead.cli.progress import work_progress
    from flead.contracts.dataspec import load_data_spec
    from flead.datasets.reading import read_dataset
    from flead.offline.experiment import ExperimentOptions, run_experiment
    from flead.offline.playing import split_share

    aggregation = strategy_of(strategy, strategy_option)
    try:
        split_share(split)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    given = {
        "split": split,
        "order": order,
        "strategy": strategy,
        "strategy_options": msgspec.to_builtins(aggregation.options),
        "seed": seed,
        "round_updates": round_updates,
        "hyperparameters": {
            "learning_rate": learning_rate,
            "alpha": alpha,
            "window_rows": window_rows,
            "local_epochs": local_epochs,
            "ditto_pull": ditto_pull,
        },
    }
    options = msgspec.convert(given, ExperimentOptions)
    started = time.monotonic()
    with work_progress() as progress:
        progress("reading", 0.0)
        dataset = read_dataset(data, load_data_spec(spec))
        progress("reading", 1.0)
        done = run_experiment(dataset, options, progress)
    for line in dataset.unreadable.lines():
        sys.stderr.write(f"{line}\n")
    if plot is not None:
        from flead.offline.plotting import plot_experiment

        plot_experiment(done, plot)
    sys.stderr.write(f"done in {time.monotonic() - started:.0f} s\n")
    if json:
        sys.stdout.write(msgspec.json.encode(done.result).decode() + "\n")
    else:
        show(done.result)


def show(result: "ExperimentResult") -> None:
    """Print a table of each part, and the F1 of the devices with most rows."""
    from rich.console import Console

    console = Console(highlight=False)
    data = result.data
    labelled = "no row has a label"
    if data.anomaly_rate is not None:
        labelled = f"{data.rows_labelled:,} labelled, {data.anomaly_rate:.1%} anomalous"
    console.print(f"{data.name}: {data.rows:,} rows of {data.devices:,} devices, {labelled}")
    console.print(f"{result.versions:,} global models of {result.round_updates:,} updates each")
    parts = {
        "prequential: all rows, each scored before its training": result.prequential,
        f"holdout: {result.split}, frozen models on the rest": result.holdout,
    }
    for title, part in parts.items():
        _show_part(console, title, part)


def _show_part(console: Any, title: str, part: "PartResult") -> None:
    """Print the figures of the fleet, and F1 of the devices with most rows."""
    fleet: dict[str, Figures] = {label: getattr(part, name) for name, label in MODELS.items()}
    shown = list(COLUMNS) if part.local.rows_labelled else []
    if part.local.agreement_with_zscore is not None:
        shown.append("agreement_with_zscore")
    _print_table(
        console,
        title,
        ["model", *(column.replace("_", " ") for column in shown)],
        {label: [getattr(figures, column) for column in shown] for label, figures in fleet.items()},
    )
    if not part.local.rows_labelled:
        return
    largest = sorted(part.devices, key=lambda name: -part.devices[name].local.rows)
    _print_table(
        console,
        "F1 of each device" if len(largest) <= SHOWN_DEVICES else "F1 of the largest devices",
        ["device", *(MODELS[name] for name in LEARNED)],
        {
            device: [getattr(part.devices[device], name).f1 for name in LEARNED]
            for device in largest[:SHOWN_DEVICES]
        },
    )


def _print_table(
    console: Any, title: str, columns: list[str], rows: dict[str, list[float | None]]
) -> None:
    from rich import box
    from rich.table import Table

    console.print(f"\n[bold]{title}[/bold]", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for name, cells in rows.items():
        table.add_row(name, *("" if cell is None else f"{cell:.3f}" for cell in cells))
    console.print(table)
