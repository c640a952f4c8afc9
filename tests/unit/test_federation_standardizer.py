"""Merged moments are those of all rows in one place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flead.contracts.messages import Moments
from flead.federation.standardizer import merge_moments


def moments_of(rows):
    columns = np.array(rows, dtype=float).reshape(len(rows), -1)
    mean = columns.mean(axis=0)
    deviations = ((columns - mean) ** 2).sum(axis=0)
    return Moments([float(len(rows))] * columns.shape[1], mean.tolist(), deviations.tolist())


def test_a_worked_example():
    merged = merge_moments([moments_of([[1.0], [3.0]]), moments_of([[5.0], [7.0], [9.0]])], 1)

    # 1, 3, 5, 7, 9: mean 5, squared deviations 16 + 4 + 0 + 4 + 16.
    assert merged == Moments([5.0], [5.0], [40.0])


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(1e6, 1e6 + 1)), min_size=1, max_size=9),
        min_size=1,
        max_size=6,
    )
)
def test_any_split_gives_the_moments_of_the_whole(parts):
    merged = merge_moments([moments_of(part) for part in parts], 2)

    whole = moments_of([row for part in parts for row in part])
    assert merged.count == whole.count
    assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-9)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-6)


def test_a_device_that_never_had_an_input_does_not_count_for_it():
    merged = merge_moments([Moments([0.0], [0.0], [0.0]), moments_of([[2.0], [4.0]])], 1)

    assert merged == Moments([2.0], [3.0], [2.0])


def test_no_device_makes_empty_moments():
    assert merge_moments([], 2) == Moments([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])


def test_moments_of_another_dimension_are_an_error():
    with pytest.raises(ValueError, match="reshape"):
        merge_moments([moments_of([[1.0, 2.0]])], 3)
