"""The simulated fleet: reproducible, plausible, and as hard to learn as it should be."""

from itertools import pairwise, takewhile

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flead.contracts.messages import Telemetry
from flead.contracts.simulation import FEATURES
from flead.features.decoding import TelemetryDecoder
from flead.fleet.attacks import ATTACKS, EPISODE_ROWS, FLATLINE
from flead.fleet.devices import KINDS
from flead.fleet.malformed import MALFORMATIONS
from flead.fleet.simulator import Simulator
from flead.fleet.streaming import limit

FLEET = {"devices": 2407, "rate_per_minute": 31_000, "anomaly_rate": 0.15, "seed": 7}


def first_rows(simulator, seconds):
    """Return the batches of the first `seconds`."""
    return list(takewhile(lambda batch: batch.seconds[0] < seconds, simulator.batches()))


def by_device(simulator, periods):
    """Return the values (periods, devices, features) and attacks (periods, devices) of a fleet."""
    batches = first_rows(simulator, periods * simulator.period_seconds)
    device = np.concatenate([batch.device_index for batch in batches])
    order = np.argsort(device, kind="stable")
    shape = (simulator.devices, -1)
    values = np.concatenate([batch.values for batch in batches])[order]
    attack = np.concatenate([batch.attack for batch in batches])[order]
    per_device = values.reshape(*shape, len(FEATURES)).swapaxes(0, 1)
    return per_device[:periods], attack.reshape(shape).T[:periods]


def encoded(simulator):
    return next(simulator.batches()).encode()


class TestReproducibility:
    def test_the_same_parameters_give_the_same_bytes(self):
        parameters = FLEET | {"drift_at_seconds": 10, "malformed_rate": 0.01}

        first, second = (encoded(Simulator(**parameters)) for _ in range(2))

        assert first == second
        assert len(first) > 16_000

    def test_each_call_of_batches_starts_anew(self):
        simulator = Simulator(**FLEET)

        assert encoded(simulator) == encoded(simulator)

    def test_another_seed_gives_other_rows(self):
        assert encoded(Simulator(**FLEET)) != encoded(Simulator(**FLEET | {"seed": 8}))

    def test_the_start_moves_event_times_and_nothing_else(self):
        start_ms = 1_764_000_000_000

        batch = next(Simulator(**FLEET).batches())
        moved = next(Simulator(**FLEET, start_ms=start_ms).batches())

        np.testing.assert_array_equal(moved.event_time, batch.event_time + start_ms)
        np.testing.assert_array_equal(moved.values, batch.values)
        np.testing.assert_array_equal(moved.attack, batch.attack)

    def test_malformed_messages_leave_the_other_rows_alone(self):
        clean = encoded(Simulator(**FLEET))
        batch = next(Simulator(**FLEET, malformed_rate=0.05).batches())

        differing = [a != b for a, b in zip(clean, batch.encode(), strict=True)]

        np.testing.assert_array_equal(differing, batch.malformation >= 0)
        assert np.mean(differing) == pytest.approx(0.05, abs=0.01)
        assert set(batch.malformation) == set(range(-1, len(MALFORMATIONS)))


class TestTiming:
    def test_the_fleet_sends_at_the_rate(self):
        seconds = np.concatenate([b.seconds for b in first_rows(Simulator(**FLEET), 600)])

        assert np.count_nonzero(seconds < 600) == pytest.approx(310_000, abs=2407)

    def test_rows_are_spread_evenly_over_each_second(self):
        seconds = np.concatenate([b.seconds for b in first_rows(Simulator(**FLEET), 60)])

        rows = np.bincount(seconds[seconds < 60].astype(int))

        assert np.all(np.abs(rows - 31_000 / 60) < 0.1 * 31_000 / 60)

    def test_rows_come_in_order_of_time_for_the_fleet_and_for_each_device(self):
        batches = first_rows(Simulator(**FLEET), 60)
        seconds = np.concatenate([b.seconds for b in batches])
        device = np.concatenate([b.device_index for b in batches])

        assert np.all(np.diff(seconds) >= 0)
        gaps = np.diff(seconds[device == 11])
        assert np.all(np.abs(gaps - 4.659) < 2 * 0.2 * 4.659 + 0.001)

    def test_event_time_is_the_start_and_the_time_since_in_milliseconds(self):
        batch = next(Simulator(**FLEET, start_ms=5_000).batches())

        np.testing.assert_array_equal(batch.event_time, 5_000 + np.floor(batch.seconds * 1000))


