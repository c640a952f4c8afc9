"""Spark in the embedded stack: the history on demand, and a stream that ends with the stack."""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from flead.stack import processes
from flead.stack.home import CHECKOUT
from flead.stack.spark import STREAM, event_logs, prepare_spark, spark_environment, submission

pytestmark = pytest.mark.servers

# As Spark's: a driver that finishes what it is at, below a JVM that lets it.
DRIVER = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path(sys.argv[1]).touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[2]).touch()
time.sleep(300)
"""
STREAM_OF_TWO = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""


@pytest.fixture
def home(breakable_servers):
    return breakable_servers


def listed(url):
    """Return what the history knows once it has read it, which it does after it has started."""
    deadline = time.monotonic() + 60
    address = f"{url}/api/v1/applications"
    while not (found := httpx.get(address, trust_env=False, timeout=30).json()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


@pytest.fixture
def stopped(home, tmp_path):
    """Run a stream as Airflow starts it; return the file that it makes when it is asked to stop."""
    asked, ready = tmp_path / "asked", tmp_path / "ready"
    with subprocess.Popen(
        [sys.executable, "-c", STREAM_OF_TWO, DRIVER, str(asked), str(ready)],
        env=os.environ | home.variables | {processes.MARKER: STREAM},
        start_new_session=True,
    ):
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield asked
        for process in processes.belonging_to(home, STREAM):
            process.kill()


def test_down_lets_the_stream_finish(flead, home, stopped):
    ended = flead(home, "down")

    assert ended.returncode == 0, ended.stderr
    assert stopped.exists()
    assert processes.belonging_to(home, STREAM) == []


def test_a_new_supervisor_begins_without_the_stream_of_the_one_before(flead, home, stopped):
    os.kill(processes.Record.read(home, "supervisord").pid, signal.SIGKILL)

    started = flead(home, "up", "postgres")

    assert started.returncode == 0, started.stderr
    assert stopped.exists()
    assert processes.belonging_to(home, STREAM) == []


def test_the_history_of_an_application_is_served_when_it_is_asked_for(flead, home, tmp_path):
    prepare_spark(home)
    script = tmp_path / "job.py"
    script.write_text(
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.appName('known').getOrCreate()\n"
        "print(spark.range(10).count())\n"
    )
    ran = subprocess.run(
        submission(home, script),
        cwd=CHECKOUT,
        env=os.environ | spark_environment(home),
        check=True,
        capture_output=True,
        text=True,
    )
    [folder] = event_logs(home).iterdir()
    before = json.loads(flead(home, "status", "--json").stdout)["services"]

    started = flead(home, "up", "spark-history")

    assert started.returncode == 0, started.stderr
    assert ran.stdout == "10\n"
    assert "spark-history" not in {service["name"] for service in before}
    [url] = [line.split()[1] for line in started.stdout.splitlines() if line.startswith("Spark ")]
    [application] = listed(url)
    assert (application["name"], application["id"]) == (
        "known",
        folder.name.removeprefix("eventlog_v2_"),
    )
    services = json.loads(flead(home, "status", "--json").stdout)["services"]
    assert {s["name"]: s["state"] for s in services}["spark-history"] == "running"
