"""What the health gate has written about a running stack, and the wait for it."""

import json
from datetime import datetime

from tests.running_stack import wait_until
from tests.system.conftest import Resumed

LOOKED_FOR_SECONDS = 300.0
HEALTHY_SECONDS = 900.0
"""Longer than the window of failures, which other tests may have left some in."""


def now(stack: Resumed) -> datetime:
    """Return the time of the database, by which readings are dated."""
    [(moment,)] = stack.query("SELECT clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


def first_reading(stack: Resumed, rule: str, since: datetime) -> datetime | None:
    """Return when a rule was first found broken since a moment."""
    [(at,)] = stack.query(
        "SELECT min(created_at) FROM training_health WHERE created_at >= %s AND reasons @> %s",
        since,
        json.dumps([{"rule": rule}]),
    )
    return at if isinstance(at, datetime) else None


def await_healthy(stack: Resumed) -> None:
    """Wait until a reading that is taken from now on finds nothing."""
    since = now(stack)
    found = (
        "SELECT 1 FROM training_health"
        " WHERE created_at >= %s AND verdict = 'healthy' AND job_state = 'RUNNING'"
    )
    wait_until(lambda: stack.query(found, since), "a reading is healthy", HEALTHY_SECONDS)


def await_found(stack: Resumed, rule: str, since: datetime) -> datetime:
    """Wait until a rule is found broken, and return when it was first."""
    found: list[datetime] = []

    def looked() -> list[datetime]:
        found.extend(at for at in [first_reading(stack, rule, since)] if at)
        return found

    wait_until(looked, f"{rule} is found", LOOKED_FOR_SECONDS)
    return found[0]
