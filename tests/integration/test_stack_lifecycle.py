"""A stop ends everything, or says what is left; real processes stand where servers would."""

import os
import subprocess
import sys

import pytest

from flead.stack import lifecycle, processes
from flead.stack.home import Home
from flead.stack.service import StackError


@pytest.fixture
def home(tmp_path):
    return Home.from_environment({"FLEAD_HOME": str(tmp_path)})


@pytest.fixture
def run_as(home):
    """Return the function that runs a process which belongs to a service."""
    started = []

    def run_as(service):
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            env=os.environ | home.variables | {processes.MARKER: service},
        )
        started.append(process)
        return process

    yield run_as
    for process in started:
        process.kill()
        process.wait()


def test_a_savepoint_that_fails_is_reported_and_the_stop_goes_on(home, run_as):
    servers = [run_as(name) for name in ("flink-jobmanager", "postgres", "kafka")]
    reported = []

    lifecycle.down(home, reported.append)

    (failure,) = [step for step in reported if step.state == "failed"]
    assert failure.subject == "training"
    assert failure.detail.startswith("not stopped with a savepoint (OperationalError: connection")
    assert failure.detail.endswith("; its newest checkpoint remains")
    assert [processes.start_ticks(server.pid) for server in servers] == [None, None, None]


def test_what_outlives_the_stop_is_an_error_that_names_it(home, run_as, monkeypatch):
    server = run_as("kafka")
    # As with a process that waits for its disk: no time is enough.
    monkeypatch.setattr(processes, "KILL_SECONDS", 0)

    with pytest.raises(StackError, match=rf"Processes of kafka outlived.*pid={server.pid}"):
        lifecycle.down(home, lambda _: None)


def test_one_home_has_one_demonstration_at_a_time(home):
    from flead.stack.demonstration import (  # noqa: PLC0415 - not every environment has its imports
        DemonstrationError,
        only_stream,
    )

    with (
        only_stream(home),
        pytest.raises(DemonstrationError, match="another demonstration or replay runs in"),
        only_stream(home),
    ):
        pytest.fail("two at a time")
    with only_stream(home):
        pass
