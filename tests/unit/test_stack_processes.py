"""Which processes are a service's, shown on real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flead.stack import processes
from flead.stack.home import Home

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
# Starts a child and prints its id; the child outlives it.
PARENT = (
    "import subprocess, sys, time; "
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session={session}).pid, flush=True); time.sleep(60)"
)


@pytest.fixture
def home(tmp_path):
    home = Home.from_environment({"FLEAD_HOME": str(tmp_path)})
    home.work_folder("server").mkdir(parents=True)
    return home


@pytest.fixture
def spawn(home):
    started = []

    def spawn(command, *, marked=False, cwd=None):
        marker = home.variables | {processes.MARKER: "server"} if marked else {}
        process = subprocess.Popen(
            command,
            env=os.environ | marker,
            cwd=cwd or home.work_folder("server"),
            start_new_session=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        # exec tells the parent a moment before the environment can be read.
        environment = Path(f"/proc/{process.pid}/environ")
        while process.poll() is None and not environment.read_bytes():
            time.sleep(0.001)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.wait()


def record(home, process):
    folder = home.work_folder("server")
    processes.record(home, "server", process.pid, sys.executable, folder)


def ids(home):
    return {process.pid for process in processes.belonging_to(home, "server")}


def is_alive(pid):
    return processes.start_ticks(pid) is not None


def test_the_recorded_group_belongs_to_the_service(home, spawn):
    leader = spawn([sys.executable, "-c", PARENT.format(session=False)])
    child = int(leader.stdout.readline())
    record(home, leader)

    assert ids(home) == {leader.pid, child}


@pytest.mark.parametrize("session", [False, True])
def test_what_a_killed_leader_leaves_is_found_also_in_a_session_of_its_own(home, spawn, session):
    leader = spawn([sys.executable, "-c", PARENT.format(session=session)])
    child = int(leader.stdout.readline())
    record(home, leader)
    leader.kill()
    leader.wait()

    assert ids(home) == {child}
    assert processes.end(home, "server") == 1
    assert not is_alive(child)


def test_the_marker_finds_a_process_without_any_record(home, spawn, tmp_path):
    process = spawn(SLEEP, marked=True, cwd=tmp_path)

    assert ids(home) == {process.pid}


def test_a_neighbour_is_never_taken_for_the_service(home, spawn, tmp_path):
    spawn(SLEEP, cwd=tmp_path)

    assert ids(home) == set()
    assert processes.end(home, "server") == 0


def test_a_reused_process_id_is_not_the_recorded_process(home, spawn, tmp_path):
    stranger = spawn(SLEEP, cwd=tmp_path)
    record(home, stranger)
    file = home.run / "server.json"
    ticks = processes.start_ticks(stranger.pid)
    file.write_text(file.read_text().replace(str(ticks), str(ticks - 1)))

    assert not processes.Record.read(home, "server").is_alive()
    assert ids(home) == set()


def test_a_record_of_another_boot_counts_for_nothing(home, spawn, tmp_path):
    stranger = spawn(SLEEP, cwd=tmp_path)
    record(home, stranger)
    file = home.run / "server.json"
    file.write_text(file.read_text().replace(processes.boot_id(), "another boot"))

    assert processes.Record.read(home, "server") is None
    assert ids(home) == set()


def test_a_zombie_counts_as_gone(home, spawn):
    process = spawn(SLEEP)
    record(home, process)
    process.kill()
    deadline = time.monotonic() + 10
    while is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert process.returncode is None
    assert not processes.Record.read(home, "server").is_alive()


def test_the_end_has_a_deadline_and_what_outlives_it_still_belongs(home, spawn, monkeypatch):
    process = spawn(SLEEP)
    record(home, process)
    # As with a process that waits for its disk: no time is enough.
    monkeypatch.setattr(processes, "KILL_SECONDS", 0)

    assert processes.end(home, "server") == 0
    assert ids(home) == {process.pid}


def test_a_living_leader_is_asked_to_stop_before_it_is_killed(home, spawn, tmp_path):
    polite = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGINT, lambda *_: (pathlib.Path({str(tmp_path / 'asked')!r})"
        ".touch(), sys.exit()))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    leader = spawn([sys.executable, "-c", polite])
    leader.stdout.readline()
    record(home, leader)

    killed = processes.end(home, "server", signal.SIGINT.name[3:], stop_seconds=10)

    assert killed == 0
    assert (tmp_path / "asked").exists()
