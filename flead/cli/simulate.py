"""The command that streams a simulated fleet into Kafka."""

import contextlib
import re
import signal
import sys
import time
from typing import Annotated

import typer

from flead.cli.fleet_options import AnomalyRate, Devices, Rate, Seed
from flead.cli.stack import Json

app = typer.Typer()

RATE = re.compile(r"(?P<rows>\d+(\.\d+)?)/(?P<unit>s|min|h)")
PER_MINUTE = {"s": 60.0, "min": 1.0, "h": 1 / 60}


def rate_per_minute(text: str) -> float:
    """Read a rate such as `31000/min`, `500/s` or `90/h`.

    Raises
    ------
    typer.BadParameter
        When it is no positive number of rows in a unit of time.
    """
    match = RATE.fullmatch(text)
    rate = float(match["rows"]) * PER_MINUTE[match["unit"]] if match else 0.0
    if rate <= 0:
        raise typer.BadParameter(f"{text!r} is no rate: write 31000/min, 500/s or 90/h")
    return rate


def speed_factor(text: str) -> float:
    """Read a speed such as `1x`, `100x`, or `max`, which is infinite.

    Raises
    ------
    typer.BadParameter
        When it is neither `max` nor a positive multiple.
    """
    if text == "max":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if not match or float(match[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is no speed: write 1x, 100x or max")
    return float(match[1])


@app.command(rich_help_panel="Data")
def simulate(
    *,
    devices: Devices = 2407,
    rate: Rate = "31000/min",
    anomaly_rate: AnomalyRate = 0.15,
    seed: Seed = 7,
    drift_at: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds after the start when some devices change for good."),
    ] = None,
    malformed_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the messages that are broken.")
    ] = 0.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds of the fleet's time.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages.")] = None,
    speed: Annotated[str, typer.Option(help="Pace: 1x is real time, 100x, or max.")] = "1x",
    start_ms: Annotated[
        int | None,
        typer.Option(min=0, help="Event time of the start, ms since the epoch (default: now)."),
    ] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Kafka brokers (default: the embedded one).")
    ] = None,
    json: Json = False,
) -> None:
    """Stream the telemetry of a simulated fleet into Kafka until Ctrl-C.

    Pumps, motors, environment sensors and gateways, each device with its own scale, daily rhythm
    and noise; spikes, drifts, flat lines and scans are labelled. A training job of the embedded
    stack that has other features is replaced first, by one with those of the fleet. Rows wait for a
    broker that goes away, up to ten minutes. Ends with 1 when messages were refused, or when it was
    stopped before what --duration or --rows asked for.

    Prints a counter of messages on standard error; with --json at its end what was sent.

    Example: `flead simulate --devices 200 --rate 5000/min --duration 600`
    """
    per_minute, factor = rate_per_minute(rate), speed_factor(speed)
    import msgspec
    import psycopg2

    from flead.contracts.simulation import FEATURES
    from flead.fleet.simulator import Simulator
    from flead.fleet.streaming import Sent, Stream, limit
    from flead.messaging.topics import create_topics
    from flead.stack.addresses import Addresses
    from flead.stack.home import Home
    from flead.stack.training import replace_other

    simulator = Simulator(
        devices,
        per_minute,
        anomaly_rate,
        seed,
        start_ms=time.time_ns() // 1_000_000 if start_ms is None else start_ms,
        drift_at_seconds=drift_at,
        malformed_rate=malformed_rate,
    )
    servers = bootstrap_servers
    if servers is None:
        addresses = Addresses.of(Home.from_environment())
        servers = addresses.kafka_bootstrap
        with contextlib.suppress(psycopg2.OperationalError):
            # Without the embedded database there is no deployment that could have other features.
            replace_other(addresses, list(FEATURES), lambda line: typer.echo(f"· {line}", err=True))
    properties = {"bootstrap.servers": servers}

    def show(sent: Sent) -> None:
        total = sent.rows + sent.malformed
        sys.stderr.write(
            f"\r{total:>12,} messages  {total / max(sent.seconds, 1e-9):>9,.0f}/s"
            f"  {sent.malformed:,} malformed"
        )
        sys.stderr.flush()

    stream = Stream(properties, factor, show)
    stopped_by: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        stream.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        create_topics(properties)
        sent = stream.run(limit(simulator.batches(), rows, duration))
    finally:
        sys.stderr.write("\n")
    if json:
        sys.stdout.write(msgspec.json.encode(sent).decode() + "\n")
    if stopped_by and (rows is not None or duration is not None):
        sys.stderr.write("flead: stopped before all that was asked for was sent\n")
        raise typer.Exit(1)
