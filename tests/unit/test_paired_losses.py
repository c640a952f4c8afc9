"""Two models on the same rows: the device is the unit, and no device decides alone."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from flead.analysis.paired import added_up, difference_of, pairs_of
from flead.federation.gate import PairedLoss


def pair(device, rows, loss, reference):
    return PairedLoss(device, rows, loss * rows, rows, reference * rows)


def test_means_over_rows_and_over_devices_are_told_apart():
    found = difference_of([pair("a", 30, 0.5, 0.3), pair("b", 10, 0.1, 0.7)])

    assert (found.devices, found.rows) == (2, 40)
    assert found.log_loss == pytest.approx((30 * 0.5 + 10 * 0.1) / 40, rel=1e-15)
    assert found.reference_log_loss == pytest.approx((30 * 0.3 + 10 * 0.7) / 40, rel=1e-15)
    assert found.mean_difference == pytest.approx((0.2 - 0.6) / 2, rel=1e-15)


def test_the_test_is_the_two_sided_paired_t_test_over_devices():
    generator = np.random.default_rng(0)
    own, reference = generator.gamma(2.0, size=(2, 25))
    pairs = [
        pair(f"d{number}", 1 + number, *losses)
        for number, losses in enumerate(zip(own.tolist(), reference.tolist(), strict=True))
    ]

    found = difference_of(pairs)

    expected = stats.ttest_rel(own, reference)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.confidence_interval == pytest.approx(expected.confidence_interval(), rel=1e-9)


def test_a_device_counts_for_ten_nats_at_most():
    found = difference_of([pair("a", 1, 0.0, 0.0), pair("liar", 1, 1e9, 0.0)])

    assert found.mean_difference == 5.0


@pytest.mark.parametrize("pairs", [[pair("a", 5, 1.0, 2.0)], [pair("a", 5, 1.0, 2.0)] * 3])
def test_one_device_or_no_spread_is_no_test(pairs):
    found = difference_of(pairs)

    assert (found.mean_difference, found.confidence_interval, found.p_value) == (-1.0, None, None)


def test_nothing_to_compare_by_is_an_error():
    with pytest.raises(ValueError, match="no device has a labelled row"):
        difference_of([])


def test_windows_of_a_device_are_added_up_to_one_pair():
    windows = [
        PairedLoss("b", 2, 1.0, 2, 4.0), PairedLoss("a", 1, 0.5, 1, 0.25),
        PairedLoss("b", 3, 2.0, 3, 1.0),
    ]  # fmt: skip

    assert added_up(windows) == [PairedLoss("a", 1, 0.5, 1, 0.25), PairedLoss("b", 5, 3.0, 5, 5.0)]


def test_a_device_without_a_labelled_row_makes_no_pair():
    found = pa.table(
        {
            "device_id": ["a", "b", "a", "b"],
            "model_version": [0, 0, 7, 7],
            "tp": [1, 0, 2, 0],
            "fp": [0, 0, 1, 0],
            "tn": [2, 0, 0, 0],
            "fn": [0, 0, 0, 0],
            "log_loss_sum": [0.75, 0.0, 1.5, 0.0],
        }
    )

    assert pairs_of(found, 0, 7) == [PairedLoss("a", 3, 0.75, 3, 1.5)]
