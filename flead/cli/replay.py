"""The command that streams a data set through the running stack."""

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
    json: Json = False,
) -> None:
    """Stream CSV files into the running stack, and train on their features.

    When the training job that runs has other features, or none runs, one with those of the data
    spec is deployed first, through Airflow: it starts fresh, with a lineage of models of its own,
    and the job before it is stopped with a savepoint. Rows are sent in order of their time, which
    is their `event_time`; Kafka's timestamps are those of sending, so that retention deletes
    nothing of an old set. Ends with 1 when it was stopped before all rows were sent.
    """
    factor = speed_factor(speed)
    import msgspec

    from flead.contracts.dataspec import load_data_spec
    from flead.datasets.reading import read_dataset
    from flead.fleet.replay import replayed
    from flead.fleet.streaming import Stream
    from flead.stack.addresses import Addresses
    from flead.stack.home import Home
    from flead.stack.training import train_on

    def say(line: str) -> None:
        typer.echo(f"· {line}", err=True)

    dataset = read_dataset(data, load_data_spec(spec))
    for line in dataset.unreadable.lines():
        typer.echo(line, err=True)
    span = (dataset.event_time[-1] - dataset.event_time[0]) / 1000.0
    say(
        f"{dataset.spec.name}: {len(dataset):,} rows of {len(dataset.devices):,} devices over "
        f"{duration(span)}"
    )
    addresses = Addresses.of(Home.from_environment())
    train_on(addresses, list(dataset.spec.features), say)

    def show(sent: "Sent") -> None:
        rate = sent.rows / max(sent.seconds, 1e-9)
        done = sent.rows / len(dataset)
        left = duration((len(dataset) - sent.rows) / rate) if rate else "unknown"
        sys.stderr.write(f"\r{sent.rows:>12,} rows  {done:4.0%}  {rate:>9,.0f}/s  {left} left    ")
        sys.stderr.flush()

    stream = Stream({"bootstrap.servers": addresses.kafka_bootstrap}, factor, show)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stream.stop())
    try:
        sent = stream.run(replayed(dataset))
    finally:
        sys.stderr.write("\n")
    if json:
        result = {
            "name": dataset.spec.name,
            "devices": len(dataset.devices),
            "rows": sent.rows,
            "unreadable": dataset.unreadable.rows,
            "seconds": round(sent.seconds, 3),
        }
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    if sent.rows < len(dataset):
        sys.stderr.write("flead: stopped before all rows were sent\n")
        raise typer.Exit(1)
