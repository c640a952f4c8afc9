"""The stream analysis on a real broker, database and Spark, through kills of its processes."""

import threading
import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import psutil
import pyarrow.dataset as ds
import pytest

from flead.contracts.analysis import StreamAnalysis
from flead.contracts.messages import GlobalModel, ModelStatus, Moments
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging.client import producer
from flead.messaging.topics import create_topics
from flead.storage import models, rounds
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel
from tests.conftest import start
from tests.integration.spark.stream import SECONDS, Stream, recount

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

FEATURES = ["heat", "load"]
DEVICES = 12
WRONG = (b"{", b"[]", None, b'{"device_id": "d0", "event_time": -1, "features": {}}')


@pytest.fixture(scope="module")
def stream(make_home, tmp_path_factory):
    """Return the stream on servers of its own, with all tables and topics."""
    home = make_home()
    addresses = start(home, "kafka", "postgres")
    folder = tmp_path_factory.mktemp("stream")
    migrate(addresses.database_url)
    create_topics({"bootstrap.servers": addresses.kafka_bootstrap})
    configuration = StreamAnalysis(
        deployment_id="test",
        kafka={"bootstrap.servers": addresses.kafka_bootstrap},
        checkpoint_uri=(folder / "checkpoint").as_uri(),
        state_uri=(folder / "state").as_uri(),
        archive_uri=(folder / "archive").as_uri(),
        trigger_seconds=0.5,
        max_rows=600,
    )
    return Stream(home, configuration, addresses.database_url, folder / "log")


class Fleet(threading.Thread):
    """Sends rows of devices until it is left, some of them late, some of them malformed."""

    def __init__(self, kafka: str) -> None:
        super().__init__(daemon=True)
        self._producer = producer({"bootstrap.servers": kafka})
        self._random = np.random.default_rng(5)
        self._ended = threading.Event()
        self._began = time.time_ns() // 1_000_000 - 600_000

    def __enter__(self) -> "Fleet":
        self.send(800)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        self.send(200)

    def run(self) -> None:
        while not self._ended.wait(0.2):
            self.send(60)

    def send(self, rows: int) -> None:
        """Send rows at two seconds of the fleet for each."""
        for _ in range(rows):
            device = f"d{self._random.integers(DEVICES)}"
            self._began += 100
            late = 200_000 if self._random.random() < 0.03 else 0
            row = {
                "device_id": device,
                "event_time": self._began - late,
                "features": {
                    "heat": float(
                        self._random.normal() * (8 if self._random.random() < 0.05 else 1)
                    ),
                    "load": None if self._random.random() < 0.1 else float(self._random.gamma(2.0)),
                },
                "label": [0, 1, None][self._random.integers(3)],
            }
            value = msgspec.json.encode(row)
            if self._random.random() < 0.02:
                value = WRONG[self._random.integers(len(WRONG))]
            self._producer.produce(Topic.TELEMETRY.value, value, device.encode())
            self._producer.poll(0)
        assert self._producer.flush(30) == 0


def is_valid(value: bytes | None) -> bool:
    return value not in WRONG


def promote(database_url: str, version: int, seed: int) -> None:
    """Make a version the head of its schema."""
    random = np.random.default_rng(seed)
    inputs = 4 * len(FEATURES)
    model = GlobalModel(
        version=version,
        parent_version=version - 1,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=version,
        feature_schema=feature_schema(FEATURES),
        feature_names=FEATURES,
        weights=random.normal(size=inputs).tolist(),
        intercept=0.1,
        standardizer=Moments([500.0] * inputs, [0.5] * inputs, [900.0] * inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=1,
        global_accuracy=None,
        global_loss=None,
        timestamp=1_764_000_000_000,
    )
    with connect(database_url) as connection, connection.cursor() as cursor:
        rounds.open_round(
            cursor, version, start_offsets={}, end_offsets={}, updates=0, dead_letters=0,
            dag_run_id="run", now=datetime.now(UTC),
        )  # fmt: skip
        cursor.execute(
            "UPDATE aggregation_rounds SET state = 'empty', completed_at = now() WHERE round = %s",
            (version,),
        )
        models.insert_model(cursor, StoredModel(model, {}, {}, 0, "", "0" * 64))
        models.advance_head(
            cursor, model.feature_schema, version - 1 if version > 1 else None, version
        )


def know_moments(database_url: str, device: str, moments: Moments) -> None:
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO device_moments VALUES (%s, %s, 1, 0, 0, now(), %s)",
            (feature_schema(FEATURES), device, msgspec.json.encode(moments).decode()),
        )


OPEN = "SELECT 1 FROM stream_analysis_batches WHERE state = 'open' AND id > %s"
NEWEST = "SELECT coalesce(max(id), 0) FROM stream_analysis_batches WHERE state = 'committed'"


