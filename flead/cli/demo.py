"""The command that runs the main job from nothing."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.fleet_options import AnomalyRate, Devices, Rate, Seed
from flead.cli.simulate import rate_per_minute
from flead.cli.stack import Json, duration

if TYPE_CHECKING:
    from rich.console import Group

    from flead.stack.demonstration import Demonstration, DemonstrationOptions, Progress

app = typer.Typer()
SHOWN_VERSIONS = 12


@app.command(rich_help_panel="First steps")
def demo(
    *,
    devices: Devices = 2407,
    rate: Rate = "31000/min",
    anomaly_rate: AnomalyRate = 0.15,
    seed: Seed = 7,
    until_version: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many new global models.")
    ] = None,
    with_analysis: Annotated[
        bool,
        typer.Option(
            "--with-analysis",
            help="Analyse with Spark too: the stream, the day so far, each model; needs 3 GB more.",
        ),
    ] = False,
    until_decision: Annotated[
        bool,
        typer.Option(
            "--until-decision",
            help="Stop after evaluations were checked and a decision was taken on hyperparameters"
            " that parts of the fleet have tried.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to reach what it stops after.")
    ] = 1800.0,
    json: Json = False,
) -> None:
    """Run the main job: a fleet streams, Flink trains, Airflow aggregates round after round.

    Starts the stack, or what of it does not run, deploys the training job through Airflow, and
    shows what comes: rows, updates, and each global model with the accuracy and loss that devices
    measured before they trained on the rows. Without --until-version or --until-decision it goes on
    until Ctrl-C; with them, until every device of the fleet was heard of too. At its end it stops
    what it started, the training job with a savepoint; the data stays for the next time.

    Prints addresses and login, then a live table of the newest versions; with --json one object
    with what this run made, at its end.

    Example: `flead demo --devices 500 --until-version 3`
    """
    if json and until_version is None and not until_decision:
        raise typer.BadParameter(
            "--json needs --until-version or --until-decision: the object is printed at the end"
        )
    per_minute = rate_per_minute(rate)
    import msgspec

    from flead.cli.progress import stack_progress
    from flead.cli.stack import show_addresses
    from flead.stack.addresses import Addresses
    from flead.stack.decision import decision_settings, period_seconds, unreached
    from flead.stack.demonstration import Demonstration, DemonstrationOptions, only_stream
    from flead.stack.home import Home
    from flead.stack.lifecycle import give_back, running_services, running_variables, up
    from flead.stack.status import stack_status

    home = Home.from_environment()
    options = DemonstrationOptions(
        devices,
        rate,
        anomaly_rate,
        seed,
        until_version,
        timeout,
        with_analysis,
        until_decision,
        seconds_before_trials=period_seconds(devices, per_minute),
    )
    settings = decision_settings(devices, per_minute) if until_decision else {}
    settings |= {name: os.environ[name] for name in settings.keys() & os.environ.keys()}
    os.environ |= settings
    demonstration = Demonstration(
        home, Addresses.of(home), options, lambda: stack_status(home).total_memory_mb
    )
    last: Progress | None = None
    with interruptible(), only_stream(home):
        before = running_services(home)
        if before and (warning := unreached(settings, running_variables(home))):
            sys.stderr.write(f"{warning}\n")
        try:
            with stack_progress() as report:
                up(home, [], report, resume=False)
            if not json:
                show_addresses(home)
            last = follow(demonstration, as_json=json, options=options)
        except KeyboardInterrupt:
            sys.stderr.write("stopping\n")
        finally:
            with stack_progress() as report:
                give_back(home, before, demonstration.deployment_id, report)
    if last is None:
        raise typer.Exit(1 if options.has_end else 0)
    if json:
        sys.stdout.write(msgspec.json.encode(last).decode() + "\n")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end the demonstration as Ctrl-C does: cleanly."""

    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def follow(
    demonstration: "Demonstration", *, as_json: bool, options: "DemonstrationOptions"
) -> "Progress":
    """Show the progress of a demonstration and return the last that there was."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    before: Progress | None = None
    run = demonstration.run(lambda line: console.print(f"· {line}", soft_wrap=True))
    with closing(run), Live(console=console, auto_refresh=False) as live:
        for progress in run:
            if console.is_terminal and not as_json:
                live.update(render(progress, before, options), refresh=True)
            elif before is None or len(progress.versions) > len(before.versions):
                console.print(summary(progress, options), soft_wrap=True)
            before = progress
    if before is None:
        raise RuntimeError("a demonstration reports at least once")
    return before


def summary(progress: "Progress", options: "DemonstrationOptions") -> str:
    """Return one line for a log."""
    newest = progress.versions[-1].version if progress.versions else "none yet"
    more = "".join(f", {line}" for line in lines_of(progress, options))
    return (
        f"· {progress.seconds:.0f} s: {progress.rows:,} rows, {progress.local_updates:,} updates, "
        f"version {newest}, lag {progress.consumer_lag_rows_end:,} rows, "
        f"{progress.peak_memory_mb:,.0f} MB{more}"
    )


def lines_of(progress: "Progress", options: "DemonstrationOptions") -> list[str]:
    """Say what the analysis has written, of rows and of models, and what was decided on."""
    lines = []
    if options.with_analysis:
        lines += [
            f"{progress.stream_windows:,} windows, {progress.batch_rows:,} results of the day",
            f"{progress.evaluations:,} versions evaluated,"
            f" {progress.feedback_rows:,} predictions kept",
        ]
    if options.until_decision:
        lines.append(
            f"{progress.checked_evaluations:,} evaluations checked,"
            f" {progress.trial_updates:,} updates of trials,"
            f" {progress.tuning_decisions:,} decisions"
        )
    return lines


def render(
    progress: "Progress", before: "Progress | None", options: "DemonstrationOptions"
) -> "Group":
    """Draw the live table: what flows, and the newest versions with their measured figures."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    elapsed = progress.seconds - before.seconds if before else 0.0
    speed = (progress.rows - before.rows) / elapsed if before and elapsed else 0.0
    # Each line fits a terminal of 80 columns.
    flow = Text(
        f"{duration(progress.seconds)}  {progress.rows:,} rows, {speed:,.0f}/s, "
        f"{progress.consumer_lag_rows_end:,} not yet read\n"
        f"         {progress.local_updates:,} updates of {progress.devices:,} devices, "
        f"{progress.checkpoints_completed} checkpoints, {progress.peak_memory_mb:,.0f} MB"
    )
    flow.append("".join(f"\n         {line}" for line in lines_of(progress, options)))
    table = Table(
        "version", "updates", "devices", "accuracy", "log loss", "scored on", box=box.SIMPLE_HEAD
    )
    for column in table.columns:
        column.justify = "right"
    for made in progress.versions[-SHOWN_VERSIONS:]:
        table.add_row(
            str(made.version),
            f"{made.num_updates:,}",
            f"{made.num_devices:,}",
            "" if made.global_accuracy is None else f"{made.global_accuracy:.4f}",
            "" if made.global_loss is None else f"{made.global_loss:.4f}",
            f"{made.metrics_rows:,} rows" if made.metrics_rows else "not yet",
        )
    return Group(flow, table)
