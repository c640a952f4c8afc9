"""A device rests when it has learned what it can, and wakes for a reason."""

import numpy as np
import pytest

from flead.learning.plateau import FRESH, GAIN, LOSS, RESTING, Patience, rests, take_loss

PATIENCE = Patience(memory=4.0, windows=10.0, max_idle_windows=5.0)


def windows(progress, losses, gain=0.0, version=1, better=False, drifted=False):
    """Say of each window whether the device rests on it."""
    said = []
    for loss in losses:
        take_loss(progress, loss, gain, PATIENCE)
        said.append(rests(progress, version, better, drifted, PATIENCE))
    return said


def resting():
    progress = FRESH.copy()
    assert windows(progress, [0.2] * 11)[-1]
    return progress


def test_it_rests_after_so_many_windows_without_improvement():
    assert windows(FRESH.copy(), [0.2] * 12) == [False] * 10 + [True] * 2


def test_a_falling_loss_never_rests():
    assert not any(windows(FRESH.copy(), 0.7 * 0.98 ** np.arange(100)))


def test_a_plateau_on_which_training_still_pays_does_not_rest():
    assert not any(windows(FRESH.copy(), [0.2] * 40, gain=0.01))


def test_the_mean_of_the_first_windows_is_plain_and_then_forgets():
    progress = FRESH.copy()

    windows(progress, [0.8, 0.4, 0.6], gain=0.3)
    assert progress[[LOSS, GAIN]] == pytest.approx([0.6, 0.3])
    windows(progress, [0.6, 1.0])

    assert progress[LOSS] == pytest.approx(0.75 * 0.6 + 0.25 * 1.0)


@pytest.mark.parametrize(
    "reason",
    [{"drifted": True}, {"version": 2, "better": True}],
    ids=["a drift", "a new and better global model"],
)
def test_it_wakes_at_once_and_does_not_rest_again_before_its_patience_ends(reason):
    progress = resting()

    assert windows(progress, [0.2], **reason) == [False]
    assert windows(progress, [0.2] * 9) == [False] * 9
    assert windows(progress, [0.2] * 2)[-1]


@pytest.mark.parametrize("no_reason", [{"version": 2}, {"version": 1, "better": True}])
def test_a_worse_or_known_global_model_does_not_wake_it(no_reason):
    assert windows(resting(), [0.2] * 4, **no_reason) == [True] * 4


def test_it_wakes_after_so_many_windows_with_or_without_labels():
    labelled, unlabelled = resting(), resting()

    assert windows(labelled, [0.2] * 6) == [True] * 5 + [False]
    said = [rests(unlabelled, 1, False, False, PATIENCE) for _ in range(6)]

    assert said == [True] * 5 + [False]
    assert unlabelled[RESTING] == 0.0
