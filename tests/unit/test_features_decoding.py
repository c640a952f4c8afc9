"""Telemetry messages become rows, or dead letters that say why."""

import base64
import hashlib
import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flead.contracts.messages import DeadLetterReason as Reason
from flead.contracts.messages import Telemetry
from flead.features.decoding import TelemetryDecoder

FEATURES = ["power", "flow"]
GOOD = b'{"device_id":"a","event_time":5,"features":{"power":1.5,"flow":2},"label":1}'


def decode(messages, features=FEATURES):
    """Decode (key, value) messages of partition 3, from offset 10 on, sent at 1000, 1001, ..."""
    count = len(messages)
    return TelemetryDecoder(features).decode(
        [key for key, _ in messages],
        [value for _, value in messages],
        np.full(count, 3, np.int32),
        np.arange(10, 10 + count),
        np.arange(1000, 1000 + count),
    )


def test_valid_messages_become_rows_in_their_order():
    batch, letters = decode(
        [
            (b"a", GOOD),
            (b"b", b'{"device_id":"b","event_time":6,"features":{"flow":-2.5,"power":0}}'),
            (b"a", b'{"device_id":"a","event_time":7,"features":{"power":3,"flow":4},"label":0}'),
        ]
    )

    assert letters == []
    assert batch.devices == ["a", "b"]
    assert batch.device_index.tolist() == [0, 1, 0]
    assert batch.partition.tolist() == [3, 3, 3]
    assert batch.offset.tolist() == [10, 11, 12]
    assert batch.event_time.tolist() == [5, 6, 7]
    np.testing.assert_array_equal(batch.label, [1, math.nan, 0])
    np.testing.assert_array_equal(batch.values, [[1.5, 2], [0, -2.5], [3, 4]])


def test_absent_and_null_features_are_missing():
    batch, letters = decode(
        [
            (b"a", b'{"device_id":"a","event_time":5,"features":{"power":null}}'),
            (b"a", b'{"device_id":"a","event_time":5,"features":{}}'),
            (b"a", GOOD),
        ]
    )

    assert letters == []
    nan = math.nan
    np.testing.assert_array_equal(batch.values, [[nan, nan], [nan, nan], [1.5, 2]])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"a", None, Reason.TOMBSTONE),
        (b"a", b"", Reason.EMPTY),
        (b"a", b"{", Reason.MALFORMED),
        (b"a", GOOD[:40], Reason.MALFORMED),
        (b"a", GOOD + GOOD, Reason.MALFORMED),
        (b"a", GOOD + b" " * 10_000, Reason.TOO_LARGE),
        (b"a", GOOD[:-1] + b',"attack_type":"%b"}' % (b"x" * 1_000_000), Reason.TOO_LARGE),
        (b"a", b"[" * 1_000_000, Reason.TOO_LARGE),
        (b"a", b"[" * 4_000, Reason.INVALID),
        (b"a", b'{"nested":' + b"[" * 2_000 + b"]" * 2_000 + b"}", Reason.INVALID),
        (b"a", GOOD.replace(b'"a"', b'"\\ud800"'), Reason.MALFORMED),
        (b"a", GOOD.replace(b'"a"', b'"\xff"'), Reason.MALFORMED),
        (b"a", GOOD.replace(b"power", b"\xff"), Reason.MALFORMED),
        (b"a", GOOD.replace(b"1.5", b"NaN"), Reason.MALFORMED),
        (b"a", b"[]", Reason.INVALID),
        (b"a", GOOD.replace(b"1.5", b'"high"'), Reason.INVALID),
        (b"a", GOOD.replace(b"1.5", b"true"), Reason.INVALID),
        (b"a", GOOD.replace(b'"device_id":"a",', b""), Reason.INVALID),
        (b"a", GOOD.replace(b'"label":1', b'"label":2'), Reason.INVALID),
        (b"a", GOOD.replace(b'"label":1', b'"colour":1'), Reason.INVALID),
        (b"a", GOOD.replace(b'_time":5', b'_time":-5'), Reason.INVALID),
        (b"a", GOOD.replace(b'_time":5', b'_time":99999999999999999999'), Reason.INVALID),
        (b"a\0", GOOD.replace(b'"a"', b'"a\\u0000"'), Reason.INVALID),
        (b"b", GOOD, Reason.KEY_MISMATCH),
        (None, GOOD, Reason.KEY_MISMATCH),
        (b"a" * 1_000_000, GOOD, Reason.KEY_MISMATCH),
        (b"a", GOOD.replace(b'"flow"', b'"noise"'), Reason.UNDECLARED_FEATURE),
        (b"a", GOOD.replace(b"1.5", b"1e400"), Reason.NOT_FINITE),
        (b"a", GOOD.replace(b"1.5", b"-1e101"), Reason.NOT_FINITE),
        (b"a", GOOD.replace(b'"label":1', b'"schema_version":2'), Reason.UNKNOWN_SCHEMA),
    ],
)
def test_a_bad_message_is_a_dead_letter_and_its_neighbours_are_rows(key, value, reason):
    batch, letters = decode([(b"a", GOOD), (key, value), (b"a", GOOD)])

    assert batch.offset.tolist() == [10, 12]
    assert [letter.reason for letter in letters] == [reason]
    assert letters[0].detail


