"""The demonstration's fleet ends with the stack, also when the demonstration was killed."""

import os
import signal
import subprocess
import time

import pytest

from flead.stack import processes
from flead.stack.services import FLEET

pytestmark = pytest.mark.servers

# Airflow does not run: the demonstration has its fleet while it tries to reach it.
DEMONSTRATION = """
from flead.stack.addresses import Addresses
from flead.stack.demonstration import Demonstration, DemonstrationOptions
from flead.stack.home import Home

home = Home.from_environment()
options = DemonstrationOptions(devices=2, rate="10/s")
for progress in Demonstration(home, Addresses.of(home), options, float).run(print):
    pass
"""


def pids(home, service):
    return {process.pid for process in processes.belonging_to(home, service)}


@pytest.fixture
def home(breakable_servers):
    return breakable_servers


@pytest.fixture
def orphan(home):
    """Return the id of a fleet whose demonstration was killed."""
    with subprocess.Popen(
        [home.python("tools"), "-c", DEMONSTRATION], env=os.environ | home.variables
    ) as demonstration:
        deadline = time.monotonic() + 60
        while not pids(home, FLEET):
            assert demonstration.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        demonstration.kill()
    (fleet,) = pids(home, FLEET)
    return fleet


def test_down_ends_the_fleet_of_a_killed_demonstration(flead, home, orphan):
    stopped = flead(home, "down")

    assert stopped.returncode == 0, stopped.stderr
    assert processes.start_ticks(orphan) is None


def test_a_new_supervisor_begins_without_the_fleet_of_a_killed_demonstration(flead, home, orphan):
    os.kill(processes.Record.read(home, "supervisord").pid, signal.SIGKILL)

    started = flead(home, "up", "postgres")

    assert started.returncode == 0, started.stderr
    assert processes.start_ticks(orphan) is None
