"""What comes while the script of a submission still runs in the JobManager."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from flead_airflow.flink.errors import FlinkDuplicateJobError, FlinkSubmissionError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import JobStatus
from flead_airflow.flink.triggers import FlinkJobEndedTrigger
from tests.integration.airflow.triggerer import events_of

pytestmark = pytest.mark.servers

SLOW = """
import pathlib, runpy, sys, time
pathlib.Path({began!r}).touch()
time.sleep(5)
sys.argv = [{script!r}, *{arguments!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture
def hook(flink_connection):
    with FlinkRestHook(flink_connection) as made:
        yield made


@pytest.fixture
def job_id(hook):
    made = uuid.uuid4().hex
    yield made
    hook.cancel(made)


@pytest.fixture
def posted(hook, job_id, tiny_job, tmp_path):
    """Post a job in a thread, and return once its script runs, for seconds."""
    with ThreadPoolExecutor() as pool:

        def post(arguments=()):
            script, began = tmp_path / "slow.py", tmp_path / "began"
            script.write_text(
                SLOW.format(began=str(began), script=tiny_job, arguments=list(arguments))
            )
            first = pool.submit(hook.run_python_job, job_id, str(script))
            deadline = time.monotonic() + 60
            while not began.exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return first

        yield post


def test_a_repetition_finds_the_job_of_the_first(hook, job_id, posted, tiny_job, flink_connection):
    first = posted()

    with FlinkRestHook(flink_connection) as again, pytest.raises(FlinkDuplicateJobError):
        again.run_python_job(job_id, tiny_job)

    first.result(60)
    assert [job.jid for job in hook.jobs() if not job.state.ended] == [job_id]


def test_a_repetition_is_posted_when_the_first_has_failed(
    hook, job_id, posted, tiny_job, flink_connection
):
    first = posted(["--fail", "the first"])

    with FlinkRestHook(flink_connection) as again:
        again.run_python_job(job_id, tiny_job)

    with pytest.raises(FlinkSubmissionError, match="ValueError: the first"):
        first.result(60)
    assert hook.job(job_id).jid == job_id


def test_a_cancellation_reaches_the_job_that_comes_of_it(hook, job_id, posted):
    first = posted()

    hook.cancel(job_id)

    first.result(60)
    deadline = time.monotonic() + 60
    while not hook.job(job_id).state.ended:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert hook.job(job_id).state is JobStatus.CANCELED


def test_a_wait_for_an_end_goes_on_until_the_job_that_comes_of_it_is_cancelled(
    hook, job_id, posted, flink_connection
):
    posted()
    arguments = {
        "job_id": job_id,
        "flink_conn_id": flink_connection,
        "deadline": time.time() + 90,
        "poll_seconds": 0.2,
        "is_cancelled": True,
    }
    before = FlinkJobEndedTrigger(**arguments)
    assert before.look(hook) == "a script runs that may yet submit the job"
    # another triggerer takes it over, and may see the job at once
    while hook.runs_script():
        time.sleep(0.2)
    assert events_of(FlinkJobEndedTrigger(**arguments)) == [
        {"job_id": job_id, "state": "CANCELED", "detail": "the job is CANCELED"}
    ]
    assert hook.job(job_id).state is JobStatus.CANCELED


def test_a_wait_for_an_end_is_over_once_no_job_can_come_of_it(hook, job_id, posted):
    posted(["--fail", "no job"])
    ended = FlinkJobEndedTrigger(job_id=job_id, flink_conn_id="unused", deadline=0)

    deadline = time.monotonic() + 60
    while (seen := ended.look(hook)) == "a script runs that may yet submit the job":
        assert time.monotonic() < deadline
        time.sleep(0.2)

    assert seen == {"state": "UNKNOWN", "detail": "the JobManager does not know the job"}
    assert not hook.runs_script()
