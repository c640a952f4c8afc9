"""The stream's arithmetic: windows, late rows, and the history that batches hand on."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from flead.analysis import archive
from flead.analysis.daily import KNOWN, DayAnalysis, NamedModel
from flead.analysis.scoring import inputs_of
from flead.analysis.stream_bucket import Scorer, analyse
from flead.analysis.streaming import StreamAnalyser, StreamError
from flead.analysis.tails import TAIL, HistoryLostError, bucket_of, read_tail
from flead.analysis.telemetry import ROWS, batch_of
from flead.contracts.analysis import StreamAnalysis
from flead.contracts.schema import feature_schema
from flead.learning.fleet import PublishedModel
from flead.learning.scoring import probability
from flead.learning.zscore import z_scores

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FEATURES = ["heat"]
NOTHING = Scorer(FEATURES, None, {})


@pytest.fixture
def configuration(tmp_path):
    return StreamAnalysis(
        deployment_id="unit",
        kafka={},
        checkpoint_uri=(tmp_path / "checkpoint").as_uri(),
        state_uri=(tmp_path / "state").as_uri(),
        archive_uri=(tmp_path / "archive").as_uri(),
    )


def rows_of(*rows, first_offset=0):
    """Make rows, given as (device, second, heat, label), each sent an hour after its time."""
    times = [START + timedelta(seconds=second) for _, second, _, _ in rows]
    return pa.table(
        [
            [device for device, *_ in rows],
            np.zeros(len(rows), np.int32),
            np.arange(first_offset, first_offset + len(rows)),
            [time + timedelta(hours=1) for time in times],
            times,
            pa.array([label for *_, label in rows], pa.int8()),
            pa.nulls(len(rows), pa.string()),
            pa.array([[("heat", heat)] for *_, heat, _ in rows], ROWS.field("features").type),
        ],
        schema=ROWS,
    )


def sums_of(outcome, seconds):
    """Return row counts by device and second of the start, for one length of windows."""
    return {
        (row["device_id"], int((row["window_start"] - START).total_seconds())): row["row_count"]
        for row in outcome.windows.to_pylist()
        if row["window_seconds"] == seconds
    }


def test_rows_are_counted_in_the_windows_of_their_time(configuration):
    rows = rows_of(("a", 0, 1.0, 1), ("a", 29.999, 1.0, 0), ("a", 30, 1.0, 0), ("b", 299, 1.0, 0))

    outcome = analyse(rows, TAIL.empty_table(), NOTHING, configuration)

    assert sums_of(outcome, 30) == {("a", 0): 2, ("a", 30): 1, ("b", 270): 1}
    assert sums_of(outcome, 300) == {("a", 0): 3, ("b", 0): 1}


def test_without_a_model_nothing_is_scored(configuration):
    outcome = analyse(rows_of(("a", 0, 1.0, 1)), TAIL.empty_table(), NOTHING, configuration)

    [window, _] = outcome.windows.to_pylist()
    assert (window["scored_rows"], window["rows_labelled"], window["correct"]) == (0, 0, 0)
    assert (window["anomaly_count"], window["zscore_anomaly_count"]) == (None, 0)
    assert outcome.samples["probability"].to_pylist() == [None]


def test_a_row_is_late_only_behind_its_own_device_in_earlier_batches(configuration):
    first = analyse(
        rows_of(("a", 100, 1.0, None), ("a", 10, 1.0, None)),
        TAIL.empty_table(),
        NOTHING,
        configuration,
    )
    second = analyse(
        rows_of(("a", 40, 1.0, None), ("a", 39, 1.0, None), ("b", 0, 1.0, None)),
        first.tail,
        NOTHING,
        configuration,
    )

    assert (first.late_rows, second.late_rows) == (0, 1)
    assert sums_of(second, 30) == {("a", 30): 1, ("b", 0): 1}


def test_a_clock_that_runs_ahead_makes_no_later_row_late(configuration):
    ahead = rows_of(("a", 0, 1.0, None))
    year = pa.array([START + timedelta(days=365)], ROWS.field("event_time").type)
    ahead = ahead.set_column(4, ROWS.field("event_time"), year)

    first = analyse(ahead, TAIL.empty_table(), NOTHING, configuration)
    second = analyse(rows_of(("a", 3_590, 1.0, None)), first.tail, NOTHING, configuration)

    assert second.late_rows == 0


def test_inputs_and_probabilities_are_those_of_the_whole_history(configuration):
    random = np.random.default_rng(3)
    rows = rows_of(*[(f"d{n % 3}", n, float(random.normal()), 1) for n in range(900)])
    model = PublishedModel(1, "schema", random.normal(size=5), np.ones((3, 4)) * 50.0)
    scorer = Scorer(FEATURES, model, {})

    whole = analyse(rows, TAIL.empty_table(), scorer, configuration)
    tail, parts = TAIL.empty_table(), []
    for begin in range(0, 900, 90):
        part = analyse(rows.slice(begin, 90), tail, scorer, configuration)
        tail = part.tail
        parts.append(part)

    expected = whole.anomalies.sort_by("kafka_offset")
    found = pa.concat_tables([part.anomalies for part in parts]).sort_by("kafka_offset")
    assert found["kafka_offset"] == expected["kafka_offset"]
    np.testing.assert_allclose(found["z_score"], expected["z_score"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["probability"], expected["probability"], rtol=0, atol=1e-9)
    batch, _ = batch_of(rows, FEATURES)
    far = np.abs(z_scores(inputs_of(batch))[:, 0]) > 2.5
    assert found["kafka_offset"].to_pylist() == batch.offset[far].tolist()
    assert tail.num_rows == 300


def test_a_tail_keeps_the_last_hundred_rows_of_the_list_and_of_others(configuration):
    mine = rows_of(*[("a", n, 1.0, None) for n in range(150)])
    other = pa.array([[("else", 1.0)]] * 150, ROWS.field("features").type)
    others = rows_of(*[("a", n, 1.0, None) for n in range(150)], first_offset=150)
    rows = pa.concat_tables([mine, others.set_column(7, ROWS.field("features"), other)])

    tail = analyse(rows, TAIL.empty_table(), NOTHING, configuration).tail

    assert tail["kafka_offset"].to_pylist() == [*range(50, 150), *range(200, 300)]


def test_a_device_that_is_silent_for_long_is_forgotten(configuration):
    short = msgspec.structs.replace(configuration, device_ttl_days=1.0)
    first = analyse(rows_of(("a", 0, 1.0, None)), TAIL.empty_table(), NOTHING, short)

    second = analyse(rows_of(("b", 86_401, 1.0, None)), first.tail, NOTHING, short)

    assert second.tail["device_id"].to_pylist() == ["b"]


def test_history_is_found_again_with_another_number_of_buckets(configuration):
    names = [f"d{number}" for number in range(20)]
    folder = f"{configuration.state_uri}/tails"
    rows = rows_of(*[(name, 0, 1.0, None) for name in names])
    tail = analyse(rows, TAIL.empty_table(), NOTHING, configuration).tail
    archive.write_file(folder, "one", tail)
    tails = {"buckets": 1, "files": {"0": "one"}}

    parts = [read_tail(folder, tails, bucket, 3, may_lack=False) for bucket in range(3)]

    for bucket, part in enumerate(parts):
        expected = [name for name in names if bucket_of(name, 3) == bucket]
        assert part["device_id"].to_pylist() == expected


def test_lost_history_is_an_error_that_names_the_file(configuration):
    tails = {"buckets": 1, "files": {"0": "gone.parquet"}}

    with pytest.raises(HistoryLostError, match=r"tails/gone\.parquet"):
        read_tail(f"{configuration.state_uri}/tails", tails, 0, 1, may_lack=False)
    lost = read_tail(f"{configuration.state_uri}/tails", tails, 0, 1, may_lack=True)
    assert lost.num_rows == 0


def test_a_batch_writes_a_file_a_day_and_writes_it_again(configuration):
    rows = rows_of(("a", 0, 1.0, None), ("a", 43_200, 2.0, 1))
    uri = configuration.archive_uri

    for _ in range(2):
        counts = archive.write_rows(uri, "query-7", 0, rows)

    assert counts == {date(2026, 3, 1): 1, date(2026, 3, 2): 1}
    assert archive.days(uri) == [date(2026, 3, 1), date(2026, 3, 2)]
    [path] = archive.day_files(uri, date(2026, 3, 1))
    assert path.endswith("/day=2026-03-01/query-7-0.parquet")
    assert archive.remove_writer(uri, "query") == 0
    assert archive.remove_writer(uri, "query-7") == 2


def test_the_archive_expires_by_the_age_of_its_files(configuration):
    uri = configuration.archive_uri
    archive.write_rows(uri, "query-0", 0, rows_of(("a", 0, 1.0, None)))
    now = datetime.now(UTC)

    assert archive.expire(uri, now, timedelta(days=1)) == 0
    assert archive.expire(uri, now + timedelta(days=2), timedelta(days=1)) == 1
    assert archive.days(uri) == []


def test_windows_that_do_not_divide_a_day_are_refused(configuration):
    with pytest.raises(ValueError, match="7"):
        msgspec.convert(
            msgspec.to_builtins(configuration) | {"windows_seconds": [30, 7]}, StreamAnalysis
        )


def test_a_probability_of_a_half_counts_as_an_anomaly(configuration):
    model = PublishedModel(1, "schema", np.zeros(5), np.ones((3, 4)))
    rows = rows_of(("a", 0, 1.0, 1), ("a", 1, 1.0, 0))

    outcome = analyse(rows, TAIL.empty_table(), Scorer(FEATURES, model, {}), configuration)

    window = outcome.windows.to_pylist()[0]
    assert window["probability_sum"] == 2 * probability(np.zeros(1))[0]
    assert (window["rows_labelled"], window["correct"]) == (2, 1)
    assert (window["anomaly_count"], window["zscore_anomaly_count"]) == (2, 0)


def test_a_window_counts_the_anomalies_of_the_daily_analysis(configuration):
    random = np.random.default_rng(11)
    rows = rows_of(*[("a", n / 2, float(random.standard_t(3)), 1) for n in range(500)])
    schema = feature_schema(FEATURES)
    standard = np.repeat([[500.0], [0.0], [500.0]], 4, axis=1)
    model = PublishedModel(1, schema, random.normal(size=5), standard)

    outcome = analyse(rows, TAIL.empty_table(), Scorer(FEATURES, model, {}), configuration)

    [window] = [each for each in outcome.windows.to_pylist() if each["window_seconds"] == 300]
    of_day = DayAnalysis(NamedModel(FEATURES, model), None)
    in_day = pa.array(np.ones(rows.num_rows, np.bool_))
    [day] = of_day(rows.append_column("in_day", in_day), KNOWN.empty_table()).to_pylist()
    counts = ("row_count", "scored_rows", "anomaly_count", "zscore_anomaly_count")
    assert {name: window[name] for name in counts} == {name: day[name] for name in counts}
    assert 0 < window["zscore_anomaly_count"] < window["anomaly_count"] < 500


def test_a_batch_that_comes_after_the_end_is_refused_and_holds_nothing_up(configuration):
    analyser = StreamAnalyser(configuration, "postgresql://nobody@127.0.0.1:9/nothing")
    context = SimpleNamespace(getLocalProperty=lambda _: "query")
    messages = SimpleNamespace(sparkSession=SimpleNamespace(sparkContext=context))

    assert analyser.end_between_batches(seconds=0)

    with pytest.raises(StreamError, match="the next start does it"):
        analyser(messages, 7)