@pytest.fixture(scope="module")
def analysed(stream):
    """Send rows while drivers are killed in the middle of batches; return the recount."""
    moments = {"d3": Moments([400.0] * 8, [1.0] * 8, [300.0] * 8)}
    promote(stream.database_url, 1, seed=1)
    know_moments(stream.database_url, "d3", moments["d3"])
    with Fleet(stream.configuration.kafka["bootstrap.servers"]):
        driver = stream.start()
        stream.wait_for("SELECT 1 FROM stream_analysis_batches WHERE state = 'committed'", driver)
        promote(stream.database_url, 2, seed=2)
        stream.wait_for(
            "SELECT 1 FROM stream_analysis_batches WHERE state = 'committed' AND model_version = 2",
            driver,
        )
        [(newest,)] = stream.query(NEWEST)
        stream.wait_for(OPEN, driver, newest)
        python = stream.python()
        java = python.parent()
        python.kill()
        psutil.wait_procs([java], timeout=120)
        driver.wait(SECONDS)

        before = newest
        driver = stream.start()
        stream.wait_for(
            "SELECT 1 FROM stream_analysis_batches WHERE state = 'committed' AND id > %s",
            driver,
            before + 1,
        )
        [(newest,)] = stream.query(NEWEST)
        stream.wait_for(OPEN, driver, newest)
        python = stream.python()
        python.parent().kill()
        assert not psutil.wait_procs([python], timeout=120)[1]
        driver.wait(SECONDS)
    stream.finish()
    return recount(stream, is_valid, FEATURES, moments)


def test_windows_equal_a_recount_of_the_topic(stream, analysed):
    rows = stream.query(
        "SELECT device_id, extract(epoch FROM window_start)::bigint, window_seconds, model_version,"
        " row_count, zscore_anomaly_count, scored_rows, anomaly_count, probability_sum,"
        " rows_labelled, correct"
        " FROM stream_analysis_results"
    )

    found = {row[:4]: row[4:] for row in rows}
    assert found.keys() == analysed.windows.keys()
    for key, sums in analysed.windows.items():
        np.testing.assert_allclose(found[key], sums, rtol=0, atol=1e-6, err_msg=str(key))
    assert {key[3] for key in found} == {1, 2}


def test_every_valid_row_is_archived_once(stream, analysed):
    folder = stream.configuration.archive_uri.removeprefix("file://")
    table = ds.dataset(folder, format="parquet", partitioning="hive").to_table()

    places = list(
        zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True)
    )
    assert len(places) == len(set(places))
    assert set(places) == analysed.rows
    days = {each.date().isoformat() for each in table["event_time"].to_pylist()}
    assert days == {str(each) for each in table["day"].to_pylist()}


def test_invalid_and_late_messages_are_counted(stream, analysed):
    [counts] = stream.query(
        "SELECT sum(invalid), sum(late_rows), sum(messages), bool_or(state <> 'committed')"
        " FROM stream_analysis_batches"
    )

    assert analysed.late
    assert counts == (
        analysed.invalid,
        len(analysed.late),
        len(analysed.rows) + analysed.invalid,
        False,
    )


def test_anomalies_are_those_of_the_z_score_rule(stream, analysed):
    rows = stream.query("SELECT kafka_partition, kafka_offset FROM anomalies")

    assert analysed.anomalies
    assert set(rows) == analysed.anomalies
    assert len(rows) == len(analysed.anomalies)


def test_each_device_leaves_one_sample_in_a_slot_at_most(stream, analysed):
    rows = stream.query("SELECT device_id, slot_start FROM device_samples")

    assert len(rows) == len(set(rows))
    assert {device for device, _ in rows} == {f"d{number}" for number in range(DEVICES)}


def test_the_position_is_behind_the_last_message(stream, analysed):
    rows = stream.query(
        "SELECT partition, next_offset FROM stream_offsets WHERE consumer = 'stream-analysis'"
    )

    last = {}
    for partition, offset in analysed.rows:
        last[partition] = max(last.get(partition, 0), offset)
    for partition, next_offset in rows:
        assert next_offset > last[partition]


def test_a_fresh_checkpoint_goes_on_alone_until_it_is_asked_to_stop(stream, analysed):
    folder = stream.configuration.checkpoint_uri + "-fresh"
    [(before,)] = stream.query("SELECT sum(messages) FROM stream_analysis_batches")
    with Fleet(stream.configuration.kafka["bootstrap.servers"]):
        driver = stream.start(checkpoint_uri=folder)
        stream.wait_for(
            "SELECT 1 FROM stream_analysis_batches HAVING sum(messages) > %s", driver, before
        )
        second = stream.start(deployment_id="second", checkpoint_uri=f"{folder}-second")
        assert second.wait(SECONDS) != 0
        assert "another driver of the stream analysis runs" in stream.log.read_text()
        stream.query("UPDATE stream_deployments SET stop_requested = TRUE RETURNING deployment_id")
        assert driver.wait(SECONDS) == 0

    [(state, reason)] = stream.query("SELECT state, reason FROM stream_deployments")
    assert (state, reason) == ("stopped", "stopped as asked")
    [(twice,)] = stream.query(
        "SELECT count(*) FROM stream_analysis_batches AS a JOIN stream_analysis_batches AS b"
        " ON a.id < b.id, jsonb_each_text(a.end_offsets) AS e"
        " WHERE (b.start_offsets ->> e.key)::bigint < e.value::bigint"
    )
    assert twice == 0
