"""What the embedded stack says when a server cannot start."""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import time

import psutil
import pytest

from flead.stack import processes
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports
from flead.stack.postgres import Placement
from flead.stack.supervision import Supervisor

pytestmark = pytest.mark.servers


def test_a_server_that_dies_at_its_start_is_shown_with_the_end_of_its_log(flead, make_home):
    home = make_home()
    broken = home.data / "kafka" / "meta.properties"
    broken.parent.mkdir(parents=True)
    broken.write_text("version=1\nnode.id=7\ncluster.id=another\n")

    started = flead(home, "up", "kafka")

    assert started.returncode == 1
    assert "kafka died while starting" in started.stderr
    log = started.stderr.partition("The end of")[2]
    assert "Stored node id 7 doesn't match previous node id 1" in log
    assert processes.belonging_to(home, "kafka") == []


def test_data_of_another_home_at_the_same_place_are_named(flead, make_home):
    home = make_home()
    assert flead(home, "up", "postgres").returncode == 0
    assert flead(home, "down").returncode == 0
    home.secrets_file.unlink()

    started = flead(home, "up", "postgres")

    assert started.returncode == 1
    assert f"postgres refuses the password in {home.secrets_file}" in started.stderr
    assert "bin/flead down --wipe" in started.stderr
    assert flead(home, "down", "--wipe").returncode == 0
    assert flead(home, "up", "postgres").returncode == 0


def test_a_server_that_its_supervisor_starts_again_and_again_comes_up_once_it_can(flead, make_home):
    home = make_home()
    assert flead(home, "up", "postgres").returncode == 0
    version = Placement.of(home).data / "PG_VERSION"
    lost = version.rename(version.with_suffix(".lost"))
    for each in processes.belonging_to(home, "postgres"):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    supervisor, deadline = Supervisor(home), time.monotonic() + 60
    while supervisor.info("postgres").state != "BACKOFF":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lost.rename(version)

    started = flead(home, "up", "postgres")

    assert started.returncode == 0, started.stderr
    assert supervisor.info("postgres").is_up


def test_a_taken_port_is_named(flead, make_home):
    home = make_home()
    with socket.create_server((HOST, Ports.of(home).postgres)):
        started = flead(home, "up", "postgres")

    assert started.returncode == 1
    assert f"Port {Ports.of(home).postgres} of postgres is taken" in started.stderr


def test_an_unknown_service_is_named_beside_the_known_ones(flead, make_home):
    started = flead(make_home(), "up", "zookeeper")

    assert started.returncode == 1
    assert "No service is called 'zookeeper'; there are kafka, postgres" in started.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ROUND_SECONDS", "often", "Expected `float`, got `str` - at `$.round_seconds`"),
        (
            "STRATEGY",
            "fedmax",
            "there is no strategy 'fedmax', only fedavg, fedmedian, fedtrimmedavg",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_before_any_server_starts(make_home, variable, value, said):
    home = make_home()

    started = subprocess.run(
        [home.python("tools"), "-m", "flead.cli", "up"],
        env=os.environ | home.variables | {f"FLEAD_{variable}": value},
        check=False,
        capture_output=True,
        text=True,
    )

    assert started.returncode == 1
    assert started.stderr == f"flead: a value is not valid: {said}\n"
    assert processes.belonging_to(home, "supervisord") == []


def test_status_and_down_work_before_the_first_up(flead, tmp_path):
    home = dataclasses.replace(Home.from_environment(), root=tmp_path)

    found, stopped = flead(home, "status", "--json"), flead(home, "down")

    assert {service["state"] for service in json.loads(found.stdout)["services"]} == {"stopped"}
    assert (found.returncode, stopped.returncode) == (0, 0)
