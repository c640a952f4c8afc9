"""The stream analysis over a topic that is full before it starts, against reading and decoding.

The baseline is the same messages through the same decoder in the same kind of Spark job, which only
counts them: what is left is the price of the archive, the scores, the windows, and exactly-once.
"""

import re

import msgspec

from benchmarks.programs import run_job
from benchmarks.servers import BenchmarkError, Say, flead, own_home, running
from benchmarks.versions import promote
from flead.contracts.analysis import StreamAnalysis
from flead.messaging.topics import create_topics
from flead.settings import SPARK_SCRIPTS
from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT, Home
from flead.storage.connection import connect
from flead.storage.migrations import migrate

FLEET_ROWS_PER_SECOND = 31_000 / 60
BASELINE_SCRIPT = CHECKOUT / "benchmarks" / "decoding_job.py"
DECODED = re.compile(r"decoded (\d+) rows in ([0-9.]+) s")


class Options(msgspec.Struct, frozen=True):
    """What to measure."""

    rows: int = 1_000_000
    devices: int = 2_407
    max_rows: int = 200_000


class StreamResult(msgspec.Struct, frozen=True):
    """Figures of one run; the first batch, in which everything starts, is left out of `warm`."""

    rows: int
    devices: int
    max_rows: int
    seconds: float
    rows_per_second: float
    warm_rows_per_second: float | None
    times_the_fleet: float
    decoding_rows_per_second: float
    ratio_to_decoding: float
    windows: int
    anomalies: int
    batches: int


def run(options: Options, say: Say) -> StreamResult:
    """Start a broker and a database of their own, measure, and stop them.

    Raises
    ------
    BenchmarkError
        When a server does not start, or a job fails or loses a row.
    """
    home = own_home()
    say("starting a broker and a database")
    with running(home, "kafka", "postgres") as addresses:
        create_topics({"bootstrap.servers": addresses.kafka_bootstrap})
        migrate(addresses.database_url)
        # Every row is to be scored.
        promote(addresses.database_url, range(1, 2), {})
        say(f"sending {options.rows:,} rows of {options.devices:,} devices")
        flead(
            home, "simulate", "--devices", str(options.devices), "--speed", "max", "--rate",
            f"{13 * options.devices}/min", "--rows", str(options.rows), "--seed", "1",
        )  # fmt: skip
        say("decoding only")
        decoding = _decoding(home, addresses)
        say("stream analysis")
        return _measure(home, addresses, options, decoding)


def _decoding(home: Home, addresses: Addresses) -> float:
    arguments = [addresses.kafka_bootstrap]
    said = run_job(home, BASELINE_SCRIPT, arguments, addresses.database_url).output
    if not (found := DECODED.search(said)):
        raise BenchmarkError(f"the baseline said nothing: {said[-2000:]}")
    return int(found[1]) / float(found[2])


def _measure(home: Home, addresses: Addresses, options: Options, decoding: float) -> StreamResult:
    folder = home.data / "stream"
    configuration = StreamAnalysis(
        deployment_id="bench",
        kafka={"bootstrap.servers": addresses.kafka_bootstrap},
        checkpoint_uri=(folder / "checkpoint").as_uri(),
        state_uri=(folder / "state").as_uri(),
        archive_uri=(folder / "archive").as_uri(),
        max_rows=options.max_rows,
        until_end=True,
    )
    arguments = ["--config", msgspec.json.encode(configuration).decode()]
    run_job(home, SPARK_SCRIPTS / "stream_analysis.py", arguments, addresses.database_url)
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT rows, extract(epoch FROM opened_at)::float8,"
            " extract(epoch FROM committed_at)::float8"
            " FROM stream_analysis_batches WHERE state = 'committed' ORDER BY id"
        )
        batches = cursor.fetchall()
        cursor.execute(
            "SELECT (SELECT count(*) FROM stream_analysis_results),"
            " (SELECT count(*) FROM anomalies)"
        )
        [(windows, anomalies)] = cursor.fetchall()
    rows = sum(batch[0] for batch in batches)
    if rows != options.rows:
        raise BenchmarkError(f"{rows} of {options.rows} rows were analysed")
    seconds = batches[-1][2] - batches[0][1]
    warm = None
    if len(batches) > 1:
        warm = round((rows - batches[0][0]) / (batches[-1][2] - batches[0][2]))
    return StreamResult(
        rows=rows,
        devices=options.devices,
        max_rows=options.max_rows,
        seconds=round(seconds, 1),
        rows_per_second=round(rows / seconds),
        warm_rows_per_second=warm,
        times_the_fleet=round(rows / seconds / FLEET_ROWS_PER_SECOND, 1),
        decoding_rows_per_second=round(decoding),
        ratio_to_decoding=round(rows / seconds / decoding, 3),
        windows=windows,
        anomalies=anomalies,
        batches=len(batches),
    )
