"""A Spark job that starts in seconds and does as its `--config` says."""

import json
import os
import subprocess
import sys
import time

from pyspark.sql import SparkSession, functions

from flead.analysis.progress import reporting


def wait(batches):
    """Keep a Python worker busy."""
    time.sleep(config["wait"])
    yield from batches


def refuse(batches):
    """Fail in a Python worker."""
    raise ValueError("no such feature: voltage")
    yield from batches


config = json.loads(sys.argv[sys.argv.index("--config") + 1])
if config.get("fail") == "driver":
    raise ValueError("no such model: 7")
if config.get("show_database"):
    sys.stdout.write(f"database {os.environ['FLEAD_DATABASE_URL']}\n")
if config.get("show_command"):
    arguments = ["ps", "-o", "args=", "-p", str(os.getppid())]
    sys.stdout.write(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
spark = SparkSession.builder.appName("tiny analysis").getOrCreate()
with reporting(spark, seconds=0.2):
    rows = spark.range(1000, numPartitions=2)
    if config.get("fail") == "worker":
        rows = rows.mapInArrow(refuse, rows.schema)
    if config.get("wait"):
        rows = rows.mapInArrow(wait, rows.schema)
    total = rows.agg(functions.sum("id")).collect()[0][0]
    sys.stdout.write(f"total {total}\n")
spark.stop()
