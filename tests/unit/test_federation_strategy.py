"""Aggregates are exact, in one order, and refuse what they cannot mean."""

from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import Moments
from flead.federation.quality import quality_of
from flead.federation.strategy import FedAvg, FedAvgOptions, make_strategy


@dataclass(frozen=True)
class Received:
    partition: int
    offset: int
    update: SimpleNamespace


def received(offset, weights, rows, base=0, partition=0, counts=()):
    update = SimpleNamespace(
        device_id="a", weights=weights[:-1], intercept=weights[-1], samples_processed=rows,
        base_version=base, moments=Moments(list(counts), [], []),
    )  # fmt: skip
    return Received(partition, offset, update)


def test_with_every_base_at_the_parent_it_is_the_weighted_average():
    parent = np.array([1.0, 1.0, 1.0])
    updates = [
        received(0, [2.0, 0.0, 4.0], rows=30, base=5),
        received(1, [6.0, 4.0, 0.0], rows=10, base=5),
    ]

    aggregate = FedAvg().aggregate(parent, updates, {5: parent})

    # (30 * [2, 0, 4] + 10 * [6, 4, 0]) / 40
    np.testing.assert_allclose(aggregate.weights, [3.0, 1.0, 3.0], rtol=1e-15)
    assert aggregate.shares.tolist() == [0.75, 0.25]


def test_an_update_counts_with_what_it_learned_since_its_own_base():
    parent = np.array([10.0, 10.0])
    bases = {4: np.array([8.0, 9.0]), 5: parent}
    updates = [
        received(0, [9.0, 9.0], rows=1, base=4),
        received(1, [13.0, 10.0], rows=3, base=5),
    ]

    aggregate = FedAvg().aggregate(parent, updates, bases)

    # 10 + (1 * [1, 0] + 3 * [3, 0]) / 4
    assert aggregate.weights.tolist() == [12.5, 10.0]


def test_the_first_model_starts_from_the_zero_model():
    aggregate = FedAvg().aggregate(np.zeros(2), [received(0, [0.5, -0.5], rows=7)], {})

    assert aggregate.weights.tolist() == [0.5, -0.5]


def test_the_order_of_arrival_does_not_change_a_bit():
    generator = np.random.default_rng(0)
    updates = [
        received(number // 3, generator.normal(size=9).tolist(), number + 1, partition=number % 3)
        for number in range(200)
    ]
    parent = generator.normal(size=9)

    expected = FedAvg().aggregate(parent, updates, {})
    shuffled = FedAvg().aggregate(parent, generator.permutation(np.array(updates, object)), {})

    np.testing.assert_array_equal(shuffled.weights, expected.weights)
    np.testing.assert_array_equal(shuffled.shares, expected.shares)


def test_a_stale_update_counts_less_by_the_power_of_its_staleness():
    bases = {2: np.array([1.0, 1.0]), 5: np.array([1.0, 1.0])}
    strategy = FedAvg(FedAvgOptions(staleness_discount=0.5))
    updates = [
        received(0, [2.0, 1.0], rows=30, base=5),
        received(1, [5.0, 1.0], rows=20, base=2),
    ]

    aggregate = strategy.aggregate(bases[5], updates, bases)

    # 20 * (1 + 3) ** -0.5 = 10 beside 30: 1 + (30 * 1 + 10 * 4) / 40
    assert aggregate.shares.tolist() == [0.75, 0.25]
    assert aggregate.weights.tolist() == [2.75, 1.0]


def test_an_update_of_a_device_with_missing_inputs_counts_less():
    strategy = FedAvg(FedAvgOptions(quality_weighting=True))
    updates = [
        received(0, [4.0, 0.0], rows=30, counts=[100.0] * 4),
        received(1, [8.0, 0.0], rows=20, counts=[100.0, 0.0, 0.0, 100.0]),
    ]

    aggregate = strategy.aggregate(np.zeros(2), updates, {})

    # 20 * (0.5 + 0.5 * 2 / 4) = 15 beside 30
    np.testing.assert_allclose(aggregate.shares, [2 / 3, 1 / 3], rtol=1e-15)
    np.testing.assert_allclose(aggregate.weights, [16 / 3, 0.0], rtol=1e-15)


def test_both_options_multiply():
    bases = {1: np.zeros(2), 2: np.zeros(2)}
    strategy = make_strategy("fedavg", {"quality_weighting": True, "staleness_discount": 1})
    updates = [
        received(0, [1.0, 0.0], rows=10, base=2, counts=[8.0, 8.0]),
        received(1, [1.0, 0.0], rows=40, base=1, counts=[8.0, 0.0]),
    ]

    # 10 beside 40 * 0.75 * (1 + 1) ** -1
    assert strategy.aggregate(bases[2], updates, bases).shares.tolist() == [0.4, 0.6]


@pytest.mark.parametrize(
    ("counts", "quality"),
    [([], 0.5), ([0.0, 0.0], 0.5), ([7.0, 7.0], 1.0), ([20.0, 10.0, 0.0, 10.0], 0.75)],
)
def test_quality_is_between_a_half_and_one_by_the_share_of_inputs_present(counts, quality):
    assert quality_of(Moments(counts, [], [])) == quality


def test_the_server_learning_rate_scales_the_step():
    strategy = make_strategy("fedavg", {"server_learning_rate": 0.5})

    aggregate = strategy.aggregate(np.array([1.0, 1.0]), [received(0, [4.0, 2.0], rows=1)], {})

    assert aggregate.weights.tolist() == [3.0, 2.0]
    assert strategy.options == FedAvgOptions(server_learning_rate=0.5)


def test_a_round_without_updates_makes_no_model():
    with pytest.raises(ValueError, match="no model"):
        FedAvg().aggregate(np.zeros(2), [], {})


def test_an_untrained_update_is_an_error():
    untrained = received(0, [1.0, 1.0], rows=1)
    untrained.update.weights = None

    with pytest.raises(ValueError, match="not trained"):
        FedAvg().aggregate(np.zeros(2), [untrained], {})


def test_unknown_names_and_options_are_errors_that_name_them():
    with pytest.raises(ValueError, match="'fedmax', only fedavg"):
        make_strategy("fedmax")
    with pytest.raises(msgspec.ValidationError, match="momentum"):
        make_strategy("fedavg", {"momentum": 1})
    with pytest.raises(msgspec.ValidationError, match="server_learning_rate"):
        make_strategy("fedavg", {"server_learning_rate": 0})
