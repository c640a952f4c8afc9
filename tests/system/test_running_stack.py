"""The demonstration on a stack that a user has up, with a training job of the user's own."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from flead.stack import processes
from flead.stack.services import FLEET
from tests.conftest import run_flead
from tests.system.conftest import FLEET as OPTIONS
from tests.system.conftest import Resumed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Guest:
    """A demonstration that ended, with what ran before it and after it."""

    report: dict[str, Any]
    said: str
    running_before: dict[str, int]
    running_after: dict[str, int]
    deployment_before: str
    newest_before: int


@pytest.fixture(scope="module")
def guest(resumed: Resumed) -> Guest:
    before = running(resumed)
    [(deployment, _)] = deployments(resumed, "active")
    [(newest,)] = resumed.query("SELECT max(version) FROM federated_models")
    ran = run_flead(resumed.home, "demo", *OPTIONS, "--until-version", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    return Guest(json.loads(ran.stdout), ran.stderr, before, running(resumed), deployment, newest)


def test_every_server_that_ran_before_goes_on(guest: Guest) -> None:
    assert len(guest.running_before) == 8
    assert guest.running_after == guest.running_before


def test_the_deployment_that_it_replaces_is_named(guest: Guest) -> None:
    assert f"deployment {guest.deployment_before} was active before: its job" in guest.said


def test_it_counts_what_it_made_itself(guest: Guest) -> None:
    made = [each["version"] for each in guest.report["versions"]]
    assert len(made) >= 1
    # The job that ran before may have made more, until it was replaced.
    assert made[0] > guest.newest_before
    assert made == sorted(set(made))
    assert guest.report["rows"] > 0


def test_its_fleet_and_its_job_end_with_it(resumed: Resumed, guest: Guest) -> None:
    assert processes.belonging_to(resumed.home, FLEET) == []
    assert deployments(resumed, "active") == []
    [(suspended, savepoint)] = deployments(resumed, "suspended")
    assert suspended != guest.deployment_before
    assert savepoint


def test_up_takes_up_its_job_from_the_savepoint(resumed: Resumed, guest: Guest) -> None:
    [(suspended, savepoint)] = deployments(resumed, "suspended")

    started = run_flead(resumed.home, "up")

    assert started.returncode == 0, started.stderr
    assert [deployment for deployment, _ in deployments(resumed, "active")] == [suspended]
    assert restored_from(resumed, suspended) == savepoint


def running(resumed: Resumed) -> dict[str, int]:
    """Return the process id of each service that has one; one may be slow to answer."""
    status = json.loads(run_flead(resumed.home, "status", "--json").stdout)
    return {service["name"]: service["pid"] for service in status["services"] if service["pid"]}


def deployments(resumed: Resumed, status: str) -> list[tuple[str, str | None]]:
    return resumed.query(
        "SELECT deployment_id, savepoint_path FROM training_deployments"
        " WHERE status = %s AND kind IN ('submit', 'restore')",
        status,
    )


def restored_from(resumed: Resumed, deployment: str) -> str:
    [(path,)] = resumed.query(
        "SELECT restored_from FROM training_deployments"
        " WHERE status = 'active' AND deployment_id = %s",
        deployment,
    )
    return path
