"""Readings of the health gate as they are stored, on plain PostgreSQL and on TimescaleDB."""

from datetime import UTC, datetime, timedelta

import msgspec
import psycopg2
import pytest

from flead.contracts.analysis import StreamAnalysis
from flead.contracts.deployment import TrainingDeployment
from flead.health.readings import Breach, Part, Positions, Reading, Verdict
from flead.storage import deployments, health, stream_deployments
from flead.storage.stream_deployments import StreamState

pytestmark = pytest.mark.servers

START = datetime(2026, 11, 24, 12, 0, 0, 123_456, tzinfo=UTC)
CONFIGURATION = TrainingDeployment(features=["x"], bootstrap_servers="127.0.0.1:1")
STREAM = StreamAnalysis(
    deployment_id="s",
    kafka={"bootstrap.servers": "127.0.0.1:1"},
    checkpoint_uri="file:///c",
    state_uri="file:///s",
    archive_uri="file:///a",
)
READING = Reading(
    created_at=START,
    deployment_id="d",
    job_id="1" * 32,
    job_state="RUNNING",
    vertices_running=9,
    vertices_total=9,
    checkpoint_interval_seconds=5.0,
    window_seconds=60.0,
    checkpoint_age_seconds=4.25,
    failed_checkpoints=2,
    restarts=1,
    back_pressure_ratio=0.1,
    lag_rows=2_000,
    lag_seconds=4.5,
    rows_per_second=516.5,
    updates_per_second=40.0,
    dead_letters_per_minute=3.0,
    stream_deployment_id="s",
    stream_state="active",
    stream_trigger_seconds=30.0,
    stream_batch_age_seconds=20.0,
    stream_lag_rows=9_000,
    stream_lag_seconds=17.0,
    positions=Positions({0: 12, 3: 2**40}, {"local-model-updates": {0: 7}}),
    deploying=[Part.STREAM],
)
UNKNOWN = Reading(created_at=START, deployment_id="d", job_id="1" * 32, flink_error="refused")
DEAD = [Breach("job_failed", "FAILED", "RUNNING")]


def store(cursor, run, reading, verdict=Verdict.HEALTHY, breaches=(), healing=()):
    health.replace_reading(cursor, run, reading, verdict, breaches, healing)


def later(reading, minutes):
    return msgspec.structs.replace(reading, created_at=START + timedelta(minutes=minutes))


@pytest.mark.parametrize("reading", [READING, UNKNOWN], ids=["of everything", "of nothing"])
def test_a_reading_comes_back_as_it_was(cursor, reading):
    store(cursor, "run-1", reading)

    assert health.readings_since(cursor, START, "run-2") == [reading]


def test_readings_come_in_their_order_from_a_time_on_and_without_that_of_the_run(cursor):
    for minute in (3, 0, 2, 1):
        store(cursor, f"run-{minute}", later(READING, minute))

    since = START + timedelta(minutes=1)
    assert health.readings_since(cursor, since, "run-3") == [later(READING, 1), later(READING, 2)]


def test_a_repetition_of_a_run_replaces_its_reading(cursor):
    store(cursor, "run-1", READING)
    breaches = [*DEAD, Breach("restarts", 4.0, 3.0)]
    store(cursor, "run-1", later(READING, 1), Verdict.HEALING, breaches, [Part.TRAINING])

    cursor.execute("SELECT created_at, verdict, reasons, healing FROM training_health")
    assert cursor.fetchall() == [
        (
            START + timedelta(minutes=1),
            "healing",
            [
                {"rule": "job_failed", "value": "FAILED", "limit": "RUNNING"},
                {"rule": "restarts", "value": 4.0, "limit": 3.0},
            ],
            ["training"],
        )
    ]


