"""When a dead job or stream is set going again."""

from datetime import UTC, datetime, timedelta

import pytest

from flead.health.healing import (
    Step,
    dead_parts,
    deployment_limit,
    next_step,
    overdue_parts,
    verdict_of,
)
from flead.health.readings import Breach, Part, Reading, Verdict
from flead.settings import Settings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SETTINGS = Settings(healing_attempts_per_hour=3, healing_backoff_seconds=60.0)


def after(*seconds_ago, settings=SETTINGS):
    attempts = [NOW - timedelta(seconds=seconds) for seconds in seconds_ago]
    return next_step(attempts, NOW, settings)


def test_the_first_attempt_is_made_at_once():
    assert after() is Step.DEPLOY


@pytest.mark.parametrize(
    ("seconds_ago", "step"),
    [
        ([59], Step.WAIT),
        ([60], Step.DEPLOY),
        ([300, 119], Step.WAIT),
        ([300, 120], Step.DEPLOY),
    ],
)
def test_each_further_attempt_waits_twice_as_long(seconds_ago, step):
    assert after(*seconds_ago) is step


def test_a_person_is_asked_after_the_attempts_of_an_hour():
    assert after(3_599, 2_000, 1_000) is Step.ASK
    assert after(3_600, 2_000, 1_000) is Step.DEPLOY


def test_without_attempts_a_person_is_asked_at_once():
    assert after(settings=Settings(healing_attempts_per_hour=0)) is Step.ASK


def test_only_what_is_dead_is_deployed_again():
    def breach(rule):
        return Breach(rule, 2.0, 1.0)

    assert dead_parts([breach("stream_failed"), breach("job_absent")]) == list(Part)
    assert dead_parts([breach("job_failed")]) == [Part.TRAINING]
    assert dead_parts([breach("stream_lost")]) == [Part.STREAM]
    left_alone = ("cluster_unreachable", "job_ended", "job_not_running", "restarts", "stream_ended")
    assert dead_parts([breach(rule) for rule in left_alone]) == []


def overdue(*deploying, minutes_apart=1, settings=SETTINGS):
    """Judge the last of readings that are some minutes apart, of what each saw being deployed."""
    *earlier, newest = [
        Reading(created_at=NOW + timedelta(minutes=minutes_apart * number), deploying=parts)
        for number, parts in enumerate(deploying)
    ]
    return overdue_parts(newest, earlier, settings)


def test_a_deployment_is_waited_for_as_long_as_its_run_may_take():
    training, both = [Part.TRAINING], [Part.TRAINING, Part.STREAM]
    assert overdue(*[training] * 61) == []
    assert overdue(*[training] * 62) == training
    assert overdue(*[training] * 31, [], *[training] * 31) == []
    assert overdue(*[training] * 31, *[both] * 31) == training


def test_a_deployment_of_jobs_that_start_slowly_is_waited_for_longer():
    assert deployment_limit(SETTINGS) == timedelta(hours=1)
    # 50 minutes, and twice 20 for the new job and the one that is restored
    slow = Settings(job_start_seconds=1_200.0)
    assert deployment_limit(slow) == timedelta(minutes=90)
    training = [Part.TRAINING]
    assert overdue(*[training] * 91, settings=slow) == []
    assert overdue(*[training] * 92, settings=slow) == training


def test_of_a_deployment_before_airflow_was_down_nothing_is_known():
    assert overdue(*[[Part.TRAINING]] * 20, minutes_apart=5) == [Part.TRAINING]
    assert overdue(*[[Part.TRAINING]] * 20, minutes_apart=6) == []


BREACH = [Breach("job_failed", "FAILED", "RUNNING")]


@pytest.mark.parametrize(
    ("breaches", "steps", "deploying", "verdict"),
    [
        ([], {}, [], Verdict.HEALTHY),
        ([], {}, [Part.STREAM], Verdict.DEPLOYING),
        (BREACH, {}, [Part.STREAM], Verdict.BREACHED),
        (BREACH, {Part.TRAINING: Step.WAIT}, [], Verdict.BREACHED),
        (BREACH, {Part.TRAINING: Step.DEPLOY}, [], Verdict.HEALING),
        (BREACH, {Part.TRAINING: Step.DEPLOY, Part.STREAM: Step.ASK}, [], Verdict.EXHAUSTED),
    ],
)
def test_a_verdict_says_what_is_done(breaches, steps, deploying, verdict):
    assert verdict_of(breaches, steps, deploying) is verdict
