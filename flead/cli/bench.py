"""`flead bench`: benchmarks, each with its baseline in the same run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flead.cli.stack import Json

app = typer.Typer(no_args_is_help=True)
bench = typer.Typer(no_args_is_help=True, help="Measure, with the baseline in the same run.")
app.add_typer(bench, name="bench")


@bench.callback()
def benchmarks() -> None:
    """Measure, with the baseline in the same run; servers of their own are started and stopped."""


@bench.command()
def training(
    rows: Annotated[int, typer.Option(min=100_000, help="Rows that are timed.")] = 2_000_000,
    warm_up_rows: Annotated[int, typer.Option(min=0, help="Rows before those timed.")] = 4_000_000,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = 2_407,
    buckets: Annotated[
        int | None, typer.Option(min=1, help="Buckets of the job's state (default: the job's).")
    ] = None,
    parallelism: Annotated[int, typer.Option(min=1, help="Parallelism of the job.")] = 2,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.5, help="Time between two checkpoints (default: as deployed for such a fleet)."
        ),
    ] = None,
    latency_seconds: Annotated[
        float, typer.Option(min=0, help="How long latency is measured; 0 leaves it out.")
    ] = 30.0,
    latency_rate: Annotated[
        float, typer.Option(min=1, help="Rows a second while latency is measured.")
    ] = 10_000.0,
    memory_mb: Annotated[int, typer.Option(min=1_024, help="Memory of the TaskManager.")] = 2_048,
    json: Json = False,
) -> None:
    """Throughput, latency and memory of the training job, against a plain consumer.

    The plain consumer runs the same learning on the same rows in one process, without state,
    checkpoints or transactions: the ratio, by CPU second, is what exactly-once on Flink costs.

    Prints a figure a line: rows a second and a CPU second of both, latency, memory, checkpoints.

    Example: `flead bench training --rows 500000 --warm-up-rows 500000`
    """
    from benchmarks.training import Options, run

    result = run(
        Options(
            rows=rows,
            warm_up_rows=warm_up_rows,
            devices=devices,
            buckets=buckets,
            parallelism=parallelism,
            checkpoint_interval_seconds=checkpoint_seconds,
            latency_seconds=latency_seconds,
            latency_rate=latency_rate,
            memory_mb=memory_mb,
        ),
        lambda line: typer.echo(line, err=True),
    )
    _show(result, json)


@bench.command("stream-analysis")
def stream_analysis(
    rows: Annotated[int, typer.Option(min=10_000, help="Rows of the topic.")] = 1_000_000,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = 2_407,
    max_rows: Annotated[int, typer.Option(min=1_000, help="Messages of a batch.")] = 200_000,
    json: Json = False,
) -> None:
    """Throughput of the stream analysis over a full topic, against decoding only.

    Prints a figure a line: rows a second of both, CPU seconds, memory.

    Example: `flead bench stream-analysis --rows 200000`
    """
    from benchmarks.stream_analysis import Options, run

    result = run(
        Options(rows=rows, devices=devices, max_rows=max_rows),
        lambda line: typer.echo(line, err=True),
    )
    _show(result, json)


@bench.command()
def batch(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the day.")] = 5_000_000,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = 2_407,
    seed: Annotated[int, typer.Option(help="Of the rows.")] = 1,
    json: Json = False,
) -> None:
    """Throughput and memory of the daily analysis on Spark, against Polars on the same files.

    Fails when the two do not agree.

    Prints a figure a line: seconds, CPU seconds, rows a second and memory of both.

    Example: `flead bench batch --rows 1000000`
    """
    from benchmarks.batch_analysis import Options, run

    result = run(
        Options(rows=rows, devices=devices, seed=seed), lambda line: typer.echo(line, err=True)
    )
    _show(result, json)


@bench.command()
def evaluation(
    rows: Annotated[int, typer.Option(min=10_000, help="Rows that are scored.")] = 1_000_000,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = 2_407,
    versions: Annotated[int, typer.Option(min=1, help="Due versions of the larger one.")] = 10,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the quickest counts.")] = 2,
    json: Json = False,
) -> None:
    """Time of an evaluation of many versions and their parents, against that of one version.

    Prints a figure a line: seconds with and without the session's start, CPU seconds, memory.

    Example: `flead bench evaluation --rows 200000 --versions 3`
    """
    from benchmarks.model_evaluation import Options, run

    result = run(
        Options(rows=rows, devices=devices, versions=versions, repeats=repeats),
        lambda line: typer.echo(line, err=True),
    )
    _show(result, json)


@bench.command()
def pages(
    repeats: Annotated[int, typer.Option(min=1, help="Times that each page is asked for.")] = 20,
    full_only: Annotated[
        bool, typer.Option("--full-only", help="Leave out the fleet of 240,700 devices.")
    ] = False,
    json: Json = False,
) -> None:
    """Time of each fleet page's queries after a month, of 2,407 and of 240,700 devices.

    The limits are 100 ms and 1 s at the 95th percentile. Filling the larger database takes
    minutes and 10 GB.

    Prints a line for each page of both databases: median and 95th percentile in milliseconds.

    Example: `flead bench pages --full-only --repeats 5`
    """
    from benchmarks.filled.fleet import FULL, LARGE
    from benchmarks.pages import Options, run

    sizes = (FULL,) if full_only else (FULL, LARGE)
    result = run(Options(sizes=sizes, repeats=repeats), lambda line: typer.echo(line, err=True))
    if json:
        _show(result, json)
        return
    for database in result.databases:
        typer.echo(f"{database.devices:,} devices, {database.days} days")
        for page in database.pages:
            typer.echo(
                f"  {page.page:<28} p50 {page.p50_ms:>8.1f} ms   p95 {page.p95_ms:>8.1f} ms"
                f"   {'' if page.is_within else f'beyond {database.limit_ms:g} ms'}"
            )


@bench.command("long-life")
def long_life(
    days: Annotated[int, typer.Option(min=1, help="Days of runs that are filled in.")] = 7,
    devices: Annotated[int, typer.Option(min=1, help="Devices of the fleet.")] = 2_407,
    scheduler_seconds: Annotated[
        float, typer.Option(min=10, help="How long the scheduler is watched.")
    ] = 120.0,
    json: Json = False,
) -> None:
    """Scheduler loop, grid page and queries after days of runs, against an empty database.

    Fails when a limit does not hold.

    Prints a figure a line, of the empty and of the filled database, and what was beyond its limit.

    Example: `flead bench long-life --days 1 --scheduler-seconds 30`
    """
    from benchmarks.long_life import Options, run

    result = run(
        Options(days=days, devices=devices, scheduler_seconds=scheduler_seconds),
        lambda line: typer.echo(line, err=True),
    )
    _show(result, json)
    if result.beyond:
        raise typer.Exit(1)


def _show(result: object, as_json: bool) -> None:
    import msgspec

    if as_json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        return
    for name, value in msgspec.to_builtins(result).items():
        sys.stdout.write(f"{name:<28} {value}\n")


@bench.command("closed-loop")
def closed_loop(
    plot: Annotated[
        Path | None, typer.Option(help="Draw F1 and log loss along the stream: png, svg, pdf.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare device feedback and tuning with the open loop, offline, on five fleets.

    Prints a figure a line: rows until a drift is made good, F1, log loss, bytes saved.

    Example: `flead bench closed-loop --plot closed-loop.png`
    """
    import msgspec

    from benchmarks.closed_loop import draw, run

    result = run(lambda line: typer.echo(line, err=True))
    if plot is not None:
        draw(result, plot)
    _show(result if json else msgspec.structs.replace(result, curves={}), json)
