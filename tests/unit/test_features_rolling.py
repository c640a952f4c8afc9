"""Inputs of a row come from the row and the 100 rows of its device before it."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flead.features.rolling import empty_history, roll
from flead.features.spread import ROUNDING

NAN = math.nan


def inputs_by_the_definition(series):
    """Make the inputs of each row of one device, row by row, with exact fractions."""
    rows = []
    for number, row in enumerate(series):
        inputs = []
        for feature, value in enumerate(row):
            past = [each[feature] for each in series[max(0, number - 100) : number]]
            past = [each for each in past if not math.isnan(each)]
            mean = statistics.mean(past) if past else NAN
            deviation = statistics.pstdev(past) if past else NAN
            if past and deviation <= ROUNDING * abs(mean):
                deviation = 0.0
            z_score = 0.0
            if math.isnan(value):
                z_score = NAN
            elif len(past) >= 30 and deviation > 0:
                z_score = max(-10.0, min(10.0, (value - mean) / deviation))
            inputs += [value, z_score, mean, deviation]
        rows.append(inputs)
    return np.array(rows)


def roll_in_parts(devices, parts):
    """Make the inputs of rows of which the given numbers come at a time, devices interleaved."""
    features = len(devices[0][0])
    history, shared = empty_history(len(devices), features)
    seen = np.zeros(len(devices), np.int64)
    inputs = [[np.empty((0, 4 * features))] for _ in devices]
    for part in parts:
        counts = np.minimum(part, [len(rows) for rows in devices] - seen)
        device = np.repeat(np.arange(len(devices)), counts)
        if not len(device):
            continue
        values = np.concatenate(
            [rows[at : at + n] for rows, at, n in zip(devices, seen, counts, strict=True)]
        )
        # A device's rows in their order, those of other devices between them.
        order = np.argsort(
            np.concatenate([np.linspace(0, 1, n, endpoint=False) for n in counts]), kind="stable"
        )
        made = roll(history, shared, seen, device[order], values[order])
        for number in range(len(devices)):
            inputs[number].append(made[device[order] == number])
    return [np.concatenate(rows) for rows in inputs]


def fleet(seed, lengths=(260, 7, 131, 0, 100), features=3):
    """Devices of different scales, a tenth of the values missing, the last feature constant."""
    generator = np.random.default_rng(seed)
    devices = []
    for number, length in enumerate(lengths):
        values = generator.normal(10.0**number, 1.0, (length, features))
        values[:, -1] = 0.1
        values[generator.random(values.shape) < 0.1] = NAN
        devices.append(values)
    return devices


def test_inputs_equal_the_definition():
    devices = fleet(seed=1)

    inputs = roll_in_parts(devices, [np.full(5, 1000)])

    for device, made in zip(devices, inputs, strict=True):
        if len(device):
            np.testing.assert_allclose(made, inputs_by_the_definition(device), rtol=1e-9, atol=1e-9)


def test_a_jump_of_a_million_leaves_no_rounding_behind():
    series = np.concatenate((np.full(150, 1e6 + 0.1), np.full(150, 0.1)))[:, np.newaxis]

    (made,) = roll_in_parts([series], [np.array([300])])

    np.testing.assert_allclose(made, inputs_by_the_definition(series), rtol=1e-9, atol=1e-9)
    assert made[-1].tolist() == [0.1, 0.0, pytest.approx(0.1), 0.0]


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_inputs_are_the_same_to_the_bit_however_the_stream_is_cut(features, seed):
    devices = fleet(seed, features=features)
    generator = np.random.default_rng(seed)

    at_once = roll_in_parts(devices, [np.full(5, 1000)])
    one_by_one = roll_in_parts(devices, np.ones((260, 5), np.int64))
    at_random = roll_in_parts(devices, generator.integers(0, 40, (100, 5)))
    alone = [roll_in_parts([device], [np.array([1000])])[0] for device in devices if len(device)]

    for whole, single, random in zip(at_once, one_by_one, at_random, strict=True):
        np.testing.assert_array_equal(whole, single)
        np.testing.assert_array_equal(whole, random)
    for whole, single in zip([each for each in at_once if len(each)], alone, strict=True):
        np.testing.assert_array_equal(whole, single)


def test_the_z_score_waits_for_thirty_rows_with_the_feature():
    generator = np.random.default_rng(0)
    series = generator.normal(0, 1, (32, 1))
    series[5] = NAN

    (made,) = roll_in_parts([series], [np.array([32])])

    assert (made[:5, 1] == 0).all()
    assert math.isnan(made[5, 1])
    assert (made[6:31, 1] == 0).all()
    assert made[31, 1] != 0


def test_the_z_score_is_clipped_and_zero_at_zero_spread():
    steady = np.full((41, 1), 7.0)
    steady[40] = 9.0
    noisy = np.tile([[1.0], [2.0]], (21, 1))[:41]
    noisy[40] = 1000.0

    flat, far = roll_in_parts([steady, noisy], [np.array([41, 41])])

    assert flat[40].tolist() == [9.0, 0.0, 7.0, 0.0]
    assert far[40].tolist() == [1000.0, 10.0, 1.5, 0.5]


def test_the_first_row_has_no_statistics():
    (made,) = roll_in_parts([np.array([[4.0]])], [np.array([1])])

    np.testing.assert_array_equal(made, [[4.0, 0.0, NAN, NAN]])


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.just(NAN), st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.1, 1e6])),
        min_size=1,
        max_size=140,
    ),
    st.integers(1, 30),
)
def test_any_series_gives_the_defined_inputs(values, part):
    series = np.array(values)[:, np.newaxis]

    (made,) = roll_in_parts([series], np.full((140, 1), part))

    expected = inputs_by_the_definition(series)
    np.testing.assert_allclose(made[:, [0, 2, 3]], expected[:, [0, 2, 3]], rtol=1e-9, atol=1e-8)
    # Where the spread is itself of the size of rounding, the z-score is not defined better.
    wide = np.isnan(expected[:, 3]) | (expected[:, 3] > 1e-6)
    np.testing.assert_allclose(made[wide, 1], expected[wide, 1], rtol=1e-6, atol=1e-6)
