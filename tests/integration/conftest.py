"""What the tests of the stack act on: a Flink job with Python workers, and servers to break."""

import time
from pathlib import Path

import psutil
import pytest

from flead.stack import processes
from flead.stack.flink import python_jar
from flead.stack.flink_rest import FlinkClient
from tests.integration.training_cluster import TrainingCluster

PROGRAM = Path(__file__).parent / "programs" / "endless_python_job.py"


@pytest.fixture(scope="session")
def breakable_home(make_home):
    """Return a home of which no test may expect more than that its servers can start."""
    return make_home()


@pytest.fixture
def breakable_servers(flead, breakable_home):
    """Start broker and database in the home whose servers tests kill; return the home."""
    started = flead(breakable_home, "up", "kafka", "postgres")
    assert started.returncode == 0, started.stderr
    return breakable_home


@pytest.fixture(scope="session")
def python_workers(stack_home, flink):
    """Run the job; return the function that lists the ids of its Python workers."""

    def workers():
        found = set()
        for process in processes.belonging_to(stack_home, "flink-taskmanager"):
            try:
                if process.name().startswith("python") and "pyflink" in str(process.cmdline()):
                    found.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    client = FlinkClient(flink)
    job = client.run_python(client.upload(python_jar(stack_home)), PROGRAM, parallelism=1)
    deadline = time.monotonic() + 120
    while not workers():
        assert time.monotonic() < deadline, "the job started no Python worker"
        time.sleep(0.2)
    yield workers
    client.cancel(job)


@pytest.fixture(scope="module")
def own_home(make_home, flead):
    """Make a home whose topics hold nothing but what the tests of a module send."""
    own = make_home()
    yield own
    assert flead(own, "down").returncode == 0


@pytest.fixture(scope="module")
def cluster(own_home, stack_home):
    """Return what runs the training job on a broker of the module's own."""
    return TrainingCluster(own_home, stack_home)