def test_what_was_set_going_again_is_counted_by_part_and_but_for_that_of_the_run(cursor):
    healed = {0: [Part.TRAINING], 1: [Part.STREAM], 2: list(Part), 3: [Part.TRAINING], 4: []}
    for minute, parts in healed.items():
        verdict = Verdict.HEALING if parts else Verdict.BREACHED
        store(cursor, f"run-{minute}", later(READING, minute), verdict, DEAD, parts)

    def minutes(part):
        since = START + timedelta(minutes=1)
        found = health.healings_since(cursor, part, since, "run-3")
        return [(at - START) // timedelta(minutes=1) for at in found]

    assert minutes(Part.TRAINING) == [2]
    assert minutes(Part.STREAM) == [1, 2]


def test_what_could_not_be_set_going_again_is_taken_back_and_counts_no_more(cursor):
    store(cursor, "alone", READING, Verdict.HEALING, DEAD, [Part.TRAINING])
    store(cursor, "both", later(READING, 1), Verdict.HEALING, DEAD, list(Part))
    store(cursor, "asked", later(READING, 2), Verdict.EXHAUSTED, DEAD, [Part.TRAINING])
    store(cursor, "other", later(READING, 3), Verdict.HEALING, DEAD, [Part.TRAINING])

    for run in ("alone", "both", "asked", "asked"):
        health.take_back_healing(cursor, run, Part.TRAINING)

    cursor.execute("SELECT verdict, healing FROM training_health ORDER BY created_at")
    assert cursor.fetchall() == [
        ("breached", []),
        ("healing", ["stream"]),
        ("exhausted", []),
        ("healing", ["training"]),
    ]
    counted = health.healings_since(cursor, Part.TRAINING, START, "run")
    assert counted == [later(READING, 3).created_at]


@pytest.mark.parametrize(
    ("verdict", "breaches", "healing"),
    [
        (Verdict.HEALTHY, DEAD, []),
        (Verdict.BREACHED, [], []),
        (Verdict.HEALING, DEAD, []),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused(cursor, verdict, breaches, healing):
    with pytest.raises(psycopg2.errors.CheckViolation):
        store(cursor, "run-1", READING, verdict, breaches, healing)


class TestExpectedTraining:
    def test_is_none_before_a_deployment_and_after_a_stop_for_good(self, cursor):
        assert deployments.expected(cursor) is None
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        deployments.mark_stopped(cursor, job, "by hand", None)
        assert deployments.expected(cursor) is None

    def test_is_the_active_job(self, cursor):
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        active = deployments.mark_active(cursor, job)
        assert deployments.expected(cursor) == active

    def test_is_a_suspended_job_only_once_it_could_not_be_resumed(self, cursor):
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        suspended = deployments.mark_suspended(cursor, job, "down", "file:///s")
        assert deployments.expected(cursor) is None
        resumed = deployments.open_attempt(cursor, "d", CONFIGURATION, "file:///s")
        assert deployments.expected(cursor) == resumed
        deployments.mark_failed(cursor, resumed.job_id, "no slots")
        assert deployments.expected(cursor) == suspended


def test_the_expected_stream_is_the_newest_also_when_its_driver_has_failed(cursor):
    assert stream_deployments.expected(cursor) is None
    stream_deployments.submit(cursor, STREAM)
    newer = msgspec.structs.replace(STREAM, deployment_id="t")
    stream_deployments.submit(cursor, newer)
    stream_deployments.end(cursor, "t", StreamState.FAILED, "data loss")

    assert stream_deployments.expected(cursor).configuration == newer
    assert stream_deployments.wanted(cursor) is None


def test_a_stream_that_is_submitted_again_has_no_lag_before_its_driver_has_looked(cursor):
    stream_deployments.submit(cursor, STREAM)
    stream_deployments.begin(cursor, STREAM, "host", 1, "query")
    stream_deployments.beat(cursor, "s", 0, is_stopping=False)
    stream_deployments.end(cursor, "s", StreamState.FAILED, "killed")

    stream_deployments.submit(cursor, STREAM)
    stream_deployments.begin(cursor, STREAM, "host", 2, "query")

    assert stream_deployments.get(cursor, "s").lag_rows is None
