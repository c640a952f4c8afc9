"""The baseline of the stream analysis: decode the telemetry in Spark and count the valid rows.

decoding_job.py BOOTSTRAP_SERVERS
"""

import sys
import time
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from flead.analysis.telemetry import decode_messages
from flead.contracts.topics import Topic


def _count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows = sum(decode_messages(each).num_rows for each in batches)
    yield pa.RecordBatch.from_pydict({"rows": [rows]})


def main() -> None:
    """Read the topic once from its beginning to its end."""
    spark = SparkSession.builder.appName("decoding").getOrCreate()
    began = time.monotonic()
    messages = (
        spark.read.format("kafka")
        .option("kafka.bootstrap.servers", sys.argv[1])
        .option("subscribe", Topic.TELEMETRY.value)
        .load()
        .select("key", "value", "partition", "offset", "timestamp")
    )
    rows = sum(row["rows"] for row in messages.mapInArrow(_count, "rows long").collect())
    print(f"decoded {rows} rows in {time.monotonic() - began:.3f} s")
    spark.stop()


if __name__ == "__main__":
    main()
