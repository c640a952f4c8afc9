"""Settings of a demonstration until a decision, and a stack that was started with others."""

import pytest

from flead.settings import Settings
from flead.stack.decision import decision_settings, period_seconds, unreached

WANTED = decision_settings(200, 31_000)


@pytest.mark.parametrize(
    ("devices", "rows_per_minute", "seconds"),
    # Each device sends 30 rows, from which it counts, in half the time.
    [(200, 31_000, 60), (2407, 31_000, 280), (60, 60, 3600)],
)
def test_a_trial_lasts_until_devices_have_sent_twice_the_rows_that_they_count_from(
    devices, rows_per_minute, seconds
):
    settings = Settings.from_environment(decision_settings(devices, rows_per_minute))

    assert period_seconds(devices, rows_per_minute) == seconds
    assert settings.tuning_horizon_seconds == seconds


@pytest.mark.parametrize(("devices", "least"), [(5, 2), (40, 4), (100, 10), (2407, 10)])
def test_cohorts_of_a_fleet_have_the_devices_that_they_need(devices, least):
    settings = Settings.from_environment(decision_settings(devices, 31_000))

    assert settings.tuning_min_devices == least
    assert devices < 10 or devices * settings.tuning_fraction >= 2 * least


def test_of_a_stack_with_the_wanted_settings_nothing_is_said():
    assert unreached(WANTED, WANTED | {"FLEAD_HOME": "elsewhere", "PATH": "/usr/bin"}) is None
    assert unreached({}, {}) is None


def test_of_a_stack_with_other_settings_it_is_said_which_they_are_and_what_to_do():
    warning = unreached(WANTED, WANTED | {"FLEAD_TUNING_HORIZON_SECONDS": "900"})

    assert warning is not None
    assert "FLEAD_TUNING_HORIZON_SECONDS is 900, not 60. " in warning
    assert "`flead down`" in warning
    # The horizon, 300 s around it, and a minute each for evaluation, approval and two rounds
    assert warning.endswith("--timeout 1440")


def test_a_stack_without_any_has_the_defaults():
    warning = unreached(WANTED, {})

    assert warning is not None
    assert "FLEAD_EVALUATION_INTERVAL_SECONDS is 600, not 60" in warning
    assert "FLEAD_TUNING_HORIZON_SECONDS is 1800, not 60" in warning
