"""Analyse the telemetry as it comes: `stream_analysis.py --config JSON`.

The configuration is a `flead.contracts.analysis.StreamAnalysis`; the variable `FLEAD_DATABASE_URL`
holds the database's URL. Ends after its batch at SIGTERM, or when its row in `stream_deployments`
asks for it.
"""

import argparse
import logging
import os
import signal
import sys
import threading

import msgspec
from pyspark.sql import SparkSession

from flead.analysis.streaming import run
from flead.contracts.analysis import StreamAnalysis


def main() -> None:
    """Run until asked to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    configuration = msgspec.json.decode(parser.parse_args().config, type=StreamAnalysis)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("py4j").setLevel(logging.WARNING)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    spark = SparkSession.builder.appName("stream_analysis").getOrCreate()
    context = spark.sparkContext
    logging.info("application %s on %s", context.applicationId, context.master)
    run(spark, configuration, os.environ["FLEAD_DATABASE_URL"], stopping)
    spark.stop()


if __name__ == "__main__":
    main()
