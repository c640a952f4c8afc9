"""A savepoint of the training job is restored by another parallelism and by a changed plan."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flead.contracts.messages import Anomaly, LocalUpdate
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.settings import TRAINING_SCRIPT
from flead.stack.home import Home
from tests.accounting import (
    Judged,
    assert_anomalies_are_the_anomalous_rows,
    assert_dead_letters_are_the_rejected,
    assert_windows_account_for_rows,
    dead_letters,
    messages_of,
)
from tests.integration.training_cluster import TrainingCluster, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

PROGRAMS = Path(__file__).parent / "programs"
ANOTHER_SOURCE = PROGRAMS / "training_with_another_source.py"
TWINS = PROGRAMS / "training_with_one_name_twice.py"
LIVES = (
    (2, TRAINING_SCRIPT),
    (1, TRAINING_SCRIPT),
    (2, TRAINING_SCRIPT),
    (1, ANOTHER_SOURCE),
)
"""Parallelism and program of each life of the job, every one restored from the one before."""

ROWS_OF_A_LIFE = 1500
FLEET = (
    "--devices", "60", "--rate", "1000/s", "--malformed-rate", "0.02", "--seed", "17",
)  # fmt: skip


@dataclass(frozen=True)
class Survivor:
    """The job after all its lives, in which the fleet has never paused."""

    kafka: dict[str, str]
    telemetry: Judged
    failures: list[object]


@pytest.fixture(scope="module")
def survivor(own_home: Home, cluster: TrainingCluster) -> Iterator[Survivor]:
    failures: list[object] = []
    job_id = savepoint = None
    with fleet(own_home):
        for parallelism, script in LIVES:
            if job_id is not None:
                savepoint = cluster.stop(job_id)
            job_id = cluster.submit(savepoint, parallelism=parallelism, script=script)
            enough = cluster.rows_in_windows() + ROWS_OF_A_LIFE
            wait_until(lambda enough=enough: cluster.rows_in_windows() >= enough)
            failures += cluster.failures(job_id)
    telemetry = Judged.of(cluster.kafka, FEATURES)
    wait_until(lambda: cluster.rows_in_windows() >= len(telemetry.rows))
    yield Survivor(cluster.kafka, telemetry, failures)
    cluster.cancel(job_id)


@contextlib.contextmanager
def fleet(home: Home) -> Iterator[None]:
    """Send the rows of a simulated fleet."""
    process = subprocess.Popen(
        [home.python("tools"), "-m", "flead.cli", "simulate", *FLEET],
        env=os.environ | home.variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_no_restore_fails(survivor: Survivor) -> None:
    assert survivor.failures == []


def test_each_row_is_in_one_window_over_all_restores(survivor: Survivor) -> None:
    updates = list(messages_of(survivor.kafka, Topic.LOCAL_UPDATES, LocalUpdate))

    assert len(survivor.telemetry.rows) > len(LIVES) * ROWS_OF_A_LIFE
    assert_windows_account_for_rows(updates, survivor.telemetry.rows)


def test_the_rolling_statistics_go_on_over_all_restores(survivor: Survivor) -> None:
    anomalies = list(messages_of(survivor.kafka, Topic.ANOMALIES, Anomaly))

    assert anomalies
    assert_anomalies_are_the_anomalous_rows(anomalies, survivor.telemetry.rows, FEATURES)


def test_each_bad_message_is_one_dead_letter_over_all_restores(survivor: Survivor) -> None:
    letters = dead_letters(survivor.kafka, Topic.TELEMETRY)

    assert letters
    assert_dead_letters_are_the_rejected(letters, survivor.telemetry.rejected)


def test_two_operators_of_one_name_are_refused(cluster: TrainingCluster) -> None:
    said = cluster.refusal(TWINS)

    assert "two operators have the uid" in said
    assert "twin" in said
