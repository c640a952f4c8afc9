"""When to set going again what is dead, and when to leave it to a person."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from flead.health.readings import Breach, Part, Reading, Verdict
from flead.settings import Settings

ATTEMPTS_WINDOW: Final = timedelta(hours=1)
DEPLOYMENT_SECONDS: Final = 3_000.0
"""Of a run that deploys, for all but the two jobs that may have to start."""
LONGEST_GAP: Final = timedelta(minutes=5)
"""Between two readings of one deployment; there are none while Airflow is down."""
DEAD: Final = {
    "job_absent": Part.TRAINING,
    "job_failed": Part.TRAINING,
    "stream_lost": Part.STREAM,
    "stream_failed": Part.STREAM,
}
"""Rules that only a new deployment mends. What somebody has ended is left to them."""


class Step(StrEnum):
    """What is done about a dead part."""

    DEPLOY = "deploy"
    WAIT = "wait"
    ASK = "ask"


def dead_parts(breaches: Iterable[Breach]) -> list[Part]:
    """Return what has to be set going again, each part once."""
    found = {DEAD[breach.rule] for breach in breaches if breach.rule in DEAD}
    return [part for part in Part if part in found]


def deployment_limit(settings: Settings) -> timedelta:
    """Return when Airflow ends a run that deploys: an hour, or more for jobs that start slowly.

    The job that is deployed and the one that is restored in its place each have their time to
    start. A run that is under way for longer waits in a paused DAG.
    """
    return timedelta(seconds=DEPLOYMENT_SECONDS + 2 * settings.job_start_seconds)


def overdue_parts(reading: Reading, earlier: Sequence[Reading], settings: Settings) -> list[Part]:
    """Return the parts with a deployment under way for so long that it is waited for no more.

    Parameters
    ----------
    earlier
        Readings before it, oldest first, over `deployment_limit` and `LONGEST_GAP` at least.
    """
    limit = deployment_limit(settings)
    return [
        part
        for part in reading.deploying
        if reading.created_at - _deploying_since(part, reading, earlier) > limit
    ]


def _deploying_since(part: Part, reading: Reading, earlier: Sequence[Reading]) -> datetime:
    since = reading.created_at
    for each in reversed(earlier):
        if part not in each.deploying or since - each.created_at > LONGEST_GAP:
            break
        since = each.created_at
    return since


def next_step(attempts: Sequence[datetime], now: datetime, settings: Settings) -> Step:
    """Return what to do about a dead part.

    The first attempt is made at once, each later one twice as long after the one before, and
    beyond `healing_attempts_per_hour` a person is asked.

    Parameters
    ----------
    attempts
        When it was set going again before.
    """
    recent = [each for each in attempts if now - each < ATTEMPTS_WINDOW]
    if len(recent) >= settings.healing_attempts_per_hour:
        return Step.ASK
    if not recent:
        return Step.DEPLOY
    pause = timedelta(seconds=settings.healing_backoff_seconds * 2 ** (len(recent) - 1))
    return Step.DEPLOY if now - max(recent) >= pause else Step.WAIT


def verdict_of(
    breaches: Sequence[Breach], steps: Mapping[Part, Step], deploying: Sequence[Part]
) -> Verdict:
    """Return what a reading amounts to, given what is done about each dead part."""
    if not breaches:
        return Verdict.DEPLOYING if deploying else Verdict.HEALTHY
    if Step.ASK in steps.values():
        return Verdict.EXHAUSTED
    return Verdict.HEALING if Step.DEPLOY in steps.values() else Verdict.BREACHED
