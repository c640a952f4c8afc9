"""What benchmarks stand on: archives like the stream's, and baselines that say the same."""

import importlib
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import long_life, pages
from benchmarks.batch_analysis import COUNTS, DAY, compare
from benchmarks.day_archive import write_day
from benchmarks.polars_day import analyse
from benchmarks.servers import BenchmarkError
from benchmarks.versions import model_of
from flead.analysis.archive import day_files, days
from flead.analysis.daily import KNOWN, DayAnalysis, NamedModel
from flead.learning.fleet import PublishedModel
from flead.stack.home import CHECKOUT
from flead.storage import queries

IN_SPARK = {"decoding_job"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    uri = tmp_path_factory.mktemp("archive").as_uri()
    write_day(uri, DAY, rows=40_000, devices=120, seed=3, buckets=2)
    return uri


@pytest.fixture(scope="module")
def analysed(archive):
    """Analyse the day by the code of the Spark job, without Spark."""
    model = model_of(1)
    rows = pa.concat_tables([pq.read_table(file) for file in day_files(archive, DAY)])
    rows = rows.append_column("in_day", pa.array([True] * rows.num_rows))
    named = NamedModel(model.feature_names, PublishedModel.of(model))
    results = DayAnalysis(named, named)(rows, KNOWN.empty_table()).to_pylist()
    return [
        {name: each[name] for name in ("device_id", *COUNTS)}
        | {"feature_statistics": json.loads(each["feature_statistics"])}
        for each in results
    ]


@pytest.fixture(scope="module")
def by_polars(archive, tmp_path_factory):
    file = tmp_path_factory.mktemp("polars") / "results.parquet"
    folder = Path(day_files(archive, DAY)[0]).parent
    analyse(folder, model_of(1)).write_parquet(file)
    return file


@pytest.mark.parametrize(
    "name",
    sorted(
        each.stem
        for each in (CHECKOUT / "benchmarks").glob("[!_]*.py")
        if each.stem not in IN_SPARK
    ),
)
def test_a_benchmark_finds_what_it_measures(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_an_archived_day_has_its_rows_in_order_and_no_other_day(archive):
    rows = pl.concat(pl.read_parquet(file) for file in day_files(archive, DAY))

    assert days(archive) == [DAY]
    assert len(rows) == 40_000
    positions = rows.sort("kafka_partition", "kafka_offset").group_by("kafka_partition")
    for _, partition in positions:
        assert partition["kafka_offset"].to_list() == list(range(len(partition)))
        assert partition["event_time"].is_sorted()
    assert rows["event_time"].dt.hour().n_unique() == 24


def test_the_baseline_of_the_daily_analysis_gives_the_same_figures(analysed, by_polars):
    assert compare(analysed, by_polars) == 120
    assert sum(each["anomaly_count"] for each in analysed) > 0
    assert sum(each["zscore_anomaly_count"] for each in analysed) > 0


@pytest.mark.parametrize(
    ("figure", "change"), [("count", 1), ("mean", 1e-6), ("missing_share", 1e-6)]
)
def test_the_baseline_refuses_another_figure(analysed, by_polars, figure, change):
    device = analysed[-1]
    statistics = device["feature_statistics"]
    wrong = {**statistics["temperature"], figure: statistics["temperature"][figure] + change}
    other = {**device, "feature_statistics": statistics | {"temperature": wrong}}

    with pytest.raises(BenchmarkError, match=f"temperature_{figure} of {device['device_id']}"):
        compare([*analysed[:-1], other], by_polars)


def test_every_query_of_the_pages_is_measured():
    place = pages.Place("pump-1", datetime.now(UTC), datetime.now(UTC), "run", "bad-run")
    measured = {query for case in pages.cases().values() for query, _ in case(place)}

    assert measured == {file.stem for file in queries.DIRECTORY.glob("*.sql")}


def phase(*, loop_ms, loop_cpu_ms, page_ms, query_ms):
    return long_life.Phase(
        long_life.Scheduler(100, loop_ms, loop_ms, loop_cpu_ms), {"page": page_ms}, {"q": query_ms}
    )


def test_a_long_life_within_its_limits_has_nothing_to_say():
    empty = phase(loop_ms=900, loop_cpu_ms=10, page_ms=2_000, query_ms=500)
    filled = phase(loop_ms=999, loop_cpu_ms=14.9, page_ms=999, query_ms=99)

    assert long_life.beyond_limits(empty, filled, long_life.Limits()) == []


def test_a_long_life_names_each_limit_that_does_not_hold():
    empty = phase(loop_ms=20, loop_cpu_ms=10, page_ms=50, query_ms=1)
    filled = phase(loop_ms=1_200, loop_cpu_ms=20, page_ms=1_500, query_ms=150)

    assert long_life.beyond_limits(empty, filled, long_life.Limits()) == [
        "scheduler loop, 95 %, ms: 1200, not 1000",
        "scheduler loop, growth: 2, not 1.5",
        "page: 1500, not 1000",
        "q: 150, not 100",
    ]
