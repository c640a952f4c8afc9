"""Analyse days in one Spark session: each line of standard input is [database URL, config]."""

import json
import os
import sys

import msgspec
from pyspark.sql import SparkSession

from flead.analysis.batch import analyse_day
from flead.contracts.analysis import BatchAnalysis

spark = SparkSession.builder.appName("batch_days").getOrCreate()
answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
for line in sys.stdin:
    database_url, config = json.loads(line)
    try:
        day = analyse_day(spark, msgspec.convert(config, BatchAnalysis), database_url)
        answers.write(json.dumps({"state": day.state, "rows": day.rows}) + "\n")
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
