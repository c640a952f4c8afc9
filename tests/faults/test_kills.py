"""Whatever is killed under load, nothing is lost, nothing is there twice, and readers go on."""

from collections.abc import Callable

import pytest

from flead.contracts.simulation import FEATURES
from tests.accounting import (
    assert_anomalies_are_the_anomalous_rows,
    assert_dead_letters_are_the_rejected,
    assert_windows_account_for_rows,
)
from tests.faults.conftest import Aftermath

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

LONGEST_WAIT_SECONDS = 60.0


def test_each_row_is_in_one_window(aftermath: Aftermath) -> None:
    # A single kill, as in `make test`, has time for fewer.
    assert len(aftermath.telemetry.rows) > (100_000 if len(aftermath.kills) > 1 else 50_000)
    assert_windows_account_for_rows(aftermath.updates, aftermath.telemetry.rows)


def test_each_anomalous_row_is_one_anomaly(aftermath: Aftermath) -> None:
    assert_anomalies_are_the_anomalous_rows(aftermath.anomalies, aftermath.telemetry.rows, FEATURES)


def test_each_bad_message_is_one_dead_letter(aftermath: Aftermath) -> None:
    assert_dead_letters_are_the_rejected(aftermath.letters, aftermath.telemetry.rejected)


def test_readers_of_committed_updates_never_wait_for_a_minute(
    aftermath: Aftermath, record_property: Callable[[str, object], None]
) -> None:
    for kill in aftermath.kills:
        record_property(f"longest wait after the end of {kill.name}", kill.longest_wait_seconds)
    record_property("messages of aborted transactions", aftermath.aborted)

    waits = [kill.after_recovery_seconds for kill in aftermath.kills]
    assert max(waits) < LONGEST_WAIT_SECONDS, aftermath.kills
