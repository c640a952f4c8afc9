"""Spark job: analyse one UTC day of rows; `--config` is a `BatchAnalysis` as JSON."""

import argparse
import logging
import os
import sys

import msgspec
from pyspark.sql import SparkSession

from flead.analysis.batch import analyse_day
from flead.analysis.progress import reporting
from flead.contracts.analysis import BatchAnalysis


def main() -> None:
    """Read the configuration and analyse the day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    config = msgspec.json.decode(parser.parse_args().config, type=BatchAnalysis)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    spark = SparkSession.builder.appName("batch_analysis").getOrCreate()
    with reporting(spark):
        analyse_day(spark, config, os.environ["FLEAD_DATABASE_URL"])
    spark.stop()


if __name__ == "__main__":
    main()
