"""Flink and Spark of docker-compose.yaml, started from it: health checks tell up from down."""

import json

import pytest

from flead.stack.home import Home
from tests.containers import Containers

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(600)]

ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    stack = Containers(tmp_path_factory.mktemp("compose"), Home.from_environment())
    try:
        stack.up("flink-taskmanager", "spark-worker")
        yield stack
    finally:
        stack.close()


def ask(containers, name, url):
    answer = containers.run(name, ["python", "-c", ASK, url])
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_a_taskmanager_offers_its_slots_to_the_jobmanager_until_it_is_lost(containers):
    url = "http://flink-jobmanager:8081"
    overview = ask(containers, "flink-jobmanager", f"{url}/overview")
    configuration = ask(containers, "flink-jobmanager", f"{url}/jobmanager/config")

    containers.kill("flink-taskmanager")

    assert (overview["taskmanagers"], overview["slots-available"]) == (1, 4)
    found = {each["key"]: each["value"] for each in configuration}
    assert found["execution.checkpointing.dir"] == "file:///var/lib/flead/flink/checkpoints"
    assert containers.health("flink-jobmanager").returncode == 0
    containers.await_unhealthy("flink-taskmanager")
    containers.up("flink-taskmanager")


def test_a_worker_offers_its_cores_to_the_master_until_it_is_lost(containers):
    state = ask(containers, "spark-master", "http://spark-master:8082/json/")

    containers.kill("spark-worker")

    assert (state["aliveworkers"], state["cores"], state["memory"]) == (1, 4, 4096)
    assert containers.health("spark-master").returncode == 0
    containers.await_unhealthy("spark-worker")


def test_a_server_that_is_down_is_not_healthy(containers):
    containers.kill("spark-master")

    assert containers.health("spark-master").returncode == 1
    assert containers.health("flink-jobmanager").returncode == 0
