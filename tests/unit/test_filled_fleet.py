"""The fleet behind the filled database: any minute of it can be drawn alone, and again."""

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from benchmarks.filled.fleet import ROWS_PER_MINUTE, SMALL, Fleet, log_loss, probability
from benchmarks.filled.history import History

SIZE = msgspec.structs.replace(SMALL, now=datetime(2026, 11, 29, 15, 33, tzinfo=UTC))


@pytest.fixture(scope="module")
def fleet():
    return Fleet(SIZE)


def test_the_same_seed_gives_the_same_rows_and_another_one_others(fleet):
    again, other = (Fleet(msgspec.structs.replace(SIZE, seed=seed)) for seed in (1, 2))

    for mine, same in zip(fleet.rows(77), again.rows(77), strict=True):
        assert np.array_equal(mine, same)
    assert not np.array_equal(fleet.rows(77).label, other.rows(77).label)
    assert fleet.names == again.names


def test_offsets_of_a_partition_have_no_gap_and_grow_with_time(fleet):
    for partition in range(4):
        of_partition = fleet.partition == partition
        drawn = [fleet.rows(minute) for minute in (77, 78)]
        offset = np.concatenate([each.offset[of_partition].ravel() for each in drawn])
        time = np.concatenate([each.time_ms[of_partition].ravel() for each in drawn])
        order = offset.argsort()

        first = fleet.first_offsets(77)[partition]
        assert offset[order].tolist() == list(range(first, first + len(offset)))
        assert (np.diff(time[order]) >= 0).all()


def test_rows_lie_in_their_minute(fleet):
    rows = fleet.rows(77)

    assert rows.time_ms.shape == (SIZE.devices, ROWS_PER_MINUTE)
    assert rows.time_ms.min() >= fleet.at_ms(77)
    assert rows.time_ms.max() < fleet.at_ms(78)


def test_it_ends_with_the_last_whole_block_of_five_minutes(fleet):
    assert fleet.at(0) == datetime(2026, 11, 27, tzinfo=UTC)
    assert fleet.at(fleet.minutes) == datetime(2026, 11, 29, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize("time", [(0, 0), (7, 20), (12, 45), (23, 59)])
def test_it_ends_in_the_same_way_at_any_time_of_day(fleet, time):
    hour, minute = time
    other = Fleet(msgspec.structs.replace(SIZE, now=SIZE.now.replace(hour=hour, minute=minute)))

    assert newest_statuses(other) == newest_statuses(fleet)
    for mine, same in zip(last_rows(fleet), last_rows(other), strict=True):
        assert np.array_equal(mine, same)


def newest_statuses(fleet):
    statuses = [each.status for each in History(fleet).versions[-1_000:]]
    assert {*statuses} == {"candidate", "promoted", "rejected", "rolled_back"}
    return statuses


def last_rows(fleet):
    rows = fleet.rows(fleet.minutes - 1)
    return rows.label, rows.is_anomalous, rows.distance


def test_probability_and_log_loss_agree():
    label, correctness = np.array([1, 0, 1, 0]), np.array([0.5, 0.5, -0.5, 0.0])
    likely = probability(label, correctness)

    assert likely.round(4).tolist() == [0.7503, 0.2497, 0.2497, 0.5]
    # Of the probability that was given to what happened
    assert log_loss(correctness) == pytest.approx(-np.log([0.7503, 0.7503, 0.2497, 0.5]), abs=1e-3)
