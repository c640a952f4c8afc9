"""Hook, operators and trigger against a real Flink session cluster."""

import asyncio
import time
import uuid

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from flead_airflow.flink.errors import (
    FlinkDuplicateJobError,
    FlinkJobNotFoundError,
    FlinkSubmissionError,
)
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.operators import (
    FAILURE_KEY,
    FlinkStopWithSavepointOperator,
    FlinkSubmitPythonJobOperator,
)
from flead_airflow.flink.responses import JobStatus
from flead_airflow.flink.triggers import FlinkJobStartedTrigger

pytestmark = pytest.mark.servers

FLINK_CONNECTION = "flead_flink"


class Xcom:
    """What a task leaves for others, in place of Airflow's task instance."""

    def __init__(self):
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


@pytest.fixture
def hook(flink_connection, clean_flink):
    with FlinkRestHook(flink_connection) as hook:
        yield hook


@pytest.fixture
def job_id():
    return uuid.uuid4().hex


def submission(job_id, tiny_job, **arguments):
    return FlinkSubmitPythonJobOperator(
        task_id="submit",
        job_id=job_id,
        script=tiny_job,
        flink_conn_id=FLINK_CONNECTION,
        poll_seconds=0.2,
        **arguments,
    )


def stop(job_id):
    operator = FlinkStopWithSavepointOperator(
        task_id="stop", job_id=job_id, flink_conn_id=FLINK_CONNECTION
    )
    return execute(operator)


def execute(operator):
    return operator.execute({"ti": Xcom()})


def defer(operator):
    """Run a task until it defers and return its trigger."""
    with pytest.raises(TaskDeferred) as deferred:
        execute(operator)
    assert deferred.value.method_name == "resume"
    return deferred.value.trigger


def events_of(trigger, timeout_seconds=120):
    """Run a trigger to its end, rebuilt from what Airflow would store of it."""

    async def collect():
        return [event.payload async for event in type(trigger)(**trigger.serialize()[1]).run()]

    return asyncio.run(asyncio.wait_for(collect(), timeout_seconds))


def start(operator):
    """Run a task, deferral included, and return its result."""
    [event] = events_of(defer(operator))
    return operator.resume({"ti": Xcom()}, event)


def wait_until_ended(hook, job_id):
    deadline = time.monotonic() + 60
    while not (job := hook.job(job_id)).state.ended and time.monotonic() < deadline:
        time.sleep(0.2)
    return job.state


@pytest.fixture(scope="module")
def stopped(flink_connection, tiny_job):
    """Stop a job and return what the operator returned."""
    job_id = uuid.uuid4().hex
    start(submission(job_id, tiny_job))
    with FlinkRestHook(flink_connection) as hook:
        hook.checkpoints(job_id)  # which Flink then has in its cache
    return stop(job_id)


class TestSubmission:
    def test_ends_when_every_vertex_runs_and_a_checkpoint_has_completed(
        self, hook, job_id, tiny_job
    ):
        assert start(submission(job_id, tiny_job, parallelism=2)) == job_id

        job = hook.job(job_id)
        assert job.state is JobStatus.RUNNING
        assert {vertex.status for vertex in job.vertices} == {"RUNNING"}
        assert {vertex.parallelism for vertex in job.vertices} == {2}
        assert hook.checkpoints(job_id).counts.completed >= 1

    def test_run_twice_attaches_to_the_job_of_the_first_run(self, hook, job_id, tiny_job):
        before = {job.jid for job in hook.jobs()}
        defer(submission(job_id, tiny_job))

        assert start(submission(job_id, tiny_job)) == job_id

        assert {job.jid for job in hook.jobs()} - before == {job_id}

    def test_whose_answer_got_lost_attaches_to_the_job_that_was_accepted(
        self, hook, job_id, tiny_job, monkeypatch
    ):
        hook.run_python_job(job_id, tiny_job)
        monkeypatch.setattr(FlinkRestHook, "find_job", lambda *_: None)
        trigger = defer(submission(job_id, tiny_job))
        monkeypatch.undo()

        assert trigger.job_id == job_id
        assert not hook.job(job_id).state.ended

    def test_of_a_script_that_raises_shows_the_python_traceback(self, hook, job_id, tiny_job):
        failing = submission(job_id, tiny_job, arguments=["--fail", "no such feature: voltage"])

        xcom = Xcom()
        with pytest.raises(AirflowFailException) as failure:
            failing.execute({"ti": xcom})

        assert str(failure.value).endswith("ValueError: no such feature: voltage")
        assert "tiny_job.py" in str(failure.value)
        assert xcom.pushed == {FAILURE_KEY: str(failure.value)}
        assert hook.find_job(job_id) is None

    def test_from_a_savepoint_that_is_not_there_names_it(self, hook, job_id, tiny_job):
        lost = submission(job_id, tiny_job, savepoint_path="file:///nowhere/savepoint-1")

        with pytest.raises(AirflowFailException, match="file:///nowhere/savepoint-1"):
            execute(lost)

    def test_under_the_id_of_a_job_that_has_ended_is_refused(self, hook, job_id, tiny_job):
        defer(submission(job_id, tiny_job))
        hook.cancel(job_id)
        wait_until_ended(hook, job_id)

        with pytest.raises(AirflowFailException, match="is CANCELED: Flink accepts an id once"):
            execute(submission(job_id, tiny_job))

    def test_with_an_argument_that_ends_the_job_manager_sends_nothing(self, hook, job_id, tiny_job):
        with pytest.raises(ValueError, match="abbreviates"):
            execute(submission(job_id, tiny_job, arguments=["--p", "2"]))

        assert hook.find_job(job_id) is None

    def test_that_does_not_start_in_time_is_cancelled_and_says_what_it_waits_for(
        self, hook, job_id, tiny_job
    ):
        needs_too_many_slots = submission(job_id, tiny_job, parallelism=64, start_timeout_seconds=2)

        with pytest.raises(AirflowFailException, match="its time is over: the job is R"):
            start(needs_too_many_slots)

        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED

    def test_that_a_user_ends_is_cancelled_in_flink(self, hook, job_id, tiny_job):
        trigger = defer(submission(job_id, tiny_job))

        asyncio.run(trigger.on_kill())

        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED

    def test_whose_worker_is_told_to_end_is_cancelled_in_flink(self, hook, job_id, tiny_job):
        operator = submission(job_id, tiny_job)
        defer(operator)

        operator.on_kill()

        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED


