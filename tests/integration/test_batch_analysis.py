"""Days analysed by the Spark job's code, on a real database, archive and broker."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from flead.analysis.archive import day_folder, write_file, write_rows
from flead.analysis.day_plan import open_analysis
from flead.analysis.scoring import inputs_of, log_odds_of
from flead.analysis.telemetry import ROWS, batch_of, in_order
from flead.contracts.messages import GlobalModel, ModelStatus, Moments
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.learning.fleet import PublishedModel
from flead.learning.zscore import is_anomalous
from flead.messaging.topics import create_topics
from flead.settings import Settings
from flead.storage import analysis_days
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel, insert_model
from tests.integration.spark.driver import driver

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

FEATURES = ["x", "y"]
DAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def spark(stack_home, tmp_path_factory):
    """Start a session that analyses days; return the function that has one analysed."""
    folder = tmp_path_factory.mktemp("spark")
    with driver(stack_home, "batch_days.py", folder) as ask:
        yield lambda database_url, config: ask([database_url, msgspec.to_builtins(config)])


class Days:
    """An archive, a database and a session on them."""

    def __init__(self, spark, database_url, archive, kafka):
        self.spark, self.database_url, self.kafka = spark, database_url, kafka
        self.archive = archive.as_uri()

    def analyse(self, day=DAY, now=NOW):
        settings = Settings(archive_uri=self.archive)
        config = open_analysis(self.database_url, self.kafka, settings, day, now)
        return self.spark(self.database_url, config)

    def query(self, statement, *parameters):
        with connect(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()

    def results(self, day=DAY):
        found = self.query(
            "SELECT to_jsonb(r) - 'created_at' FROM batch_analysis_results AS r"
            " WHERE analysis_date = %s ORDER BY device_id",
            day,
        )
        return [row for (row,) in found]

    def write(self, rows, writer="w"):
        write_rows(self.archive, writer, 0, rows)


@pytest.fixture
def days(spark, database_url, tmp_path):
    """Return days on an empty database and archive, and no broker."""
    migrate(database_url)
    return Days(spark, database_url, tmp_path, {"bootstrap.servers": "127.0.0.1:1"})


def rows_of(device, values, start, *, seconds=60.0, first_offset=0, names=FEATURES, labels=True):
    """Rows of a device, one every `seconds`, values of shape (rows, features)."""
    times = [start + timedelta(seconds=seconds * number) for number in range(len(values))]
    count = len(values)
    features = [dict(zip(names, row, strict=True)) for row in values.tolist()]
    return pa.Table.from_pylist(
        [
            {
                "device_id": device,
                "kafka_partition": 0,
                "kafka_offset": first_offset + 3 * number,
                "kafka_timestamp": times[number],
                "event_time": times[number],
                "label": number % 2 if labels else None,
                "attack_type": None,
                "features": list(features[number].items()),
            }
            for number in range(count)
        ],
        schema=ROWS,
    )


def midnight(day=DAY):
    return analysis_days.day_bounds(day)[0]


def noise(rows, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=(rows, 2))


def model(version, promoted_at, features=FEATURES, intercept=0.0):
    inputs = 4 * len(features)
    rng = np.random.default_rng(version)
    message = GlobalModel(
        version=version,
        parent_version=version - 1,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=None,
        feature_schema=feature_schema(features),
        feature_names=features,
        weights=rng.normal(size=inputs).tolist(),
        intercept=intercept,
        standardizer=Moments([100.0] * inputs, [0.0] * inputs, [100.0] * inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=1,
        global_accuracy=None,
        global_loss=None,
        timestamp=int(promoted_at.timestamp() * 1000),
    )
    return StoredModel(message, {}, {}, 0, "artifact", "0" * 64)


def store(days, *stored):
    with connect(days.database_url) as connection, connection.cursor() as cursor:
        for each in stored:
            insert_model(cursor, each)


def test_a_day_counts_what_a_device_sent_and_what_its_models_say(days):
    first, second = model(1, midnight()), model(2, midnight() + timedelta(days=3))
    store(days, first, second)
    values = noise(300)
    values[7, 1] = np.nan
    rows = rows_of("a", values, midnight())
    days.write(rows)

    assert days.analyse() == {"state": "done", "rows": 300}

    [result] = days.results()
    batch, _ = batch_of(in_order(rows), FEATURES)
    inputs = inputs_of(batch)
    none = np.zeros((1, 3, 8))
    odds = [
        log_odds_of(inputs, batch.device_index, none, PublishedModel.of(each.model))
        for each in (first, second)
    ]
    assert (result["row_count"], result["scored_rows"], result["rows_labelled"]) == (300, 300, 300)
    assert (result["model_version"], result["reference_model_version"]) == (1, 2)
    assert result["anomaly_count"] == int((odds[0] >= 0).sum())
    assert result["reference_anomaly_count"] == int((odds[1] >= 0).sum())
    assert result["zscore_anomaly_count"] == int(is_anomalous(inputs).sum()) > 0
    assert result["anomaly_rate"] == pytest.approx(result["anomaly_count"] / 300)
    described = result["feature_statistics"]["y"]
    there = np.delete(values[:, 1], 7)
    assert described["count"] == 299
    assert described["missing_share"] == pytest.approx(1 / 300)
    assert described["mean"] == pytest.approx(there.mean(), rel=1e-12)
    assert described["std"] == pytest.approx(there.std(), rel=1e-12)
    assert described["quantiles"] == pytest.approx(np.percentile(there, range(0, 101, 5)))
    assert datetime.fromisoformat(result["first_event_time"]) == midnight()


def test_a_second_run_gives_the_same_rows_with_the_reference_of_the_first(days):
    store(days, model(1, midnight()))
    days.write(rows_of("a", noise(50), midnight()))
    days.write(rows_of("b", noise(50, 1), midnight(), first_offset=1), "w2")
    days.analyse()
    before = days.results()
    store(days, model(2, NOW - timedelta(hours=1)))

    days.analyse()

    assert days.results() == before
    assert len(before) == 2


def test_rows_before_the_day_and_those_between_make_the_inputs_of_the_whole_history(days):
    values = np.concatenate((noise(1_500), noise(1_400, 1, 1.3), noise(500, 2)))
    whole = rows_of("a", values, midnight() - timedelta(minutes=1_500))
    # A clock that was wrong: rows of the days around come in between those of the day.
    strange = np.array(whole["event_time"].to_pylist())
    strange[[1_600, 2_000]] = midnight() - timedelta(hours=2)
    strange[2_100] = midnight() + timedelta(days=1, hours=2)
    times = pa.array(strange.tolist(), ROWS.field("event_time").type)
    whole = whole.set_column(4, ROWS.field("event_time"), times)
    days.write(whole)

    days.analyse()

    on_day = [number for number, each in enumerate(strange) if each.date() == DAY]
    inputs = inputs_of(batch_of(whole, FEATURES)[0])
    [result] = days.results()
    assert result["row_count"] == len(on_day)
    assert result["zscore_anomaly_count"] == int(is_anomalous(inputs)[on_day].sum()) > 0


def test_a_device_that_was_silent_for_days_has_the_inputs_of_its_older_rows(days):
    values = np.concatenate((noise(100), noise(60, 1, 3.0)))
    old = rows_of("a", values[:100], midnight() - timedelta(days=4))
    new = rows_of("a", values[100:], midnight(), first_offset=100_000)
    days.write(pa.concat_tables([old, new]))
    days.write(rows_of("b", noise(200, 3), midnight() - timedelta(hours=1), seconds=30), "w2")

    days.analyse()

    inputs = inputs_of(batch_of(pa.concat_tables([old, new]), FEATURES)[0])
    silent, appeared = days.results()
    assert silent["zscore_anomaly_count"] == int(is_anomalous(inputs)[100:].sum()) > 0
    assert (appeared["device_id"], appeared["row_count"]) == ("b", 80)


def test_drift_is_measured_against_the_seven_days_before(days):
    for number in range(9, -1, -1):
        day = DAY - timedelta(days=number)
        shifted = noise(100, number) + (0 if number else 5)
        days.write(rows_of("a", shifted, midnight(day), first_offset=1_000 * (10 - number)))
    for number in range(9, -1, -1):
        days.analyse(DAY - timedelta(days=number))

    [first], [steady], [drifted] = (
        days.results(DAY - timedelta(days=number)) for number in (9, 1, 0)
    )
    assert (first["drift"], first["feature_drift"]) == (None, {"x": None, "y": None})
    assert 0 < steady["drift"] < 0.3
    # All rows lie in the last of ten bins, of which the days before fill a tenth each: the
    # divergence is (9 * .1 * log2(.1 / .05) + .1 * log2(.1 / .55) + log2(1 / .55)) / 2.
    assert drifted["drift"] == max(drifted["feature_drift"].values())
    assert drifted["drift"] == pytest.approx(0.870790822869171, abs=1e-9)


def test_a_day_without_labels_or_model_has_no_figure_of_either(days):
    days.write(rows_of("a", noise(20), midnight(), labels=False))

    days.analyse()

    [result] = days.results()
    assert (result["rows_labelled"], result["row_count"], result["scored_rows"]) == (0, 20, 0)
    assert result["anomaly_count"] is result["anomaly_rate"] is None
    assert result["reference_anomaly_count"] is result["model_version"] is None


def test_rows_of_other_features_are_not_scored(days):
    store(days, model(1, midnight()))
    days.write(rows_of("a", noise(40), midnight()))
    days.write(rows_of("b", noise(40), midnight(), names=["x", "other"], first_offset=1), "w2")

    days.analyse()

    known, other = days.results()
    assert (known["scored_rows"], other["scored_rows"]) == (40, 0)
    assert known["anomaly_count"] is not None
    assert other["anomaly_count"] is other["reference_anomaly_count"] is None
    assert sorted(other["feature_statistics"]) == ["other", "x"]


def test_an_archive_file_that_is_corrupt_fails_the_day_by_name_and_leaves_its_results(days):
    days.write(rows_of("a", noise(40), midnight()))
    days.analyse()
    before = days.results()
    folder = Path(day_folder(days.archive, DAY).removeprefix("file://"))
    write_file(folder.as_uri(), "torn.parquet", rows_of("b", noise(40), midnight()))
    torn = folder / "torn.parquet"
    torn.write_bytes(torn.read_bytes()[:-100])

    with pytest.raises(RuntimeError, match=r"torn\.parquet"):
        days.analyse()

    assert days.results() == before
    assert days.query("SELECT state FROM analysis_days") == [("running",)]


def test_late_rows_of_a_closed_day_ask_for_a_rerun_which_has_them(days):
    days.write(rows_of("a", noise(40), midnight()))
    days.analyse()
    days.write(rows_of("a", noise(10, 1), midnight(), first_offset=1_000), "late")
    with connect(days.database_url) as connection, connection.cursor() as cursor:
        late = analysis_days.add_late_rows(cursor, {DAY: 10, DAY + timedelta(days=1): 5})
    asked = days.query("SELECT late_rows, needs_rerun FROM analysis_days")

    days.analyse()

    assert (late, asked) == ([DAY], [(10, True)])
    assert days.query("SELECT late_rows, needs_rerun, rows FROM analysis_days") == [(0, False, 50)]


def test_a_day_that_is_not_over_is_not_closed(days):
    days.write(rows_of("a", noise(40), midnight()))

    days.analyse(now=midnight() + timedelta(hours=24.5))

    with connect(days.database_url) as connection, connection.cursor() as cursor:
        assert analysis_days.add_late_rows(cursor, {DAY: 10}) == []
    with pytest.raises(ValueError, match="2026-03-02 has not begun"):
        days.analyse(now=midnight() - timedelta(hours=1))


class TestWithoutArchive:
    @pytest.fixture
    def days(self, spark, database_url, tmp_path, kafka):
        migrate(database_url)
        properties = {"bootstrap.servers": kafka}
        create_topics(properties)
        return Days(spark, database_url, tmp_path, properties)

    @pytest.fixture
    def send(self, producer):
        def send(device, at, values):
            for number, row in enumerate(values):
                milliseconds = int(at.timestamp() * 1000) + 60_000 * number
                value = {
                    "device_id": device,
                    "event_time": milliseconds,
                    "features": dict(zip(FEATURES, row.tolist(), strict=True)),
                }
                producer.produce(
                    Topic.TELEMETRY,
                    msgspec.json.encode(value),
                    device.encode(),
                    partition=0,
                    timestamp=milliseconds,
                )
            assert producer.flush(30) == 0

        return send

    def test_rows_come_from_kafka_and_a_day_without_any_is_cleared(self, days, send):
        today = datetime.now(UTC).date() - timedelta(days=2)
        after = datetime.now(UTC) + timedelta(days=3)
        values = noise(200, 4)
        send("kafka-only", midnight(today) - timedelta(minutes=50), values)

        assert days.analyse(today, after) == {"state": "done", "rows": 150}
        [result] = days.results(today)
        [(read_from,)] = days.query("SELECT read_from FROM analysis_days")
        assert (result["device_id"], result["row_count"], read_from) == ("kafka-only", 150, "kafka")

        days.query("UPDATE batch_analysis_results SET analysis_date = %s RETURNING 1", DAY)
        assert days.analyse(DAY, after) == {"state": "empty", "rows": 0}
        assert days.results() == []
