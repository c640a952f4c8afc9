"""Hyperparameters stay in their bounds, and large steps are known as such."""

import pytest

from flead.contracts.messages import Hyperparameters
from flead.settings import TuningBounds
from flead.tuning.bounds import clip, factor


def test_what_lies_outside_is_moved_to_the_bound_and_what_is_not_tuned_stays():
    outside = Hyperparameters(5.0, 0.0, 1, 90.0, 50, 0.9)

    assert clip(outside, TuningBounds()) == Hyperparameters(0.5, 1e-6, 10, 90.0, 10, 0.5)
    assert clip(Hyperparameters(), TuningBounds()) == Hyperparameters()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 1.0),
        ({"learning_rate": 0.2}, 4.0),
        ({"learning_rate": 0.0125}, 4.0),
        ({"window_rows": 15}, 2.0),
        ({"local_epochs": 6, "learning_rate": 0.1}, 2.0),
        ({"alpha": 1.0, "ditto_pull": 0.0}, 1.0),
    ],
)
def test_a_step_is_as_large_as_its_largest_factor_up_or_down(changed, expected):
    assert factor(Hyperparameters(), Hyperparameters(**changed)) == pytest.approx(expected)