class TestStop:
    def test_leaves_a_savepoint_that_the_next_job_starts_from(
        self, hook, job_id, tiny_job, stopped
    ):
        assert hook.job(stopped["job_id"]).state is JobStatus.FINISHED

        savepoint = stopped["savepoint_path"]
        start(submission(job_id, tiny_job, savepoint_path=savepoint))

        restored = hook.checkpoints(job_id).latest.restored
        assert (restored.is_savepoint, restored.external_path) == (True, savepoint)

    def test_finds_the_savepoint_when_flink_has_just_answered_from_before_it(self, hook, stopped):
        newest = hook.settled_checkpoints(stopped["job_id"]).latest.savepoint

        assert stopped["savepoint_path"] == newest.external_path

    def test_run_twice_returns_the_same_savepoint(self, hook, stopped):
        assert stop(stopped["job_id"]) == stopped

    def test_of_a_job_that_cannot_take_a_savepoint_cancels_it(self, hook, job_id, tiny_job):
        defer(submission(job_id, tiny_job, parallelism=64))

        assert stop(job_id) == {"job_id": job_id, "savepoint_path": None}

        assert hook.job(job_id).state is JobStatus.CANCELED

    def test_without_a_job_does_nothing(self, hook, job_id):
        assert stop(None) == {"job_id": None, "savepoint_path": None}
        assert stop(job_id) == {"job_id": job_id, "savepoint_path": None}


class TestTrigger:
    def test_is_rebuilt_from_its_class_path_and_all_its_arguments(self, job_id):
        trigger = FlinkJobStartedTrigger(
            job_id=job_id, flink_conn_id="flead_flink", deadline=1.5, poll_seconds=0.25
        )

        assert trigger.serialize() == (
            "flead_airflow.flink.triggers.FlinkJobStartedTrigger",
            {
                "job_id": job_id,
                "flink_conn_id": "flead_flink",
                "deadline": 1.5,
                "poll_seconds": 0.25,
            },
        )

    def test_fires_once_for_a_job_that_the_cluster_lost(self, hook, job_id):
        trigger = FlinkJobStartedTrigger(
            job_id=job_id, flink_conn_id=FLINK_CONNECTION, deadline=time.time() + 60
        )

        assert events_of(trigger) == [
            {
                "job_id": job_id,
                "started": False,
                "detail": "the JobManager does not know the job: it was restarted meanwhile",
            }
        ]

    def test_does_not_block_the_event_loop(self, hook, job_id, tiny_job):
        trigger = defer(submission(job_id, tiny_job))
        longest = 0.0

        async def watch():
            nonlocal longest
            run = asyncio.ensure_future(anext(trigger.run()))
            while not run.done():
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)
            return run.result().payload

        event = asyncio.run(asyncio.wait_for(watch(), 120))

        assert event["started"]
        assert longest < 0.5


class TestHook:
    def test_refuses_a_job_id_twice(self, hook, job_id, tiny_job):
        hook.run_python_job(job_id, tiny_job)

        with pytest.raises(FlinkDuplicateJobError):
            hook.run_python_job(job_id, tiny_job)

    def test_raises_what_the_script_raised(self, hook, job_id, tiny_job):
        with pytest.raises(FlinkSubmissionError, match="ValueError: one") as failure:
            hook.run_python_job(job_id, tiny_job, ["--fail", "one"])

        assert not isinstance(failure.value, FlinkDuplicateJobError)

    def test_names_the_job_that_flink_does_not_know(self, hook, job_id):
        with pytest.raises(FlinkJobNotFoundError, match=job_id):
            hook.job(job_id)

    def test_uploads_the_jar_once(self, hook):
        assert hook.upload_python_jar() == hook.upload_python_jar()

    def test_leaves_an_ended_or_unknown_job_as_it_is_on_cancel(self, hook, job_id, tiny_job):
        hook.cancel(job_id)
        hook.run_python_job(job_id, tiny_job)
        hook.cancel(job_id)
        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED
        hook.cancel(job_id)

    def test_reads_where_checkpoints_are_kept(self, hook):
        assert hook.configuration()["execution.checkpointing.dir"].startswith("file:")