class TestLimit:
    def test_ends_after_exactly_the_messages_that_were_asked_for(self):
        batches = list(limit(Simulator(**FLEET).batches(), 40_000, None))

        assert sum(map(len, batches)) == 40_000
        first = next(Simulator(**FLEET).batches())
        np.testing.assert_array_equal(batches[0].values, first.values)

    def test_ends_before_the_first_message_that_is_due_too_late(self):
        batches = list(limit(Simulator(**FLEET).batches(), None, 60.0))

        assert batches[-1].seconds[-1] < 60.0
        assert sum(map(len, batches)) == pytest.approx(31_000, abs=100)


class TestAttacks:
    @pytest.mark.parametrize("rate", [0.0, 0.05, 0.15, 0.5, 1.0])
    def test_the_mean_share_of_labelled_rows_is_the_anomaly_rate(self, rate):
        _, attack = by_device(Simulator(**FLEET | {"anomaly_rate": rate}), periods=60)

        assert np.mean(attack >= 0) == pytest.approx(rate, abs=0.01)
        assert np.mean(attack[0] >= 0) == pytest.approx(rate, abs=0.025)

    def test_an_attack_is_an_episode_of_consecutive_rows(self):
        _, attack = by_device(Simulator(**FLEET | {"anomaly_rate": 0.02}), periods=100)
        edges = np.diff(np.pad(attack + 1, ((1, 1), (0, 0))), axis=0) != 0

        lengths = {kind: [] for kind in range(len(ATTACKS))}
        for device in range(attack.shape[1]):
            bounds = np.flatnonzero(edges[:, device])
            for first, last in pairwise(bounds):
                whole = first > 0 and last < len(attack)
                if whole and attack[first, device] >= 0:
                    lengths[attack[first, device]].append(last - first)

        # The rare longest ones are two episodes of one attack that follow each other at once.
        assert {kind: min(rows) for kind, rows in lengths.items()} == {
            kind: fewest for kind, (fewest, _) in EPISODE_ROWS.items()
        }
        for kind, (_, most) in EPISODE_ROWS.items():
            assert np.quantile(lengths[kind], 0.98) <= most

    def test_a_flat_line_repeats_one_value_to_the_last_digit(self):
        values, attack = by_device(Simulator(**FLEET), periods=60)
        period, device = np.nonzero(
            (attack[:-3] == FLATLINE) & (attack[3:] == FLATLINE) & (attack[1:-2] == FLATLINE)
        )

        repeated = (values[period, device] == values[period + 1, device]).any(axis=1)

        assert np.mean(repeated) > 0.9  # the others lost a reading or began anew

    def test_a_message_says_which_attack_it_belongs_to(self):
        batch = next(Simulator(**FLEET).batches())

        for row, attack in zip(batch.telemetry(), batch.attack, strict=True):
            expected = (0, None) if attack < 0 else (1, ATTACKS[attack])
            assert (row.label, row.attack_type) == expected


class TestDevices:
    def test_a_kind_lacks_its_features_in_every_message_and_loses_others_at_random(self):
        rows = next(Simulator(**FLEET).batches()).telemetry()

        lost = total = 0
        for row in rows:
            kind = next(kind for kind in KINDS if row.device_id.startswith(kind.name))
            assert set(row.features) == set(kind.signals)
            lost += sum(value is None for value in row.features.values())
            total += len(row.features)
        assert lost / total == pytest.approx(0.01, abs=0.002)

    def test_every_message_validates_against_the_contract_under_its_device_as_key(self):
        for key, value in encoded(Simulator(**FLEET)):
            row = msgspec.json.decode(value, type=Telemetry)
            assert key == row.device_id.encode()
            assert set(row.features) <= set(FEATURES)

    def test_devices_of_a_kind_differ_by_more_than_an_attack(self):
        values, attack = by_device(Simulator(**FLEET), periods=60)
        temperature = np.where(attack < 0, values[..., FEATURES.index("temperature")], np.nan)

        between_devices = np.std(np.nanmean(temperature, axis=0))
        within_a_device = np.median(np.nanstd(temperature, axis=0))

        assert between_devices > 10 * within_a_device

    def test_values_follow_a_daily_rhythm_with_a_peak_of_each_device_its_own(self):
        quiet = {"devices": 200, "rate_per_minute": 20, "anomaly_rate": 0.0, "seed": 3}
        values, _ = by_device(Simulator(**quiet), periods=288)
        temperature = np.nan_to_num(values[..., 0] - np.nanmean(values[..., 0], axis=0))

        spectrum = np.abs(np.fft.rfft(temperature, axis=0)) ** 2
        phase = np.angle(np.fft.rfft(temperature, axis=0)[2])

        # Two days of one row each ten minutes: the second harmonic is one a day.
        assert np.mean(np.argmax(spectrum, axis=0) == 2) > 0.9
        assert np.all(np.histogram(phase, bins=4, range=(-np.pi, np.pi))[0] > 25)


