"""Aggregates are exact, in one order, and refuse what they cannot mean."""

from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy import stats

from flead.contracts.messages import Moments
from flead.federation.quality import quality_of
from flead.federation.strategy import STRATEGIES, FedAvg, FedAvgOptions, make_strategy

every_strategy = pytest.mark.parametrize("name", STRATEGIES)


@dataclass(frozen=True)
class Received:
    partition: int
    offset: int
    update: SimpleNamespace


def received(offset, weights, rows, base=0, partition=0, counts=(), device="a"):
    update = SimpleNamespace(
        device_id=device, weights=weights[:-1], intercept=weights[-1], samples_processed=rows,
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


@every_strategy
def test_the_first_model_starts_from_the_zero_model(name):
    updates = [received(0, [0.5, -0.5], rows=7)]

    aggregate = make_strategy(name).aggregate(np.zeros(2), updates, {})

    assert aggregate.weights.tolist() == [0.5, -0.5]
    assert aggregate.shares.tolist() == [1.0]


@every_strategy
def test_the_order_of_arrival_does_not_change_a_bit(name):
    generator = np.random.default_rng(0)
    updates = [
        received(
            number // 3, generator.normal(size=9).tolist(), number + 1, partition=number % 3,
            device=f"device-{number % 70}",
        )
        for number in range(200)
    ]  # fmt: skip
    parent = generator.normal(size=9)
    strategy = make_strategy(name)

    expected = strategy.aggregate(parent, updates, {})
    shuffled = strategy.aggregate(parent, generator.permutation(np.array(updates, object)), {})

    np.testing.assert_array_equal(shuffled.weights, expected.weights)
    np.testing.assert_array_equal(shuffled.shares, expected.shares)
    assert expected.shares.sum() == pytest.approx(1.0, rel=1e-14)


def of_devices(*weights, rows=1, base=0):
    """One update of each of some devices."""
    return [
        received(place, each, rows, base=base, device=f"device-{place}")
        for place, each in enumerate(weights)
    ]


def test_the_median_is_taken_weight_by_weight_and_shares_say_whose_it_was():
    parent = np.array([10.0, 20.0, 30.0])
    updates = of_devices([11.0, 25.0, 30.0], [12.0, 29.0, 37.0], [13.0, 21.0, 39.0], base=5)

    aggregate = make_strategy("fedmedian").aggregate(parent, updates, {5: parent})

    # changes by weight: 1 2 3, 5 9 1, 0 7 9
    assert aggregate.weights.tolist() == [12.0, 25.0, 37.0]
    np.testing.assert_allclose(aggregate.shares, [1 / 3, 2 / 3, 0.0], rtol=1e-15)


def test_the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle():
    updates = of_devices([1.0, -8.0], [2.0, -4.0], [4.0, -2.0], [8.0, -1.0])

    aggregate = make_strategy("fedmedian").aggregate(np.zeros(2), updates, {})

    assert aggregate.weights.tolist() == [3.0, -3.0]
    assert aggregate.shares.tolist() == [0.0, 0.5, 0.5, 0.0]


def test_the_trimmed_mean_leaves_out_a_share_at_each_end_weight_by_weight():
    updates = of_devices([1.0, 50.0], [2.0, 4.0], [3.0, 3.0], [7.0, 2.0], [90.0, 1.0])

    aggregate = make_strategy("fedtrimmedavg").aggregate(np.zeros(2), updates, {})

    # A fifth of five at each end: (2 + 3 + 7) / 3 and (4 + 3 + 2) / 3.
    assert aggregate.weights.tolist() == [4.0, 3.0]
    np.testing.assert_allclose(aggregate.shares, [0, 1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.2, 0.29, 0.49])
@pytest.mark.parametrize("devices", [1, 2, 4, 9, 100, 101])
def test_the_robust_means_are_those_of_scipy_and_numpy(devices, beta):
    generator = np.random.default_rng(devices)
    changes = generator.standard_cauchy(size=(devices, 7)).round(1)
    parent = generator.normal(size=7)
    updates = of_devices(*(parent + changes).tolist(), base=3)
    since = np.array([[*each.update.weights, each.update.intercept] for each in updates]) - parent

    median = make_strategy("fedmedian").aggregate(parent, updates, {3: parent})
    trimmed = make_strategy("fedtrimmedavg", {"beta": beta}).aggregate(parent, updates, {3: parent})

    np.testing.assert_array_equal(median.weights, parent + np.median(since, axis=0))
    expected = parent + stats.trim_mean(since, beta, axis=0)
    np.testing.assert_allclose(trimmed.weights, expected, rtol=1e-12)
    assert trimmed.shares.sum() == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg"])
def test_a_robust_change_is_what_was_learned_since_the_updates_own_base(name):
    bases = {4: np.array([8.0, 9.0]), 5: np.array([10.0, 10.0])}
    updates = [
        received(0, [9.0, 9.0], rows=1, base=4, device="a"),
        received(1, [13.0, 10.0], rows=1, base=5, device="b"),
        received(2, [13.0, 12.0], rows=1, base=5, device="c"),
    ]

    # Changes are [1, 0], [3, 0] and [3, 2]; a third of three at each end leaves the median.
    options = {"beta": 0.34} if name == "fedtrimmedavg" else {}
    aggregate = make_strategy(name, options).aggregate(bases[5], updates, bases)

    assert aggregate.weights.tolist() == [13.0, 10.0]


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg"])
def test_a_device_has_one_vote_whatever_it_claims(name):
    honest = of_devices([1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0])
    loud = [
        received(10 + place, [weight, weight], rows=10_000, device="loud")
        for place, weight in enumerate([50.0, 70.0, 90.0])
    ]

    aggregate = make_strategy(name).aggregate(np.zeros(2), honest + loud, {})

    # Of 1 2 3 4 and its mean 70: the middle, and without the outer two, are both 3.
    assert aggregate.weights.tolist() == [3.0, 3.0]
    assert aggregate.shares[4:].tolist() == [0.0, 0.0, 0.0]


def test_the_updates_of_a_device_share_its_vote_by_their_rows():
    updates = [
        received(0, [1.0, 0.0], rows=30, device="a"),
        received(1, [4.0, 1.0], rows=1, device="b"),
        received(2, [5.0, 0.0], rows=10, device="a"),
    ]

    aggregate = make_strategy("fedmedian").aggregate(np.zeros(2), updates, {})

    # That of a is (30 * [1, 0] + 10 * [5, 0]) / 40 = [2, 0].
    assert aggregate.weights.tolist() == [3.0, 0.5]
    assert aggregate.shares.tolist() == [0.375, 0.5, 0.125]


def test_one_poisoned_update_in_a_hundred_moves_the_average_and_not_the_robust_means():
    generator = np.random.default_rng(0)
    learned = generator.normal(loc=1.0, scale=0.1, size=(100, 9))
    poisoned = learned.copy()
    poisoned[17] = 33.0  # a norm of 99: below what admission refuses

    def moves(weights):
        return {
            name: make_strategy(name).aggregate(np.zeros(9), of_devices(*weights.tolist()), {})
            for name in STRATEGIES
        }

    before, after = moves(learned), moves(poisoned)
    moved = {name: np.abs(after[name].weights - before[name].weights).max() for name in STRATEGIES}

    # (33 - 1) / 100; a rank or two of a hundred values with a spread of 0.1
    assert moved["fedavg"] == pytest.approx(0.32, abs=0.01)
    assert moved["fedmedian"] < 0.01
    assert moved["fedtrimmedavg"] < 0.01
    assert after["fedmedian"].shares[17] == after["fedtrimmedavg"].shares[17] == 0.0


def test_too_few_devices_to_trim_give_their_plain_mean():
    updates = of_devices([1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [6.0, 0.0], rows=9)

    aggregate = make_strategy("fedtrimmedavg").aggregate(np.zeros(2), updates, {})

    assert aggregate.weights.tolist() == [3.0, 0.0]
    assert aggregate.shares.tolist() == [0.25] * 4


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


@every_strategy
def test_the_server_learning_rate_scales_the_step(name):
    strategy = make_strategy(name, {"server_learning_rate": 0.5})

    aggregate = strategy.aggregate(np.array([1.0, 1.0]), [received(0, [4.0, 2.0], rows=1)], {})

    assert aggregate.weights.tolist() == [3.0, 2.0]


@every_strategy
def test_options_are_stored_with_all_that_makes_the_strategy_again(name):
    strategy = make_strategy(name, {"server_learning_rate": 0.5})

    stored = msgspec.to_builtins(strategy.options)

    assert (strategy.name, stored["server_learning_rate"]) == (name, 0.5)
    assert make_strategy(name, stored).options == strategy.options


@every_strategy
def test_a_round_without_updates_makes_no_model(name):
    with pytest.raises(ValueError, match="no model"):
        make_strategy(name).aggregate(np.zeros(2), [], {})


@every_strategy
def test_an_untrained_update_is_an_error(name):
    untrained = received(0, [1.0, 1.0], rows=1)
    untrained.update.weights = None

    with pytest.raises(ValueError, match="not trained"):
        make_strategy(name).aggregate(np.zeros(2), [untrained], {})


def test_unknown_names_and_options_are_errors_that_name_them():
    with pytest.raises(
        msgspec.ValidationError, match="'fedmax', only fedavg, fedmedian, fedtrimmedavg"
    ):
        make_strategy("fedmax")
    with pytest.raises(msgspec.ValidationError, match="momentum"):
        make_strategy("fedavg", {"momentum": 1})
    with pytest.raises(msgspec.ValidationError, match="server_learning_rate"):
        make_strategy("fedavg", {"server_learning_rate": 0})
    with pytest.raises(msgspec.ValidationError, match=r"strategy fedmedian: .*quality_weighting"):
        make_strategy("fedmedian", {"quality_weighting": True})
    with pytest.raises(msgspec.ValidationError, match=r"strategy fedtrimmedavg: .*beta"):
        make_strategy("fedtrimmedavg", {"beta": 0.5})
