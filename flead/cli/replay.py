"""The command that streams a data set through the running stack."""

import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flead.cli.simulate import speed_factor
from flead.cli.stack import Json, duration

if TYPE_CHECKING:
    from flead.fleet.streaming import Sent

app = typer.Typer()


@app.command(rich_help_panel="Data")
def replay(
    *,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, help="Folder that holds the CSV files."
        ),
    ],
    spec: Annotated[
        Path, typer.Option(help="How they become rows: a YAML file; see specs/dasia.yaml.")
    ],
    speed: Annotated[
        str, typer.Option(help="Pace: 1x is that of the data's own time, 100x, or max.")
    ] = "1x",
    longest_silence: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds of the data's time without a row that are waited through at most "
            "(default: all of them).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Stream CSV files into the running stack, and train on their features.

    When the training job that runs has other features, or none runs, one with those of the data
    spec is deployed first, through Airflow: it starts fresh, with a lineage of models of its own,
    and the job before it is stopped with a savepoint, which stays. Rows are sent in order of their
    time, which is their `event_time`; Kafka's timestamps are those of sending, so that retention
    deletes nothing of an old set. Ends with 1 when it was stopped before all rows were sent.

    Prints rows, share, pace and time left on standard error; with --json at its end what was sent.

    Example: `flead replay DIR --spec specs/dasia.yaml --speed 100x`
    """
    factor = speed_factor(speed)
    import msgspec
    import numpy as np

    from flead.cli.progress import say
    from flead.contracts.dataspec import load_data_spec
    from flead.datasets.reading import read_dataset
    from flead.fleet.replay import due_seconds, replayed
    from flead.fleet.streaming import Stream
    from flead.stack.addresses import Addresses
    from flead.stack.demonstration import only_stream
    from flead.stack.home import Home
    from flead.stack.training import train_on

    dataset = read_dataset(data, load_data_spec(spec))
    for line in dataset.unreadable.lines():
        typer.echo(line, err=True)
    due = due_seconds(dataset.event_time, math.inf if longest_silence is None else longest_silence)
    say(
        f"{dataset.spec.name}: {len(dataset):,} rows of {len(dataset.devices):,} devices, "
        f"{duration(due[-1])} at their own pace, of which the longest time without a row takes "
        f"{duration(np.diff(due).max(initial=0.0))}"
    )
    home = Home.from_environment()
    addresses = Addresses.of(home)

    def show(sent: "Sent") -> None:
        rate = max(sent.rows, 1) / max(sent.seconds, 1e-9)
        done = sent.rows / len(dataset)
        # At the data's own pace; at that of the broker where this is behind, as `max` always is.
        paced = due[-1] / factor - sent.seconds
        left = paced if paced > 0 else (len(dataset) - sent.rows) / rate
        sys.stderr.write(
            f"\r{sent.rows:>12,} rows  {done:4.0%}  {rate:>9,.0f}/s  {duration(left)} left    "
        )
        sys.stderr.flush()

    stream = Stream({"bootstrap.servers": addresses.kafka_bootstrap}, factor, show)
    with only_stream(home):
        deployment = train_on(addresses, dataset.spec.features, say)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stream.stop())
        try:
            sent = stream.run(replayed(dataset, due))
        finally:
            sys.stderr.write("\n")
    if json:
        result = {
            "name": dataset.spec.name,
            "deployment_id": deployment.deployment_id,
            "feature_schema": deployment.feature_schema,
            "devices": len(dataset.devices),
            "rows": sent.rows,
            "unreadable": dataset.unreadable.rows,
            "seconds": round(sent.seconds, 3),
        }
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    if sent.rows < len(dataset):
        sys.stderr.write("flead: stopped before all rows were sent\n")
        raise typer.Exit(1)
