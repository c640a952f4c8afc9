"""The whole stack, driven as a user drives it: by the `flead` command alone."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT, Home
from tests.conftest import run_flead
from tests.running_stack import RunningStack

DEVICES = 40
WAIT_SECONDS = 120
GATE_SECONDS = 120
"""Rounds take back one head in this time at most."""
FLEET = ("--devices", str(DEVICES), "--rate", "9600/min", "--seed", "3")


@dataclass(frozen=True)
class Demonstrated:
    """A home in which the demonstration ran to its end, what it printed and what it left."""

    home: Home
    report: dict[str, Any]
    status: dict[str, Any]


@dataclass(frozen=True)
class Resumed(RunningStack):
    """The same home, up again, after more rows than before were trained."""

    airflow_health: dict[str, dict[str, Any]]
    """What Airflow said of itself when `up` had returned."""


def wait_until(
    holds: Callable[[], object],
    seconds: float = WAIT_SECONDS,
    found: Callable[[], object] = lambda: None,
) -> None:
    """Wait until something holds; `found` tells what there is when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, found()
        time.sleep(0.5)


@pytest.fixture(scope="session")
def short_rounds() -> Iterator[None]:
    """Let rounds follow each other as soon as there are updates, and few rows decide soon."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLEAD_ROUND_SECONDS", "2")
        environment.setenv("FLEAD_GATE_MIN_ROWS", "60")
        environment.setenv("FLEAD_GATE_TIMEOUT_SECONDS", str(GATE_SECONDS))
        # Trials begin when a test asks for them: other tests know what devices train with.
        environment.setenv("FLEAD_TUNING_VERSIONS", "1000")
        environment.setenv("FLEAD_TUNING_HORIZON_SECONDS", "60")
        environment.setenv("FLEAD_TUNING_TRIALS", "2")
        environment.setenv("FLEAD_TUNING_FRACTION", "0.25")
        environment.setenv("FLEAD_TUNING_MIN_DEVICES", "5")
        environment.setenv("FLEAD_TUNING_APPROVAL_SECONDS", "5")
        yield


def demonstrate(home: Home) -> "subprocess.CompletedProcess[str]":
    """Run the demonstration in a home until its third version, with Spark's analyses."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLEAD_EVALUATION_MIN_ROWS", "500")
        ran = run_flead(home, "demo", *FLEET, "--until-version", "3", "--with-analysis", "--json")
    assert ran.returncode == 0, ran.stderr
    return ran


def bring_up(home: Home) -> Resumed:
    """Start the stack again, which takes up what ran in it."""
    started = run_flead(home, "up")
    assert started.returncode == 0, started.stderr
    addresses = Addresses.of(home, environ={})
    health = httpx.get(f"{addresses.airflow_url}/api/v2/monitor/health", timeout=60).json()
    return Resumed(home, addresses, health)


@contextlib.contextmanager
def fleet_of(home: Home, *options: str) -> Iterator[None]:
    """Let a fleet stream into the stack for the block."""
    fleet = subprocess.Popen(
        [sys.executable, "-m", "flead.cli", "simulate", *FLEET, *options],
        cwd=CHECKOUT, env=os.environ | home.variables,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        fleet.terminate()
        fleet.wait(30)


@pytest.fixture(scope="session")
def demonstrated(make_home: Callable[[], Home], short_rounds: None) -> Demonstrated:
    home = make_home()
    ran = demonstrate(home)
    status = run_flead(home, "status", "--json")
    return Demonstrated(home, json.loads(ran.stdout), json.loads(status.stdout))


@pytest.fixture(scope="session")
def resumed(demonstrated: Demonstrated) -> Resumed:
    """Start the stack again, and feed it for some windows."""
    up = bring_up(demonstrated.home)
    fed = run_flead(up.home, "simulate", *FLEET, "--duration", "20", "--json")
    assert fed.returncode == 0, fed.stderr
    return up


@pytest.fixture(scope="module")
def streaming(resumed: Resumed) -> Iterator[Resumed]:
    """Let a fleet stream into the running job."""
    with fleet_of(resumed.home):
        yield resumed
