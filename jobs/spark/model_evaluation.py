"""The evaluation job: score the rows of a planned evaluation by all its versions, in one pass."""

import argparse
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import msgspec
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everywhere in Spark

from flead.analysis.evaluation import (
    DEVICES,
    FLEET,
    Scoring,
    evaluate_devices,
    fleet_roc_auc,
)
from flead.analysis.preparing import prepare
from flead.analysis.progress import reporting
from flead.analysis.recording import record
from flead.analysis.telemetry import ROWS, decode_messages
from flead.contracts.analysis import ModelEvaluation
from flead.contracts.topics import Topic
from flead.storage.evaluations import EvaluationRun


def read_rows(spark: SparkSession, kafka: Mapping[str, str], run: EvaluationRun) -> DataFrame:
    """Read the valid rows from the warm-up's beginning to the window's end."""
    offsets = {
        "startingOffsets": run.warm_up_offsets,
        "endingOffsets": run.end_offsets,
    }
    # Not subscribed to: the topic may have got more partitions since the plan.
    partitions = {Topic.TELEMETRY.value: list(run.start_offsets)}
    source = spark.read.format("kafka").option("assign", json.dumps(partitions))
    # Markers of transactions take offsets without being rows, so that is no loss of data.
    source = source.option("kafka.isolation.level", "read_committed")
    for name, value in kafka.items():
        source = source.option(f"kafka.{name}", value)
    for name, by_partition in offsets.items():
        source = source.option(name, json.dumps({Topic.TELEMETRY.value: dict(by_partition)}))
    messages = source.load().select("key", "value", "partition", "offset", "timestamp")
    return messages.mapInArrow(lambda batches: map(decode_messages, batches), spark_schema(ROWS))


def evaluate(
    rows: DataFrame, scoring: Scoring, buckets: int
) -> tuple[pa.Table, dict[int, float | None]]:
    """Score rows, and return sums of each device and version, and the fleet's AUC of each version.

    The rows are read once.
    """
    spark = rows.sparkSession
    # A bucket is a task: of the 200 that are the default, most would start for nothing.
    spark.conf.set("spark.sql.shuffle.partitions", buckets)
    shared = spark.sparkContext.broadcast(scoring)

    def of_bucket(table: pa.Table) -> pa.Table:
        return evaluate_devices(table, shared.value)

    found = (
        rows.groupBy(F.crc32("device_id") % buckets)
        .applyInArrow(of_bucket, spark_schema(DEVICES))
        .persist()
    )
    devices = found.drop("log_odds", "positive").toArrow()
    areas = (
        found.select("model_version", "log_odds", "positive")
        .groupBy("model_version")
        .applyInArrow(fleet_roc_auc, spark_schema(FLEET))
        .toArrow()
    )
    found.unpersist()
    return devices, dict(zip(*(areas[name].to_pylist() for name in FLEET.names), strict=True))


def spark_schema(schema: pa.Schema) -> Any:
    """Return an Arrow schema as Spark's."""
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - needs a session

    return from_arrow_schema(schema)


def main() -> None:
    """Load, read, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="ModelEvaluation as JSON")
    config = msgspec.json.decode(parser.parse_args().config, type=ModelEvaluation)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    database_url = os.environ["FLEAD_DATABASE_URL"]
    prepared = prepare(database_url, config)
    spark = SparkSession.builder.appName("model_evaluation").getOrCreate()
    with reporting(spark):
        rows = read_rows(spark, config.kafka, prepared.run)
        devices, areas = evaluate(rows, prepared.scoring, config.buckets)
        record(database_url, prepared.run, devices, areas, prepared.not_scored)
    spark.stop()


if __name__ == "__main__":
    main()
