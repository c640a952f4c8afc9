"""The error of the last versions against that of those before, on the same windows."""

from datetime import UTC, datetime, timedelta

import pytest

from flead.storage.outcomes import FleetError
from flead.tuning.deciding import NotEnoughError, compare

START = datetime(2026, 1, 1, tzinfo=UTC)


def window(number):
    return START + timedelta(hours=number), START + timedelta(hours=number + 1)


def error(version, log_loss, *, on=0, samples=100):
    return FleetError(version, window(on), samples, log_loss)


def test_on_one_window_the_means_of_both_halves_are_compared():
    errors = [error(1, 0.5), error(2, 0.4), error(3, 0.35), error(4, 0.25)]

    compared = compare([1, 2, 3, 4], errors)

    assert (compared.earlier, compared.later) == ([1, 2], [3, 4])
    assert compared.earlier_error == pytest.approx(0.45)
    assert compared.later_error == pytest.approx(0.3)
    assert compared.improvement == pytest.approx(1 / 3)
    assert (compared.scored, compared.windows) == (4, 1)


def test_a_harder_window_does_not_look_like_a_worse_model():
    # Version 2, the parent of 3, was scored again on the second window, which is harder by 1.
    errors = [
        error(1, 0.5),
        error(2, 0.4),
        error(2, 1.4, on=1),
        error(3, 1.3, on=1),
        error(4, 1.3, on=1),
    ]

    compared = compare([1, 2, 3, 4], errors)

    assert compared.earlier_error == pytest.approx((0.5 + 0.4) / 2)
    assert compared.later_error == pytest.approx((0.3 + 0.3) / 2)


def test_windows_that_two_versions_share_count_by_their_labelled_rows():
    errors = [
        error(1, 0.5, samples=300),
        error(2, 0.4, samples=300),
        error(1, 0.8, on=1, samples=100),
        error(2, 0.3, on=1, samples=100),
    ]

    compared = compare([1, 2], errors)

    # 0.5 + (300 * -0.1 + 100 * -0.5) / 400
    assert compared.later_error == pytest.approx(0.3)


def test_half_of_the_versions_of_each_half_are_enough():
    errors = [error(1, 0.5), error(4, 0.5)]

    assert compare([1, 2, 3, 4], errors).improvement == 0.0


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([], "of the 2 versions 1 to 2, 0 have an evaluation that passed"),
        ([error(1, 0.5), error(2, 0.5)], "of the 2 versions 3 to 4, 0 have an evaluation"),
        ([error(1, 0.5), error(3, 0.5, on=1)], "versions 1 and 3 were evaluated on no common"),
    ],
)
def test_without_evaluations_on_common_windows_nothing_is_compared(errors, said):
    with pytest.raises(NotEnoughError, match=said):
        compare([1, 2, 3, 4], errors)


def test_no_versions_are_not_enough():
    with pytest.raises(NotEnoughError, match="no versions"):
        compare([], [])
