"""The whole stack, driven as a user drives it: by the `flead` command alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flead.stack.addresses import Addresses
from flead.stack.home import Home
from tests.conftest import run_flead

DEVICES = 40
FLEET = ("--devices", str(DEVICES), "--rate", "4800/min", "--seed", "3")


@dataclass(frozen=True)
class Demonstrated:
    """A home in which the demonstration ran to its end, and what it printed."""

    home: Home
    report: dict[str, Any]


@dataclass(frozen=True)
class Resumed:
    """The same home, up again, after more rows than before were trained."""

    home: Home
    addresses: Addresses

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.addresses.kafka_bootstrap}


@pytest.fixture(scope="session")
def demonstrated(make_home: Callable[[], Home]) -> Demonstrated:
    home = make_home()
    ran = run_flead(home, "demo", *FLEET, "--until-version", "3", "--json")
    assert ran.returncode == 0, ran.stderr
    return Demonstrated(home, json.loads(ran.stdout))


@pytest.fixture(scope="session")
def resumed(demonstrated: Demonstrated) -> Resumed:
    """Start the stack again, which takes up the suspended job, and feed it for some windows."""
    started = run_flead(demonstrated.home, "up")
    assert started.returncode == 0, started.stderr
    fed = run_flead(demonstrated.home, "simulate", *FLEET, "--duration", "40", "--json")
    assert fed.returncode == 0, fed.stderr
    return Resumed(demonstrated.home, Addresses.of(demonstrated.home, environ={}))
