"""Nothing outlives its parent: real servers, killed where it hurts."""

import json
import os
import signal
import time

import psycopg2
import pytest

from flead.stack import processes
from flead.stack.addresses import Addresses

pytestmark = pytest.mark.servers


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def status_of(flead, home):
    return json.loads(flead(home, "status", "--json").stdout)


def pids(home, *services):
    return {
        process.pid for service in services for process in processes.belonging_to(home, service)
    }


def alive(numbers):
    return {pid for pid in numbers if processes.start_ticks(pid) is not None}


def kill_leader(home, service):
    leader = processes.Record.read(home, service)
    os.kill(leader.pid, signal.SIGKILL)
    return leader.pid


def wait_for_successor(home, service, killed):
    def has_successor():
        leader = processes.Record.read(home, service)
        return leader is not None and leader.pid != killed and leader.is_alive()

    wait_until(has_successor)


@pytest.fixture
def home(breakable_servers):
    return breakable_servers


def test_down_ends_what_lost_its_supervisor(flead, home):
    servers = pids(home, "kafka", "postgres")
    assert len(servers) > 2
    kill_leader(home, "supervisord")
    orphans = {service["state"] for service in status_of(flead, home)["services"][:2]}

    stopped = flead(home, "down")

    assert orphans == {"orphaned"}
    assert stopped.returncode == 0, stopped.stderr
    assert alive(servers) == set()


def test_up_replaces_what_lost_its_supervisor(flead, home):
    servers = pids(home, "kafka", "postgres")
    kill_leader(home, "supervisord")

    started = flead(home, "up", "kafka", "postgres")

    assert started.returncode == 0, started.stderr
    assert alive(servers) == set()
    states = [service["state"] for service in status_of(flead, home)["services"][:2]]
    assert states == ["running", "running"]


def test_a_killed_postmaster_is_replaced_and_its_backends_end(flead, home):
    client = psycopg2.connect(Addresses.of(home, environ={}).superuser_url)
    before = pids(home, "postgres")

    killed = kill_leader(home, "postgres")
    wait_for_successor(home, "postgres", killed)

    wait_until(lambda: alive(before) == set())
    assert flead(home, "up", "postgres").returncode == 0
    with pytest.raises(psycopg2.OperationalError):
        client.cursor().execute("SELECT 1")


def test_a_killed_taskmanager_leaves_no_python_worker(flead, stack_home, python_workers):
    before = python_workers()

    killed = kill_leader(stack_home, "flink-taskmanager")
    wait_for_successor(stack_home, "flink-taskmanager", killed)

    assert alive(before) == set()
    assert flead(stack_home, "up", "flink").returncode == 0
    wait_until(python_workers, seconds=120)
