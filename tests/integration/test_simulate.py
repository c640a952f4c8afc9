"""`flead simulate` against a real broker."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from flead.contracts.topics import Topic
from flead.fleet.simulator import Simulator
from flead.fleet.streaming import Stream, StreamingError, limit
from flead.messaging.reading import end_offsets, read_committed
from flead.messaging.topics import create_topics

EVERYTHING = 10**9


class TelemetryTopic:
    """What reaches the telemetry topic from now on."""

    def __init__(self, bootstrap_servers):
        self.properties = {"bootstrap.servers": bootstrap_servers}
        create_topics(self.properties)
        self.start = end_offsets(self.properties, Topic.TELEMETRY)

    def records(self):
        return read_committed(self.properties, Topic.TELEMETRY, self.start, EVERYTHING).records


@pytest.fixture
def topic(kafka):
    return TelemetryTopic(kafka)


@pytest.fixture
def simulate(kafka):
    """Start the command with more arguments."""

    def start(*arguments):
        command = [sys.executable, "-m", "flead.cli", "simulate", "--bootstrap-servers", kafka]
        return subprocess.Popen(
            [*command, "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_the_topic_holds_the_messages_of_the_seed_each_device_in_order(topic, simulate):
    fleet = Simulator(
        300, 60_000, 0.15, 11, start_ms=1_764_000_000_000, drift_at_seconds=3, malformed_rate=0.02
    )
    batches = list(limit(fleet.batches(), 40_000, None))
    expected = [message for batch in batches for message in batch.encode()]
    malformed = sum(np.count_nonzero(batch.malformation >= 0) for batch in batches)

    process = simulate(
        *("--devices", "300", "--rate", "1000/s", "--anomaly-rate", "0.15", "--seed", "11"),
        *("--start-ms", "1764000000000", "--drift-at", "3", "--malformed-rate", "0.02"),
        *("--rows", "40000", "--speed", "max"),
    )
    output, errors = process.communicate()

    assert process.returncode == 0, errors
    report = json.loads(output)
    assert (report["rows"], report["malformed"]) == (40_000 - malformed, malformed)
    records = topic.records()
    assert Counter((r.key, r.value) for r in records) == Counter(expected)
    for device in {key for key, _ in islice(expected, 50)}:
        assert len({r.partition for r in records if r.key == device}) == 1
        assert [r.value for r in records if r.key == device] == [
            value for key, value in expected if key == device
        ]


def test_messages_leave_evenly_at_the_rate_stamped_with_the_time_they_were_sent(topic, simulate):
    before_ms = time.time() * 1000

    process = simulate("--devices", "500", "--rate", "60000/min", "--duration", "4")
    output, errors = process.communicate()

    assert process.returncode == 0, errors
    report = json.loads(output)
    assert report["rows"] == pytest.approx(4_000, abs=20)
    assert report["seconds"] > 3.9
    stamps = np.sort([record.timestamp for record in topic.records()])
    assert before_ms <= stamps[0]
    assert stamps[-1] <= time.time() * 1000
    assert stamps[-1] - stamps[0] == pytest.approx(4_000, abs=1_000)
    half_seconds = np.bincount((stamps - stamps[0]) // 500)
    assert np.median(half_seconds) == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_ends_it_with_everything_that_it_counts_delivered(topic, simulate, number):
    process = simulate("--devices", "200", "--rate", "2000/s")
    assert process.stderr.read(30)  # the first progress line: it is streaming

    process.send_signal(number)
    output, errors = process.communicate(timeout=15)

    assert process.returncode == 0, errors
    report = json.loads(output)
    assert report["rows"] == len(topic.records()) > 0


def test_being_stopped_before_the_rows_that_were_asked_for_is_a_failure(topic, simulate):
    process = simulate("--devices", "200", "--rate", "2000/s", "--rows", "1000000")
    assert process.stderr.read(30)

    process.terminate()
    output, errors = process.communicate(timeout=15)

    assert process.returncode == 1
    assert "stopped before all that was asked for" in errors
    assert json.loads(output)["rows"] == len(topic.records())


def test_an_unreachable_broker_is_an_error_that_says_so():
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "delivery.timeout.ms": "1000"}
    batches = limit(Simulator(10, 600, 0.1, 1).batches(), 100, None)

    with pytest.raises(StreamingError, match=r"messages for edge-iiot-stream were refused"):
        Stream(nowhere, float("inf"), lambda _: None).run(batches)
