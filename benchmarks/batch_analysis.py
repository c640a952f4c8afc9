"""The daily analysis of an archived day on Spark, against Polars on the same files.

Both count the same rows, anomalies and missing values, which must be equal, and make the same
statistics of each device and feature, which must be equal to rounding.
"""

import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from benchmarks.day_archive import write_day
from benchmarks.programs import Ran, run_job, run_program
from benchmarks.servers import BenchmarkError, Say, own_home, running
from benchmarks.versions import promote
from flead.analysis.archive import day_files, day_folder
from flead.analysis.day_plan import open_analysis
from flead.analysis.statistics import PERCENTS
from flead.settings import SPARK_SCRIPTS, Settings
from flead.stack.home import Home
from flead.storage.connection import connect
from flead.storage.migrations import migrate

DAY = date(2026, 3, 2)
VERSION = 1
FILES_OF_A_BATCH = 2
"""As many as the stream analysis writes by default."""

TOLERANCE = 1e-9
COUNTS = ("row_count", "rows_labelled", "anomaly_count", "zscore_anomaly_count")
FIGURES = ("count", "missing_share", "mean", "std", "quantiles")
COMPARED = (
    "rows, labels, anomalies by the model and by the z-score rule, and of each device and feature"
    " count, missing share, mean, deviation and 21 quantiles; no drift, which needs days before."
    " Spark counts anomalies of a reference model besides, and writes all of it to PostgreSQL"
)


class Options(msgspec.Struct, frozen=True):
    """What to measure."""

    rows: int = 5_000_000
    devices: int = 2_407
    seed: int = 1


class BatchResult(msgspec.Struct, frozen=True):
    """Figures of one run, of whole processes: `start_seconds` of Spark's `seconds` is its start.

    `ratio` is Spark's rows a second by those of Polars.
    """

    rows: int
    devices: int
    files: int
    archive_mb: float
    seconds: float
    start_seconds: float
    rows_per_second: float
    cpu_seconds: float
    peak_memory_mb: float
    polars_seconds: float
    polars_rows_per_second: float
    polars_cpu_seconds: float
    polars_peak_memory_mb: float
    ratio: float
    compared: str


def run(options: Options, say: Say) -> BatchResult:
    """Write a day, analyse it twice, compare.

    Raises
    ------
    BenchmarkError
        When the database does not start, an analysis fails, or the two do not agree.
    """
    home = own_home()
    with tempfile.TemporaryDirectory(prefix="flead-bench-") as temporary:
        folder = Path(temporary)
        archive = (folder / "archive").as_uri()
        say(f"archiving {options.rows:,} rows of {options.devices:,} devices")
        write_day(
            archive, DAY, rows=options.rows, devices=options.devices, seed=options.seed,
            buckets=FILES_OF_A_BATCH,
        )  # fmt: skip
        sizes = [Path(file).stat().st_size for file in day_files(archive, DAY)]
        say("Polars")
        polars = _polars(home, day_folder(archive, DAY), folder / "polars.parquet")
        say("starting a database")
        with running(home, "postgres") as addresses:
            migrate(addresses.database_url)
            promote(addresses.database_url, range(VERSION, VERSION + 1), {})
            say("Spark")
            spark = _spark(home, archive, addresses.database_url)
            devices = compare(_stored(addresses.database_url), folder / "polars.parquet")
    return BatchResult(
        rows=options.rows,
        devices=devices,
        files=len(sizes),
        archive_mb=round(sum(sizes) / 1e6, 1),
        seconds=round(spark.seconds, 1),
        start_seconds=round(spark.start_seconds, 1),
        rows_per_second=round(options.rows / spark.seconds),
        cpu_seconds=round(spark.cpu_seconds, 1),
        peak_memory_mb=round(spark.peak_memory_mb),
        polars_seconds=round(polars.seconds, 1),
        polars_rows_per_second=round(options.rows / polars.seconds),
        polars_cpu_seconds=round(polars.cpu_seconds, 1),
        polars_peak_memory_mb=round(polars.peak_memory_mb),
        ratio=round(polars.seconds / spark.seconds, 3),
        compared=COMPARED,
    )


def _polars(home: Home, day: str, results: Path) -> Ran:
    arguments = day.removeprefix("file://"), str(VERSION), str(results)
    return run_program([str(home.python("tools")), "-m", "benchmarks.polars_day", *arguments], {})


def _spark(home: Home, archive: str, database_url: str) -> Ran:
    config = open_analysis(database_url, {}, Settings(archive_uri=archive), DAY, datetime.now(UTC))
    arguments = ["--config", msgspec.json.encode(config).decode()]
    return run_job(home, SPARK_SCRIPTS / "batch_analysis.py", arguments, database_url)


def _stored(database_url: str) -> list[dict[str, Any]]:
    """Return the results that the job wrote, in order of the devices."""
    names = ("device_id", *COUNTS, "feature_statistics")
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(names)} FROM batch_analysis_results"  # noqa: S608 - constants
            ' WHERE analysis_date = %s ORDER BY device_id COLLATE "C"',
            (DAY,),
        )
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def compare(stored: list[dict[str, Any]], polars: Path) -> int:
    """Hold the results of the job against those of Polars; returns how many devices there are.

    Raises
    ------
    BenchmarkError
        Names the first device and figure that differ.
    """
    expected = pl.read_parquet(polars).to_dicts()
    if [each["device_id"] for each in stored] != [each["device_id"] for each in expected]:
        raise BenchmarkError(f"Spark has {len(stored)} devices, Polars {len(expected)} or others")
    for ours, theirs in zip(stored, expected, strict=True):
        flat = {name: ours[name] for name in COUNTS} | {
            f"{feature}_{figure}": statistics[figure]
            for feature, statistics in ours["feature_statistics"].items()
            for figure in FIGURES
        }
        for name, value in flat.items():
            if not _agree(value, theirs[name], exactly=name.endswith("count")):
                raise BenchmarkError(
                    f"{name} of {ours['device_id']} is {value} by Spark, {theirs[name]} by Polars"
                )
    return len(stored)


def _agree(ours: Any, theirs: Any, *, exactly: bool) -> bool:
    if exactly:
        return bool(ours == theirs)
    without = [value is None or value == [None] * len(PERCENTS) for value in (ours, theirs)]
    if any(without):
        return all(without)
    return bool(np.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE))
