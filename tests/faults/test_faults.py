"""Whatever is broken under load, nothing is lost, nothing is there twice, and all goes on."""

import pytest

from flead.contracts.simulation import FEATURES
from tests.accounting import (
    assert_anomalies_are_the_anomalous_rows,
    assert_dead_letters_are_the_rejected,
    assert_windows_account_for_rows,
)
from tests.faults.conftest import WELL, Aftermath, Recovery, chosen
from tests.faults.invariants import assert_all_hold
from tests.faults.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]

LONGEST_WAIT_SECONDS = 60.0


@pytest.mark.parametrize("broken", chosen(), indirect=True, ids=str)
def test_everything_is_well_again_after(broken: Recovery, stack: Stack) -> None:
    assert_all_hold(stack)
    # Transactions that were left open would keep readers waiting.
    assert broken.longest_wait_seconds is not None
    assert broken.longest_wait_seconds < LONGEST_WAIT_SECONDS, broken
    broken.outcome = WELL


def test_each_row_is_in_one_window(aftermath: Aftermath) -> None:
    assert_windows_account_for_rows(aftermath.updates, aftermath.telemetry.rows)


def test_each_anomalous_row_is_one_anomaly(aftermath: Aftermath) -> None:
    assert_anomalies_are_the_anomalous_rows(aftermath.anomalies, aftermath.telemetry.rows, FEATURES)


def test_each_bad_message_is_one_dead_letter(aftermath: Aftermath) -> None:
    assert_dead_letters_are_the_rejected(aftermath.letters, aftermath.telemetry.rejected)


def test_rows_were_sent_until_and_since_each_fault(aftermath: Aftermath) -> None:
    for each in aftermath.recoveries:
        assert each.messages_before
        assert each.messages_after
        assert each.messages_after > each.messages_before, each
