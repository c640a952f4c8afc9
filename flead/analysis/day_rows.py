"""The rows of a UTC day, and those before them that their inputs depend on, as Spark reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as Spark's own documentation names it

from flead.analysis.archive import day_files, day_folder, days
from flead.analysis.telemetry import decode_messages
from flead.contracts.schema import ROLLING_ROWS
from flead.contracts.topics import Topic

ROWS_DDL: Final = (
    "device_id string, kafka_partition int, kafka_offset long, kafka_timestamp timestamp,"
    " event_time timestamp, label tinyint, attack_type string, features map<string, double>"
)
LOOK_BACK_DAYS: Final = 7
"""How far back the rows before a day are looked for, where a device has had few since."""

BLOCK_OFFSETS: Final = 20_000
"""Step in which the offset is found from which on a device's last rows are read."""

_PLACE: Final = ["device_id", "kafka_partition"]


@dataclass(frozen=True)
class DayRows:
    """The rows of a day and the other rows that Kafka had with them; `read_from` says from where.

    `outside` is None when the rows are those of the archive.
    """

    read_from: str
    on_day: DataFrame
    outside: DataFrame | None


def read_day(
    spark: SparkSession, day: date, archive: str, kafka: Mapping[str, str], lateness: timedelta
) -> DayRows:
    """Read the day from its folder in the archive, or else from Kafka by send time.

    From Kafka, rows are found that were sent at most `lateness` before the day or after its end.
    """
    if day_files(archive, day):
        return DayRows("archive", _archived(spark, archive, day), None)
    start = datetime.combine(day, time(), UTC)
    sent = _sent(spark, kafka, start - lateness, start + timedelta(days=1) + lateness)
    rows = sent.persist(StorageLevel.MEMORY_AND_DISK)
    inside = (F.col("event_time") >= F.lit(start)) & (
        F.col("event_time") < F.lit(start + timedelta(days=1))
    )
    return DayRows("kafka", rows.where(inside), rows.where(~inside))


def places(rows: DataFrame) -> pa.Table:
    """Return rows, first and last offset of each device and partition.

    Returns
    -------
    With the columns `device_id`, `kafka_partition`, `rows`, `first_offset`, `last_offset`.
    """
    offset = F.col("kafka_offset")
    return (
        rows.groupBy(*_PLACE)
        .agg(
            F.count("*").alias("rows"),
            F.min(offset).alias("first_offset"),
            F.max(offset).alias("last_offset"),
        )
        .toArrow()
    )


def rows_before(
    spark: SparkSession, day: date, archive: str, read: DayRows, found: pa.Table
) -> DataFrame | None:
    """Return what lies before the rows of a day in the order of Kafka: at least what inputs need.

    That is rows of other days, of the next one too where a device's clock was ahead. Of each folder
    the last `ROLLING_ROWS` rows of a device before its first row of the day are taken, and all that
    came in between its rows of the day. Folders older than that of the day before are only read for
    devices that have fewer rows in the younger ones.

    Parameters
    ----------
    found
        What `places` returned for the day.
    """
    taken = [] if read.outside is None else [_until(spark, read.outside, found)]
    wanted = found
    for folder in _folders_around(archive, day):
        if not wanted.num_rows:
            break
        rows = _archived(spark, archive, folder)
        last = _last_rows(spark, rows, wanted)
        since = spark.createDataFrame(last.select([*_PLACE, "since", "last_offset"]))
        taken.append(
            rows.join(F.broadcast(since), _PLACE)
            .where("kafka_offset >= since AND kafka_offset < last_offset")
            .select(*rows.columns)
        )
        if folder < day:
            wanted = _with_too_few(wanted, last)
    if not taken:
        return None
    together, *others = taken
    for other in others:
        together = together.unionByName(other)
    return together


def _archived(spark: SparkSession, archive: str, day: date) -> DataFrame:
    # The glob leaves out files that are being written.
    reader = spark.read.schema(ROWS_DDL).option("pathGlobFilter", "[!_]*.parquet")
    return reader.parquet(day_folder(archive, day))


def _sent(
    spark: SparkSession, kafka: Mapping[str, str], start: datetime, end: datetime
) -> DataFrame:
    options: dict[str, Any] = {
        **{f"kafka.{name}": value for name, value in kafka.items()},
        "kafka.isolation.level": "read_committed",
        "subscribe": Topic.TELEMETRY.value,
        "startingTimestamp": int(start.timestamp() * 1000),
        "endingTimestamp": int(end.timestamp() * 1000),
        "startingOffsetsByTimestampStrategy": "latest",
    }
    messages = spark.read.format("kafka").options(**options).load()
    return messages.mapInArrow(lambda batches: map(decode_messages, batches), ROWS_DDL)


def _folders_around(archive: str, day: date) -> Iterator[date]:
    """Yield the day after a day, then those before it, the newest first, as far as there are."""
    known = set(days(archive))
    for number in (1, *range(-1, -LOOK_BACK_DAYS - 1, -1)):
        near = day + timedelta(days=number)
        if near in known and day_files(archive, near):
            yield near


def _until(spark: SparkSession, rows: DataFrame, found: pa.Table) -> DataFrame:
    last = spark.createDataFrame(found.select([*_PLACE, "last_offset"]))
    joined = rows.join(F.broadcast(last), _PLACE).where("kafka_offset < last_offset")
    return joined.select(*rows.columns)


def _last_rows(spark: SparkSession, rows: DataFrame, wanted: pa.Table) -> pa.Table:
    """Find the offset from which on a device has `ROLLING_ROWS` rows before its first of the day.

    Returns
    -------
    The columns of `wanted`, `since` (0 where there are fewer rows) and `before`, how many.
    """
    bounds = spark.createDataFrame(wanted.select([*_PLACE, "first_offset"]))
    blocks = (
        rows.select(*_PLACE, "kafka_offset")
        .join(F.broadcast(bounds), _PLACE)
        .where("kafka_offset < first_offset")
        .groupBy(*_PLACE, F.floor(F.col("kafka_offset") / BLOCK_OFFSETS).alias("block"))
        .agg(F.count("*").alias("rows"))
        .toArrow()
    )
    since: dict[tuple[str, int], int] = {}
    before: dict[tuple[str, int], int] = {}
    newest_first = blocks.sort_by([("block", "descending")]).to_pylist()
    for each in newest_first:
        place = each["device_id"], each["kafka_partition"]
        if before.get(place, 0) < ROLLING_ROWS:
            before[place] = before.get(place, 0) + each["rows"]
            since[place] = each["block"] * BLOCK_OFFSETS
    named = [tuple(each.values()) for each in wanted.select(_PLACE).to_pylist()]
    enough = [before.get(place, 0) >= ROLLING_ROWS for place in named]
    starts = [since[place] if done else 0 for place, done in zip(named, enough, strict=True)]
    return wanted.append_column("since", pa.array(starts, pa.int64())).append_column(
        "before", pa.array([before.get(place, 0) for place in named], pa.int64())
    )


def _with_too_few(wanted: pa.Table, last: pa.Table) -> pa.Table:
    return wanted.filter(pc.less(last["before"], ROLLING_ROWS))
