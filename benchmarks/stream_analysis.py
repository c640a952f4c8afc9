"""The stream analysis over a topic that is full before it starts, against reading and decoding.

The baseline is the same messages through the same decoder in the same kind of Spark job, which only
counts them: what is left is the price of the archive, the scores, the windows, and exactly-once.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.training import BenchmarkError, _flead
from flead.contracts.analysis import StreamAnalysis
from flead.contracts.messages import GlobalModel, ModelStatus, Moments
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.messaging.topics import create_topics
from flead.settings import STREAM_SCRIPT
from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT, Home
from flead.stack.spark import prepare_spark, spark_environment, submission
from flead.storage import models, rounds
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel

FLEET_ROWS_PER_SECOND = 31_000 / 60
BASELINE_SCRIPT = CHECKOUT / "benchmarks" / "decoding_job.py"
DECODED = re.compile(r"decoded (\d+) rows in ([0-9.]+) s")

Say = Callable[[str], None]


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
    shared = Home.from_environment()
    home = Home(root=shared.root / "bench", envs=shared.envs, jars=shared.jars)
    with _servers(home, say) as addresses:
        create_topics({"bootstrap.servers": addresses.kafka_bootstrap})
        migrate(addresses.database_url)
        _promote_a_model(addresses)
        say(f"sending {options.rows:,} rows of {options.devices:,} devices")
        _flead(
            home, "simulate", "--devices", str(options.devices), "--speed", "max", "--rate",
            f"{13 * options.devices}/min", "--rows", str(options.rows), "--seed", "1",
        )  # fmt: skip
        say("decoding only")
        decoding = _decoding(home, addresses)
        say("stream analysis")
        return _measure(home, addresses, options, decoding)


@contextlib.contextmanager
def _servers(home: Home, say: Say) -> Iterator[Addresses]:
    say("starting a broker and a database")
    try:
        _flead(home, "up", "kafka", "postgres")
        yield Addresses.of(home, environ={})
    finally:
        _flead(home, "down", "--wipe")


def _promote_a_model(addresses: Addresses) -> None:
    """Make a model the head, so that every row is scored; its figures do not matter."""
    inputs = len(input_names(FEATURES))
    model = GlobalModel(
        version=1,
        parent_version=0,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=1,
        feature_schema=feature_schema(FEATURES),
        feature_names=list(FEATURES),
        weights=[0.1] * inputs,
        intercept=-1.0,
        standardizer=Moments([1000.0] * inputs, [0.0] * inputs, [1000.0] * inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=1,
        global_accuracy=None,
        global_loss=None,
        timestamp=0,
    )
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        rounds.open_round(
            cursor, 1, start_offsets={}, end_offsets={}, updates=0, dead_letters=0,
            dag_run_id="bench", now=datetime.now(UTC),
        )  # fmt: skip
        models.insert_model(cursor, StoredModel(model, {}, {}, 0, "", "0" * 64))
        models.advance_head(cursor, model.feature_schema, None, model.version)


def _decoding(home: Home, addresses: Addresses) -> float:
    said = _submit(home, BASELINE_SCRIPT, [addresses.kafka_bootstrap], addresses)
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
    _submit(
        home, STREAM_SCRIPT, ["--config", msgspec.json.encode(configuration).decode()], addresses
    )
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


def _submit(home: Home, script: Path, arguments: list[str], addresses: Addresses) -> str:
    prepare_spark(home)
    environment = os.environ | spark_environment(home)
    ran = subprocess.run(
        submission(home, script, arguments),
        env=environment | {"FLEAD_DATABASE_URL": addresses.database_url},
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise BenchmarkError(f"{script.name} failed: {(ran.stdout + ran.stderr)[-3000:]}")
    return ran.stdout
