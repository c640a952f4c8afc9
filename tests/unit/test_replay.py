"""Rows of a data set become telemetry that decodes to the same rows."""

import math

import numpy as np
import pytest

from flead.contracts.dataspec import load_data_spec
from flead.datasets.reading import read_dataset
from flead.features.decoding import TelemetryDecoder
from flead.fleet.replay import BATCH_ROWS, due_seconds, replayed

SPEC = """
name: mill
files: "**/*.csv"
device: {from: path}
time: {column: t, unit: s}
features: ["power, kW", flow]
label: {column: alarm}
attack_type: {column: kind}
"""


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "hall").mkdir()
    (tmp_path / "hall" / "saw.csv").write_text(
        't,"power, kW",flow,alarm,kind\n10,1.5,,0,\n12,2.5,7,1,scan\n'
    )
    (tmp_path / "press.csv").write_text('t,"power, kW",flow,alarm,kind\n11,-3,1e3,,\n')
    (tmp_path / "spec.yaml").write_text(SPEC)
    return read_dataset(tmp_path, load_data_spec(tmp_path / "spec.yaml"))


def test_messages_decode_to_the_rows_of_the_set_in_order_of_time(dataset):
    (batch,) = replayed(dataset, due_seconds(dataset.event_time))
    messages = batch.encode()

    rows, rejected = TelemetryDecoder(dataset.spec.features).decode(
        [key for key, _ in messages], [value for _, value in messages],
        np.zeros(3, np.int32), np.arange(3), np.arange(3),
    )  # fmt: skip

    assert rejected == []
    assert [rows.devices[index] for index in rows.device_index] == ["hall/saw", "press", "hall/saw"]
    assert rows.event_time.tolist() == [10_000, 11_000, 12_000]
    np.testing.assert_array_equal(rows.label, [0, math.nan, 1])
    np.testing.assert_array_equal(rows.values, [[1.5, math.nan], [-3, 1000], [2.5, 7]])
    assert b'"attack_type":"scan"' in messages[2][1]
    assert batch.seconds.tolist() == [0, 1, 2]


def test_a_long_set_comes_in_batches_that_hold_every_row_once(tmp_path):
    count = 2 * BATCH_ROWS + 5
    lines = "".join(f"{second},{second}\n" for second in range(count))
    (tmp_path / "saw.csv").write_text("t,x\n" + lines)
    (tmp_path / "spec.yaml").write_text(
        "{name: a, device: {from: path}, time: {column: t, unit: s}, features: [x]}"
    )
    dataset = read_dataset(tmp_path, load_data_spec(tmp_path / "spec.yaml"))

    batches = list(replayed(dataset, due_seconds(dataset.event_time)))

    assert [len(batch) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 5]
    assert np.concatenate([batch.seconds for batch in batches]).tolist() == list(range(count))


def test_a_long_silence_is_shortened_and_all_other_times_between_rows_stay():
    times = np.array([5_000, 5_500, 5_500, 65_500, 900_000_000, 900_000_250])

    assert due_seconds(times).tolist() == [0, 0.5, 0.5, 60.5, 899_995, 899_995.25]
    assert due_seconds(times, 60.0).tolist() == [0, 0.5, 0.5, 60.5, 120.5, 120.75]