def test_no_row_is_too_large_however_it_is_written():
    snakes = [chr(0x1F40D + number) * 50 for number in range(20)]
    device = "\N{SNOWMAN}" * 256
    row = {
        "device_id": device,
        "event_time": 253_402_300_799_999,
        "features": dict.fromkeys(snakes, -1.2345678901234567e-100),
        "label": None,
        "attack_type": "backdoor",
        "schema_version": 1,
    }
    value = json.dumps(row, ensure_ascii=True, indent=8).encode()

    batch, letters = decode([(device.encode(), value)], snakes)

    assert letters == []
    assert len(batch) == 1
    assert len(value) > 10_000


def test_a_dead_letter_tells_position_length_hash_and_the_first_kilobyte():
    value = b"x" * 1025

    _, letters = decode([(b"a", GOOD), (b"a", value), (b"a", None)])

    letter, tombstone = letters
    assert letter.topic == "edge-iiot-stream"
    assert (letter.partition, letter.offset, letter.timestamp) == (3, 11, 1001)
    assert letter.value_bytes == 1025
    assert letter.value_sha256 == hashlib.sha256(value).hexdigest()
    assert base64.b64decode(letter.value_prefix) == value[:1024]
    assert (tombstone.value_bytes, tombstone.value_prefix) == (-1, "")


def test_two_halves_of_a_message_stay_two_messages():
    batch, letters = decode([(b"a", GOOD[:30]), (b"a", GOOD[30:])])

    assert len(batch) == 0
    assert [letter.offset for letter in letters] == [10, 11]


@pytest.mark.parametrize("features", [['say "hi"', "a\\b", "ü\n"], ["power"]])
def test_feature_names_may_hold_any_characters(features):
    value = json.dumps(
        {
            "device_id": "a",
            "event_time": 0,
            "features": {name: number for number, name in enumerate(features)},
        }
    ).encode()

    batch, letters = decode([(b"a", value)], features)

    assert letters == []
    assert batch.values.tolist() == [list(range(len(features)))]


@pytest.mark.parametrize("features", [["power", "flow"], ['say "hi"', "flow"]])
def test_an_undeclared_feature_is_named(features):
    value = json.dumps({"device_id": "a", "event_time": 0, "features": {"noise": 1.0}}).encode()

    batch, letters = decode([(b"a", value)], features)

    assert len(batch) == 0
    assert letters[0].reason is Reason.UNDECLARED_FEATURE
    assert "noise" in letters[0].detail


def test_no_messages_make_an_empty_batch():
    batch, letters = decode([])

    assert (len(batch), letters, batch.values.shape) == (0, [], (0, 2))


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.builds(
                lambda at, byte: GOOD[:at] + byte + GOOD[at + 1 :],
                st.integers(0, len(GOOD) - 1),
                st.binary(max_size=2),
            ),
        ),
        max_size=8,
    )
)
def test_every_message_is_accounted_for_once_and_rows_are_those_that_decode_alone(values):
    batch, letters = decode([(b"a", value) for value in values])

    offsets = batch.offset.tolist() + [letter.offset for letter in letters]
    assert sorted(offsets) == list(range(10, 10 + len(values)))
    for offset in batch.offset.tolist():
        row = msgspec.json.decode(values[offset - 10], type=Telemetry)
        assert row.device_id == "a"
        assert set(row.features) <= set(FEATURES)
