"""The drift test fires where river's does, to the step."""

import numpy as np
import pytest
from river import drift as river

from flead.learning.drift import FRESH, PageHinkley, has_drifted


def series(seed, rises):
    """Draw a loss of windows that falls, and rises for good at some windows."""
    random = np.random.default_rng(seed)
    level = 0.2 + 0.5 * np.exp(-np.arange(600) / 40.0)
    for at in rises:
        level[at:] += 0.5
    return random.gamma(4.0, level / 4.0)


@pytest.mark.parametrize(
    "settings",
    [
        PageHinkley(),
        PageHinkley(tolerance=0.005, threshold=5.0, min_values=30.0),
        PageHinkley(tolerance=0.3, threshold=0.5, min_values=1.0),
    ],
)
@pytest.mark.parametrize("rises", [(), (200,), (100, 250, 400)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_fires_at_the_same_windows_as_rivers_page_hinkley(settings, rises, seed):
    reference = river.PageHinkley(
        min_instances=int(settings.min_values), delta=settings.tolerance,
        threshold=settings.threshold, alpha=1.0, mode="up",
    )  # fmt: skip
    sums = FRESH.copy()
    found, expected = [], []

    for window, loss in enumerate(series(seed, rises)):
        if has_drifted(sums, loss, settings):
            found.append(window)
        reference.update(loss)
        if reference.drift_detected:
            expected.append(window)

    assert found == expected


def test_a_lasting_rise_is_found_within_a_few_windows_and_steady_noise_is_not():
    steady = [has_drifted(sums, loss, PageHinkley())
              for sums in [FRESH.copy()] for loss in series(5, ())]  # fmt: skip
    risen = [has_drifted(sums, loss, PageHinkley())
             for sums in [FRESH.copy()] for loss in series(5, (300,))]  # fmt: skip

    assert not any(steady)
    assert 300 <= risen.index(True) < 312