class TestDrift:
    DRIFT = 1_200

    @pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:Degrees of freedom")
    def test_changes_the_level_of_three_devices_in_ten_for_good_and_labels_nothing(self):
        calm = FLEET | {"devices": 500, "rate_per_minute": 3_000, "anomaly_rate": 0.0}
        before, _ = by_device(Simulator(**calm), periods=240)
        after, attack = by_device(Simulator(**calm, drift_at_seconds=self.DRIFT), periods=240)

        np.testing.assert_array_equal(after[:120], before[:120])
        moved = np.nanmean(after[121:] - before[121:], axis=0)
        noise = np.nanstd(before[:120], axis=0)
        assert np.mean(np.nanmax(np.abs(moved / noise), axis=1) > 2) == pytest.approx(0.3, abs=0.05)
        assert np.all(attack == -1)


class TestDifficulty:
    """A linear model needs what FLEAD computes: raw values of a fleet do not give attacks away."""

    @pytest.fixture(scope="class")
    @classmethod
    def fleet(cls):
        values, attack = by_device(Simulator(240, 3_120, 0.15, seed=0), periods=500)
        return values, (attack >= 0)

    @staticmethod
    def scores(inputs, labels):
        """Return ROC AUC and accuracy of a model fitted to the past on what comes after."""
        split, flat = 300, (-1, inputs.shape[-1])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(inputs[100:split].reshape(flat), labels[100:split].ravel())
        probability = model.predict_proba(inputs[split:].reshape(flat))[:, 1]
        truth = labels[split:].ravel()
        return roc_auc_score(truth, probability), np.mean((probability > 0.5) == truth)

    @staticmethod
    def standardized_inputs(values):
        """Value, z-score, rolling mean and deviation, standardized for each device by its past."""
        history = np.lib.stride_tricks.sliding_window_view(values[:-1], 100, axis=0)
        mean, std = np.full_like(values, np.nan), np.full_like(values, np.nan)
        mean[100:], std[100:] = np.nanmean(history, axis=-1), np.nanstd(history, axis=-1)
        z_score = np.clip((values - mean) / std, -10, 10)
        inputs = np.concatenate([values, z_score, mean, std], axis=-1)
        past = inputs[100:300]
        standardized = (inputs - np.nanmean(past, axis=0)) / np.nanstd(past, axis=0)
        return np.nan_to_num(np.clip(standardized, -10, 10))

    def test_a_pooled_linear_model_of_raw_values_is_near_chance(self, fleet):
        values, labels = fleet
        filled = np.where(np.isnan(values), np.nanmean(values, axis=(0, 1)), values)

        auc, _ = self.scores(filled, labels)

        assert 0.5 < auc < 0.6

    @pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:Degrees of freedom")
    def test_a_linear_model_of_standardized_inputs_is_good_and_not_perfect(self, fleet):
        values, labels = fleet

        auc, accuracy = self.scores(self.standardized_inputs(values), labels)

        assert 0.92 < auc < 0.97
        assert 0.93 < accuracy < 0.97


class TestMalformed:
    @pytest.mark.parametrize("malformation", MALFORMATIONS, ids=lambda kind: kind.name)
    def test_each_kind_becomes_a_dead_letter_with_its_reason(self, malformation):
        messages = [malformation(*message) for message in encoded(Simulator(**FLEET))[:500]]
        positions = np.arange(len(messages))

        rows, letters = TelemetryDecoder(FEATURES).decode(
            [key for key, _ in messages],
            [value for _, value in messages],
            np.zeros(len(messages), dtype=np.int32),
            positions,
            positions,
        )

        assert len(rows) == 0
        assert {letter.reason for letter in letters} == {malformation.reason}

    def test_the_kinds_are_told_apart(self):
        key, value = encoded(Simulator(**FLEET))[0]

        assert len({kind(key, value) for kind in MALFORMATIONS}) == len(MALFORMATIONS)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("devices", 0), ("rate_per_minute", 0), ("anomaly_rate", 1.5), ("malformed_rate", -0.1)],
)
def test_a_parameter_out_of_range_is_named(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        Simulator(**FLEET | {parameter: value})
