"""A job in trouble on the running stack: the health gate finds each symptom within two minutes.

That a job is FAILED is found with the next reading, tests/integration/airflow/test_health.py: here
Flink restarts it. Failures count for `FLEAD_HEALTH_WINDOW_SECONDS` (600): after the last test,
which leaves a job that trains, readings stay `breached` for as long.
"""

import contextlib

import psutil
import pytest

from flead.settings import Settings
from tests.running_stack import frozen, kill, wait_until
from tests.system.conftest import Resumed
from tests.system.readings import await_found, await_healthy, now

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(2400)]

FOUND_SECONDS = 120.0
STANDSTILL = ("checkpoint_stalled_seconds", "lag_growing_seconds")
WORKER = "pyflink.fn_execution.beam.beam_boot"


def workers(stack: Resumed) -> list[psutil.Process]:
    """Return the Python workers of the TaskManager."""
    found = []
    for each in stack.members("flink-taskmanager"):
        with contextlib.suppress(psutil.NoSuchProcess):
            if WORKER in each.cmdline():
                found.append(each)
    return found


@pytest.fixture(scope="module")
def found_while_it_stood_still(streaming: Resumed) -> dict[str, float]:
    """Stop the workers of a healthy job; return after how many seconds each symptom was found."""
    await_healthy(streaming)
    stopped = now(streaming)
    with frozen(workers(streaming)):
        found = {rule: await_found(streaming, rule, stopped) for rule in STANDSTILL}
    return {rule: (at - stopped).total_seconds() for rule, at in found.items()}


@pytest.mark.parametrize("rule", STANDSTILL)
def test_a_job_that_stands_still_is_found_within_two_minutes(
    found_while_it_stood_still: dict[str, float], rule: str
) -> None:
    assert found_while_it_stood_still[rule] <= FOUND_SECONDS


def test_a_job_that_goes_on_after_a_standstill_is_healthy_again(
    found_while_it_stood_still: dict[str, float], streaming: Resumed
) -> None:
    went_on = now(streaming)

    await_healthy(streaming)

    assert streaming.training_goes_on_since(went_on.timestamp() * 1000)


def test_a_job_that_restarts_again_and_again_is_found_within_two_minutes(
    found_while_it_stood_still: dict[str, float], streaming: Resumed
) -> None:
    await_healthy(streaming)
    first = last = now(streaming)

    for _ in range(Settings().health_restarts + 1):
        last = now(streaming)
        kill(workers(streaming))
        killed_ms = last.timestamp() * 1000
        wait_until(
            lambda since=killed_ms: streaming.training_goes_on_since(since),
            "the job trains again",
        )

    found = await_found(streaming, "restarts", first)
    assert (found - last).total_seconds() <= FOUND_SECONDS
    assert streaming.training_goes_on_since(last.timestamp() * 1000)
