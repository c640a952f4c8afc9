"""Hook, operators and trigger against a real Flink session cluster."""

import asyncio
import copy
import pkgutil
import time
import uuid
from contextlib import contextmanager

import httpx
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from structlog.testing import capture_logs

from flead_airflow.flink.errors import (
    FlinkDuplicateJobError,
    FlinkJobNotFoundError,
    FlinkSubmissionError,
)
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.operators import (
    FAILURE_KEY,
    FlinkCancelOperator,
    FlinkSavepointOperator,
    FlinkStopWithSavepointOperator,
    FlinkSubmitPythonJobOperator,
)
from flead_airflow.flink.responses import Job, JobStatus
from flead_airflow.flink.triggers import (
    FlinkJobEndedTrigger,
    FlinkJobStartedTrigger,
    FlinkSavepointTrigger,
)
from tests.integration.airflow.triggerer import assert_loop_goes_on, events_of

pytestmark = pytest.mark.servers

FLINK_CONNECTION = "flead_flink"


class TaskInstance:
    """Who a task is and what it leaves for others, in place of Airflow's task instance."""

    dag_id = "dag"
    task_id = "task"
    map_index = -1

    def __init__(self, run_id="run"):
        self.run_id = run_id
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


def operator_of(kind, job_id, **arguments):
    return kind(
        task_id="task",
        job_id=job_id,
        flink_conn_id=FLINK_CONNECTION,
        poll_seconds=0.2,
        **arguments,
    )


def stop(job_id):
    return finish(operator_of(FlinkStopWithSavepointOperator, job_id))


def execute(operator, ti=None):
    return operator.execute({"ti": ti or TaskInstance()})


def defer(operator, ti=None):
    """Run a task until it defers and return its trigger."""
    with pytest.raises(TaskDeferred) as deferred:
        execute(operator, ti)
    return deferred.value.trigger


def finish(operator, ti=None):
    """Run a task to its end, each time that it comes back in another worker; return its result."""
    context = {"ti": ti or TaskInstance()}
    step, arguments = "execute", {}
    while True:
        try:
            return getattr(copy.copy(operator), step)(context, **arguments)
        except TaskDeferred as deferred:
            [event] = events_of(deferred.trigger)
            # And nothing else, for `dag.test()` drops the `kwargs` of a deferral.
            step, arguments = deferred.method_name, {"event": event}


def wait_until_ended(hook, job_id):
    deadline = time.monotonic() + 60
    while not (job := hook.job(job_id)).state.ended and time.monotonic() < deadline:
        time.sleep(0.2)
    return job.state


@pytest.fixture(scope="module")
def stopped(flink_connection, tiny_job):
    """Stop a job and return what the operator returned."""
    job_id = uuid.uuid4().hex
    finish(submission(job_id, tiny_job))
    with FlinkRestHook(flink_connection) as hook:
        hook.checkpoints(job_id)  # which Flink then has in its cache
    return stop(job_id)


