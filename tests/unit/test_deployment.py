"""What a deployment chooses when nobody says."""

import pytest

from flead.contracts.deployment import (
    CHECKPOINT_PAUSE,
    TrainingDeployment,
    checkpoint_interval,
)
from flead.settings import Settings
from flead.stack.training import deploy_seconds

WRITE_SECONDS_A_DEVICE = 12.683 / 240_700
"""As measured on two cores, with 240,700 devices."""


@pytest.mark.parametrize(
    ("devices", "seconds"), [(0, 5), (2_407, 5), (20_000, 5), (240_700, 60), (10_000_000, 120)]
)
def test_checkpoints_lie_five_seconds_apart_and_further_for_a_large_fleet(devices, seconds):
    assert checkpoint_interval(devices) == seconds


def test_a_fleet_without_a_known_size_gets_the_default():
    default = TrainingDeployment(features=["x"], bootstrap_servers="broker:9092")

    assert checkpoint_interval(0) == default.checkpoint_interval_seconds


@pytest.mark.parametrize("devices", [2_407, 24_070, 100_000, 240_700])
def test_writing_state_takes_about_a_fifth_of_the_time_at_most(devices):
    assert WRITE_SECONDS_A_DEVICE * devices / checkpoint_interval(devices) < 0.25


def test_the_first_checkpoint_comes_while_a_deployment_waits_for_it():
    longest = checkpoint_interval(10_000_000)

    assert 2 * longest <= Settings().job_start_seconds


def test_a_checkpoint_of_a_fifth_of_the_interval_is_not_put_off():
    assert pytest.approx(1.0 - 1.0 / 5.0) == CHECKPOINT_PAUSE


def test_a_deployment_is_waited_for_while_two_jobs_start(monkeypatch):
    assert deploy_seconds() == 900
    monkeypatch.setenv("FLEAD_JOB_START_SECONDS", "1200")
    assert deploy_seconds() == 300 + 2 * 1200
