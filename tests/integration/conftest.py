"""What the tests of the stack act on: a Flink job with Python workers, and servers to break."""

import time
from pathlib import Path

import httpx
import psutil
import pytest

from flead.stack import processes

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

    job = _submit(flink, next((stack_home.config / "flink" / "opt").glob("flink-python-*.jar")))
    deadline = time.monotonic() + 120
    while not workers():
        assert time.monotonic() < deadline, "the job started no Python worker"
        time.sleep(0.2)
    yield workers
    httpx.patch(f"{flink}/jobs/{job}?mode=cancel").raise_for_status()


def _submit(flink, jar):
    with jar.open("rb") as content:
        uploaded = httpx.post(f"{flink}/jars/upload", files={"jarfile": (jar.name, content)})
    jar_id = Path(uploaded.json()["filename"]).name
    submitted = httpx.post(
        f"{flink}/jars/{jar_id}/run",
        json={
            "entryClass": "org.apache.flink.client.python.PythonDriver",
            "parallelism": 1,
            "programArgsList": ["-py", str(PROGRAM)],
        },
        timeout=120,
    )
    assert submitted.status_code == 200, submitted.text
    return submitted.json()["jobid"]
