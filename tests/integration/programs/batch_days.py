"""Analyse days in one Spark session: each line of the first pipe is [database URL, config]."""

import json
import sys
from pathlib import Path

import msgspec
from pyspark.sql import SparkSession

from flead.analysis.batch import analyse_day
from flead.contracts.analysis import BatchAnalysis

spark = SparkSession.builder.appName("batch_days").getOrCreate()
with Path(sys.argv[1]).open() as requests, Path(sys.argv[2]).open("w", buffering=1) as answers:
    for line in requests:
        database_url, config = json.loads(line)
        try:
            day = analyse_day(spark, msgspec.convert(config, BatchAnalysis), database_url)
            answers.write(json.dumps({"state": day.state, "rows": day.rows}) + "\n")
        except Exception as error:
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