class TestSubmission:
    def test_ends_when_every_vertex_runs_and_a_checkpoint_has_completed(
        self, hook, job_id, tiny_job
    ):
        assert finish(submission(job_id, tiny_job, parallelism=2)) == job_id

        job = hook.job(job_id)
        assert job.state is JobStatus.RUNNING
        assert {vertex.status for vertex in job.vertices} == {"RUNNING"}
        assert {vertex.parallelism for vertex in job.vertices} == {2}
        assert hook.checkpoints(job_id).counts.completed >= 1

    def test_run_twice_attaches_to_the_job_of_the_first_run(self, hook, job_id, tiny_job):
        before = {job.jid for job in hook.jobs()}
        defer(submission(job_id, tiny_job))

        assert finish(submission(job_id, tiny_job)) == job_id

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

        ti = TaskInstance()
        with pytest.raises(AirflowFailException) as failure:
            execute(failing, ti)

        assert str(failure.value).endswith("ValueError: no such feature: voltage")
        assert "tiny_job.py" in str(failure.value)
        assert ti.pushed == {FAILURE_KEY: {"job_id": job_id, "reason": str(failure.value)}}
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
            finish(needs_too_many_slots)

        assert hook.job(job_id).state is JobStatus.CANCELED

    def test_that_a_user_ends_is_cancelled_in_flink(self, hook, job_id, tiny_job):
        trigger = defer(submission(job_id, tiny_job))

        with capture_logs() as said:
            asyncio.run(trigger.on_kill())

        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED
        assert "because a user ended its task" in str(said)

    def test_whose_worker_is_told_to_end_is_cancelled_in_flink(self, hook, job_id, tiny_job):
        operator = submission(job_id, tiny_job)
        defer(operator)

        operator.on_kill()

        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED

    def test_whose_worker_is_told_to_end_while_it_takes_up_the_started_job_fails(
        self, hook, job_id, tiny_job
    ):
        operator, ti = submission(job_id, tiny_job), TaskInstance()
        [event] = events_of(defer(operator))
        operator.on_kill()

        with pytest.raises(AirflowFailException, match="had started and was cancelled"):
            operator.resume({"ti": ti}, event)

        assert ti.pushed[FAILURE_KEY]["job_id"] == job_id
        assert wait_until_ended(hook, job_id) is JobStatus.CANCELED

    def test_to_a_cluster_that_does_not_answer_leaves_the_reason_and_is_tried_again(
        self, job_id, tiny_job, monkeypatch
    ):
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://127.0.0.1:9")
        operator, ti = submission(job_id, tiny_job), TaskInstance()
        operator.flink_conn_id = "nowhere"

        with pytest.raises(httpx.ConnectError):
            execute(operator, ti)

        assert "could not be submitted: " in ti.pushed[FAILURE_KEY]["reason"]

    def test_gives_a_job_that_it_attaches_to_what_is_left_of_its_time(self, hook, job_id, tiny_job):
        hook.run_python_job(job_id, tiny_job, parallelism=64)
        while (job := hook.job(job_id)).now - job.start_time < 3_000:
            time.sleep(0.2)

        trigger = defer(submission(job_id, tiny_job, start_timeout_seconds=300))

        assert 0 < trigger.deadline - time.time() <= 297

    def test_gives_a_job_that_has_run_for_days_and_restarts_all_of_its_time(self, job_id, tiny_job):
        days = 3 * 86_400_000
        job = Job(job_id, "tiny", JobStatus.RESTARTING, [], now=days + 1_000, start_time=1_000)

        with pytest.raises(TaskDeferred) as deferred:
            submission(job_id, tiny_job, start_timeout_seconds=60).await_start(job)

        assert 50 < deferred.value.trigger.deadline - time.time() <= 60

    def test_looks_and_posts_within_its_guard(self, hook, job_id, tiny_job):
        seen = []

        @contextmanager
        def guard(guarded):
            seen.append((guarded, hook.find_job(job_id)))
            yield
            seen.append((guarded, hook.job(job_id).jid))

        defer(submission(job_id, tiny_job, guard=guard))

        assert seen == [(job_id, None), (job_id, job_id)]

    def test_that_its_guard_refuses_sends_nothing(self, hook, job_id, tiny_job):
        @contextmanager
        def guard(_):
            raise AirflowFailException("another one runs")
            yield

        ti = TaskInstance()
        with pytest.raises(AirflowFailException, match="another one runs"):
            execute(submission(job_id, tiny_job, guard=guard), ti)

        assert hook.find_job(job_id) is None
        assert ti.pushed == {FAILURE_KEY: {"job_id": job_id, "reason": "another one runs"}}


class TestSavepoint:
    @pytest.fixture
    def running(self, hook, job_id, tiny_job):
        finish(submission(job_id, tiny_job))
        return job_id

    def test_leaves_the_job_running_and_returns_where_it_is(self, hook, running):
        path = finish(operator_of(FlinkSavepointOperator, running))

        assert hook.job(running).state is JobStatus.RUNNING
        newest = hook.settled_checkpoints(running).latest.savepoint
        assert newest.external_path == path

    def test_run_again_after_its_worker_was_killed_takes_no_second_one(self, hook, running):
        first = defer(operator_of(FlinkSavepointOperator, running))
        second = defer(operator_of(FlinkSavepointOperator, running))

        assert first.request_id == second.request_id
        assert events_of(first) == events_of(second)

    def test_of_another_run_is_another_one(self, hook, running):
        operator = operator_of(FlinkSavepointOperator, running)

        assert finish(operator) != finish(operator, TaskInstance(run_id="another"))

    def test_of_a_job_that_cannot_take_one_says_why_and_is_tried_anew(self, hook, job_id, tiny_job):
        hook.run_python_job(job_id, tiny_job, parallelism=64)
        operator = operator_of(FlinkSavepointOperator, job_id)

        with pytest.raises(AirflowException, match="took no savepoint: it failed with"):
            finish(operator)
        first = operator.request_id("dag", "run", "task", -1, 1)
        assert defer(operator).request_id != first

    def test_whose_task_a_user_ends_goes_on_and_says_so(self, hook, running):
        trigger = defer(operator_of(FlinkSavepointOperator, running))

        with capture_logs() as said:
            asyncio.run(trigger.on_kill())

        assert [each["log_level"] for each in said] == ["warning"]
        assert "goes on in Flink" in said[0]["event"]
        assert running in str(said[0])
        [event] = events_of(trigger)
        assert event["savepoint_path"] is not None


class TestCancellation:
    def test_ends_when_the_job_has(self, hook, job_id, tiny_job):
        hook.run_python_job(job_id, tiny_job)
        cancel = operator_of(FlinkCancelOperator, job_id)

        assert finish(cancel) == "CANCELED"
        assert hook.job(job_id).state is JobStatus.CANCELED
        assert finish(cancel) == "CANCELED"

    def test_of_no_job_or_one_that_flink_does_not_know_changes_nothing(self, hook, job_id):
        assert finish(operator_of(FlinkCancelOperator, "")) is None
        assert finish(operator_of(FlinkCancelOperator, job_id)) == "UNKNOWN"


