"""The daily batch: a day is read, analysed on Spark, and replaced in the database."""

import logging
from datetime import timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as Spark's own documentation names it

from flead.analysis.daily import KNOWN, DayAnalysis, NamedModel
from flead.analysis.day_rows import places, read_day, rows_before
from flead.contracts.analysis import BatchAnalysis
from flead.learning.fleet import PublishedModel
from flead.storage import analysis_days, batch_results, models
from flead.storage.analysis_days import AnalysedDay, Source
from flead.storage.connection import Cursor, connect

RESULTS_DDL: Final = (
    "device_id string, row_count long, rows_labelled long, first_event_time timestamp,"
    " last_event_time timestamp, scored_rows long, anomaly_count long,"
    " reference_anomaly_count long, zscore_anomaly_count long, feature_statistics string,"
    " drift double, feature_drift string"
)
BUCKET_ROWS: Final = 50_000
"""Rows of a bucket, about: what a Python worker holds at a time."""

MIN_BUCKETS: Final = 4

logger = logging.getLogger(__name__)


def analyse_day(spark: SparkSession, config: BatchAnalysis, database_url: str) -> AnalysedDay:
    """Analyse one UTC day and replace its results in one transaction.

    A day without rows is left without results. The same rows, models and earlier days give the
    same results again.

    Raises
    ------
    LookupError
        The day was not opened, or a version is not stored.
    pyspark.errors.PySparkException
        An archive file cannot be read; the message names it.
    """
    day = config.analysis_date
    with connect(database_url) as connection, connection.cursor() as cursor:
        opened = analysis_days.get(cursor, day)
        if opened is None:
            raise LookupError(f"{day} has no row in analysis_days: its analysis was never opened")
        analysis = DayAnalysis(
            model=_model(cursor, config.model_version),
            reference=_model(cursor, config.reference_model_version),
        )
    read = read_day(
        spark,
        day,
        config.archive_uri,
        config.kafka,
        timedelta(seconds=config.closing_lateness_seconds),
    )
    found = places(read.on_day)
    rows = int(pc.sum(found["rows"]).as_py() or 0)
    logger.info("%s: %s rows in the %s", day, rows, read.read_from)
    results = pa.table({})
    if rows:
        with connect(database_url) as connection, connection.cursor() as cursor:
            known = known_before(cursor, config, analysis, found)
        before = rows_before(spark, day, config.archive_uri, read, found)
        results = results_of(spark, analysis, read.on_day, before, known, rows)
    return _store(database_url, config, analysis, read.read_from, opened.late_rows, results)


def results_of(
    spark: SparkSession,
    analysis: DayAnalysis,
    on_day: DataFrame,
    before: DataFrame | None,
    known: pa.Table,
    rows: int,
) -> pa.Table:
    """Return the results of the day's devices, in order of their names, in one pass over the rows.

    Parameters
    ----------
    before
        Rows before the day's that their inputs depend on, if there are any.
    known
        What is known of the devices, with the columns `KNOWN`.
    rows
        How many there are on the day, which decides about the number of buckets.
    """
    every = on_day.withColumn("in_day", F.lit(True))
    if before is not None:
        every = every.unionByName(before.withColumn("in_day", F.lit(False)))
    buckets = max(MIN_BUCKETS, -(-rows // BUCKET_ROWS))
    of_bucket = F.crc32("device_id") % buckets
    sides = every.groupBy(of_bucket), spark.createDataFrame(known).groupBy(of_bucket)
    # Spark counts the parameters, and would take `self` for the key of the group.
    results = (
        sides[0]
        .cogroup(sides[1])
        .applyInArrow(lambda rows, devices: analysis(rows, devices), RESULTS_DDL)  # noqa: PLW0108
    )
    return results.toArrow().sort_by("device_id")


def known_before(
    cursor: Cursor, config: BatchAnalysis, analysis: DayAnalysis, found: pa.Table
) -> pa.Table:
    """Return what is known before the day of the devices that have rows on it, as `KNOWN`."""
    columns = ("device_id", "kafka_partition", "first_offset")
    first = list(zip(*(found[name].to_pylist() for name in columns), strict=True))
    models_of_day = [each.published for each in (analysis.model, analysis.reference) if each]
    newest = max((each.version for each in models_of_day), default=0)
    moments = {
        schema: batch_results.moments_before(cursor, schema, first, newest)
        for schema in sorted({each.feature_schema for each in models_of_day})
    }
    statistics = batch_results.statistics_before(
        cursor, config.analysis_date, config.reference_days
    )
    rows = [
        {
            "device_id": name,
            "moments": [
                (schema, stored[name]) for schema, stored in moments.items() if name in stored
            ],
            "days_before": statistics.get(name, []),
        }
        for name in sorted({device for device, _, _ in first})
    ]
    return pa.Table.from_pylist(rows, schema=KNOWN)


def _model(cursor: Cursor, version: int | None) -> NamedModel | None:
    if version is None:
        return None
    stored = models.models(cursor, [version]).get(version)
    if stored is None:
        raise LookupError(f"version {version} is not in federated_models")
    return NamedModel(stored.model.feature_names, PublishedModel.of(stored.model))


def _store(
    database_url: str,
    config: BatchAnalysis,
    analysis: DayAnalysis,
    read_from: str,
    late_rows: int,
    results: pa.Table,
) -> AnalysedDay:
    model = analysis.model
    shared: dict[str, Any] = {
        "model_version": config.model_version,
        "feature_schema": None if model is None else model.published.feature_schema,
        "reference_model_version": config.reference_model_version,
    }
    columns = [results[name].to_pylist() for name in batch_results.COLUMNS if results.num_rows]
    counted = int(pc.sum(results["row_count"]).as_py()) if results.num_rows else 0
    day = config.analysis_date
    with connect(database_url) as connection, connection.cursor() as cursor:
        batch_results.replace_day(cursor, day, shared, zip(*columns, strict=True))
        analysis_days.close_day(
            cursor,
            day,
            read_from=Source(read_from),
            rows=counted,
            devices=results.num_rows,
            late_rows=late_rows,
        )
        done = analysis_days.get(cursor, day)
    if done is None:
        raise LookupError(f"the row of {day} was removed from analysis_days meanwhile")
    logger.info("%s: %s, %s rows of %s devices", day, done.state, done.rows, done.devices)
    return done
