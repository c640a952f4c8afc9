"""Aggregates are exact, in one order, and refuse what they cannot mean."""

from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from flead.federation.strategy import FedAvg, FedAvgOptions, make_strategy


@dataclass(frozen=True)
class Received:
    partition: int
    offset: int
    update: SimpleNamespace


def received(offset, weights, rows, base=0, partition=0):
    update = SimpleNamespace(
        device_id="a", weights=weights[:-1], intercept=weights[-1], samples_processed=rows,
        base_version=base,
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