class TestStop:
    def test_leaves_a_savepoint_that_the_next_job_starts_from(
        self, hook, job_id, tiny_job, stopped
    ):
        assert hook.job(stopped["job_id"]).state is JobStatus.FINISHED

        savepoint = stopped["savepoint_path"]
        finish(submission(job_id, tiny_job, savepoint_path=savepoint))

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

    def test_run_again_after_its_worker_was_killed_waits_for_the_same_savepoint(
        self, hook, job_id, tiny_job
    ):
        finish(submission(job_id, tiny_job))
        operator = operator_of(FlinkStopWithSavepointOperator, job_id)
        killed = defer(operator)

        found = finish(operator)

        [event] = events_of(killed)
        assert found == {"job_id": job_id, "savepoint_path": event["savepoint_path"]}
        assert found["savepoint_path"] is not None

    def test_without_a_job_does_nothing(self, hook, job_id):
        assert stop(None) == {"job_id": None, "savepoint_path": None}
        assert stop(job_id) == {"job_id": job_id, "savepoint_path": None}


ARGUMENTS = {
    "job_id": "0" * 32,
    "flink_conn_id": "flead_flink",
    "deadline": 1.5,
    "poll_seconds": 0.25,
}


class TestTrigger:
    @pytest.mark.parametrize(
        ("kind", "further"),
        [
            (FlinkJobStartedTrigger, {"absent_is_final": False}),
            (FlinkSavepointTrigger, {"request_id": "1" * 32}),
            (FlinkJobEndedTrigger, {"is_cancelled": True, "carried": {"reason": "it is late"}}),
        ],
    )
    def test_is_rebuilt_from_its_class_path_and_all_its_arguments(self, kind, further):
        path = f"flead_airflow.flink.triggers.{kind.__name__}"

        assert kind(**ARGUMENTS, **further).serialize() == (path, ARGUMENTS | further)
        assert pkgutil.resolve_name(path)(**ARGUMENTS, **further).serialize() == (
            path,
            ARGUMENTS | further,
        )

    @pytest.mark.parametrize(
        ("kind", "further", "event"),
        [
            (FlinkJobStartedTrigger, {}, {"started": False}),
            (FlinkSavepointTrigger, {"request_id": "1" * 32}, {"savepoint_path": None}),
            (FlinkJobEndedTrigger, {"carried": {"why": "late"}}, {"state": None, "why": "late"}),
        ],
    )
    def test_of_a_cluster_that_does_not_answer_fires_once_when_its_time_is_over(
        self, monkeypatch, kind, further, event
    ):
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://127.0.0.1:9")
        trigger = kind(**ARGUMENTS | {"flink_conn_id": "nowhere"}, **further)

        [fired] = events_of(trigger)

        detail = fired.pop("detail")
        assert fired == {"job_id": "0" * 32, **event}
        assert detail.startswith("its time is over: Flink does not answer: ")

    def test_fires_once_for_each_end_of_a_savepoint(self, hook, job_id):
        lost = FlinkSavepointTrigger(
            **ARGUMENTS | {"flink_conn_id": FLINK_CONNECTION, "job_id": job_id},
            request_id="1" * 32,
        )

        [event] = events_of(lost)

        assert event["savepoint_path"] is None
        assert "does not know the savepoint" in event["detail"]

    def test_waits_for_a_job_that_is_to_come(self, hook, job_id):
        trigger = FlinkJobStartedTrigger(
            **ARGUMENTS
            | {
                "flink_conn_id": FLINK_CONNECTION,
                "job_id": job_id,
                "deadline": time.time() + 1,
            },
            absent_is_final=False,
        )

        [event] = events_of(trigger)

        assert event["detail"] == "its time is over: the JobManager does not know the job yet"

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

    def test_does_not_block_the_event_loop(self, hook, job_id, tiny_job, monkeypatch):
        trigger = defer(submission(job_id, tiny_job))

        [event] = assert_loop_goes_on(monkeypatch, trigger, httpx.Client, "request")

        assert event["started"]


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

    def test_counts_slots_and_reads_metrics(self, hook, job_id, tiny_job):
        before = hook.overview()
        assert (before.taskmanagers, before.flink_version[:2]) == (1, "2.")
        deadline = time.monotonic() + 120
        # Jobs of other tests, which were cancelled, give theirs back.
        while hook.overview().slots_available < before.slots_total:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        finish(submission(job_id, tiny_job))

        assert hook.overview().slots_available == before.slots_total - 1
        deadline = time.monotonic() + 60
        while not (metrics := hook.metrics(job_id, ["numRestarts", "no such"])):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert metrics == {"numRestarts": 0.0}

    def test_reads_where_checkpoints_are_kept(self, hook):
        assert hook.configuration()["execution.checkpointing.dir"].startswith("file:")
