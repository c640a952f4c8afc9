"""Start, save, stop and cancel PyFlink jobs, each deferred while Flink works.

Flink holds the progress: every request names what it makes, a job by its id and a savepoint by its
request id, and both are the same each time that a task runs. So a task whose worker, triggerer or
scheduler was killed finds what it had begun, and begins nothing twice.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Any, Final, NoReturn

import httpx
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.types import RuntimeTaskInstanceProtocol

from flead_airflow.flink.arguments import check_program_arguments
from flead_airflow.flink.errors import (
    FlinkDuplicateJobError,
    FlinkJobNotFoundError,
    FlinkRestError,
    FlinkSubmissionError,
)
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import Job, JobStatus
from flead_airflow.flink.triggers import (
    FlinkJobEndedTrigger,
    FlinkJobStartedTrigger,
    FlinkSavepointTrigger,
    FlinkTrigger,
)

FAILURE_KEY: Final = "failure"
"""XCom key under which a submission leaves `job_id` and the `reason` why it failed."""
END_SECONDS: Final = 120.0
"""How long a job that was told to end may take by default."""
SPARE_SECONDS: Final = 300.0
"""A triggerer that is down for longer than this after a deadline must not keep a task for ever."""
MILLISECONDS: Final = 1_000

Guard = Callable[[str], AbstractContextManager[object]]


def failure_of(ti: RuntimeTaskInstanceProtocol, task_id: str, job_id: str) -> str | None:
    """Return why a submission of this run has failed, None when that is not known of this job.

    Airflow keeps what a task has left until it runs again: it may be of a job before this one.
    """
    failure: dict[str, str] | None = ti.xcom_pull(task_ids=task_id, key=FAILURE_KEY)
    return failure["reason"] if failure and failure["job_id"] == job_id else None


class FlinkJobOperator(BaseOperator):
    """What the operators have in common: a job on a cluster, and waiting for it without a worker.

    Parameters
    ----------
    job_id : str, optional
        The job, 32 hex digits.
    poll_seconds : float
        Between two looks at the job.
    flink_conn_id : str
        See `FlinkRestHook`.
    """

    template_fields: Sequence[str] = ("job_id",)
    ui_color = "#ffe3ec"

    def __init__(
        self,
        *,
        job_id: str | None,
        poll_seconds: float = 1.0,
        flink_conn_id: str = FlinkRestHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.poll_seconds = poll_seconds
        self.flink_conn_id = flink_conn_id

    @cached_property
    def hook(self) -> FlinkRestHook:
        """The cluster."""
        return FlinkRestHook(self.flink_conn_id)

    def wait(
        self,
        kind: type[FlinkTrigger],
        resume: Callable[..., Any],
        seconds: float,
        **arguments: Any,
    ) -> NoReturn:
        """Leave the worker until a trigger fires, `seconds` from now at the latest.

        `resume` is then called with the event.
        """
        self.defer(
            trigger=kind(
                job_id=self.job_id,
                flink_conn_id=self.flink_conn_id,
                deadline=time.time() + seconds,
                poll_seconds=self.poll_seconds,
                **arguments,
            ),
            method_name=resume.__name__,
            timeout=timedelta(seconds=seconds + SPARE_SECONDS),
        )
        raise AssertionError("defer raises")

    def request_id(self, *asked_by: object) -> str:
        """Id of the savepoint that is asked for, the same each time that the same asks."""
        asked = "/".join(map(str, (self.job_id, *asked_by)))
        return hashlib.sha256(asked.encode()).hexdigest()[:32]


class StartingJobMixin:
    """Wait until a job that was submitted has started; cancel it when it has not in time.

    For a `FlinkJobOperator` with a `start_timeout_seconds`.
    """

    job_id: str
    start_timeout_seconds: float
    hook: FlinkRestHook
    wait: Callable[..., NoReturn]
    log: Any
    is_killed = False

    def await_start(self, job: Job | None, *, absent_is_final: bool = True) -> NoReturn:
        """Defer until the job has started; one that exists already has had some of its time.

        One that has existed for longer is not late but restarts: it has all of its time again.
        """
        used = (job.now - job.start_time) / MILLISECONDS if job else 0.0
        left = self.start_timeout_seconds - used
        self.wait(
            FlinkJobStartedTrigger,
            self.resume,
            left if left > 0 else self.start_timeout_seconds,
            absent_is_final=absent_is_final,
        )

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the id of the started job, or cancel it and wait for its end."""
        if event["started"]:
            self.log.info("Job %s has started: %s", self.job_id, event["detail"])
            # Airflow calls `on_kill` in between and lets the task go on
            if self.is_killed:
                reason = f"job {self.job_id} had started and was cancelled: its task was ended"
                raise self.failure(context, reason)
            return self.job_id
        reason = f"job {self.job_id} has not started: {event['detail']}"
        self.log.error("%s; it is cancelled", reason)
        self.hook.cancel(self.job_id)
        return self.wait(
            FlinkJobEndedTrigger,
            self.fail_once_ended,
            END_SECONDS,
            carried={"reason": reason},
            is_cancelled=True,
        )

    def fail_once_ended(self, context: Context, event: dict[str, Any]) -> NoReturn:
        """Fail with what Flink said about a job that did not start, now that it has ended."""
        reason = event["reason"]
        if event["state"] is None:
            reason = f"{reason}\nIt was told to end and does not: {event['detail']}"
        raise self.failure(context, reason)

    def on_kill(self) -> None:
        """Cancel the job; a task that ends all the same fails."""
        self.is_killed = True
        self.hook.cancel(self.job_id)
        self.log.warning("Job %s is cancelled in Flink, because its task was ended", self.job_id)

    def failure(self, context: Context, reason: str) -> AirflowFailException:
        """Leave the reason in the XCom; the task is not retried, because that cannot help."""
        self.leave_reason(context, reason)
        return AirflowFailException(reason)

    def leave_reason(self, context: Context, reason: str) -> None:
        """Leave in the XCom why this try has failed."""
        context["ti"].xcom_push(key=FAILURE_KEY, value={"job_id": self.job_id, "reason": reason})


class FlinkSubmitPythonJobOperator(StartingJobMixin, FlinkJobOperator):
    """Submit a PyFlink job to a session cluster and wait, deferred, until it has started.

    The caller chooses the job id and stores it before this runs. Flink accepts an id once, so that
    running the task twice attaches to the job that the first run submitted and never makes a second
    one. A job that does not start in time is cancelled and has ended when the task fails; one whose
    task a user ends is cancelled, too.

    Parameters
    ----------
    job_id : str
        32 hex digits, never used before.
    script : str
        Path of the PyFlink script on the JobManager's machine.
    arguments : sequence of str
        Arguments of the script; none may abbreviate an option of Flink's PythonDriver.
    parallelism : int
        Flink ignores its own default for jobs that come over REST.
    savepoint_path : str, optional
        Savepoint or retained checkpoint to start from.
    allow_non_restored_state : bool
        Start also when the savepoint holds state of an operator that is gone.
    configuration : dict, optional
        Flink's settings of this job, such as `python.files`.
    start_timeout_seconds : float
        How long the job may take until every vertex runs and a checkpoint has completed.
    guard : callable, optional
        Called with the job id; returns a context manager that is entered before the job is looked
        for and left after it was posted: to hold a lock meanwhile, or to refuse by raising.
    poll_seconds, flink_conn_id
        See `FlinkJobOperator`.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "script",
        "arguments",
        "parallelism",
        "savepoint_path",
        "configuration",
    )

    def __init__(
        self,
        *,
        job_id: str,
        script: str,
        arguments: Sequence[str] = (),
        parallelism: int | str = 1,
        savepoint_path: str | None = None,
        allow_non_restored_state: bool = False,
        configuration: dict[str, str] | None = None,
        start_timeout_seconds: float = 300.0,
        guard: Guard = nullcontext,
        **kwargs: Any,
    ) -> None:
        super().__init__(job_id=job_id, **kwargs)
        self.script = script
        self.arguments = arguments
        self.parallelism = parallelism
        self.savepoint_path = savepoint_path
        self.allow_non_restored_state = allow_non_restored_state
        self.configuration = configuration
        self.start_timeout_seconds = start_timeout_seconds
        self.guard = guard

    def execute(self, context: Context) -> None:
        """Submit the job, or attach to it, and defer until it has started."""
        check_program_arguments(self.arguments)
        try:
            with self.guard(self.job_id):
                job = self.hook.find_job(self.job_id) or self._submit()
        except (FlinkRestError, httpx.TransportError) as error:
            # the last of these tries may be the one that the run fails with
            self.leave_reason(context, f"job {self.job_id} could not be submitted: {error}")
            raise
        except AirflowFailException as refused:
            self.leave_reason(context, str(refused))
            raise
        if job and job.state.ended:
            raise self.failure(
                context,
                f"job {self.job_id} was submitted before and is {job.state}:"
                " Flink accepts an id once, so a new attempt needs a new id",
            )
        if job:
            self.log.info("Attaching to job %s, which is %s", self.job_id, job.state)
        self.await_start(job)

    def _submit(self) -> Job | None:
        """Submit the job; returns it when Flink says that it was submitted before."""
        self.log.info("Submitting job %s from %s", self.job_id, self.savepoint_path or "nothing")
        try:
            self.hook.run_python_job(
                self.job_id,
                self.script,
                self.arguments,
                parallelism=int(self.parallelism),
                savepoint_path=self.savepoint_path or None,
                allow_non_restored_state=self.allow_non_restored_state,
                configuration=self.configuration,
            )
        except FlinkDuplicateJobError:
            # an answer got lost, and what was refused is a repetition of our own
            return self.hook.job(self.job_id)
        except FlinkSubmissionError as error:
            raise AirflowFailException(f"job {self.job_id} was not accepted: {error}") from error
        return None


class FlinkSavepointOperator(FlinkJobOperator):
    """Take a savepoint of a running job, which goes on; returns its path.

    A task that runs again while Flink remembers its savepoint
    (`rest.async.store-duration`, five minutes) returns that one; one that failed is tried again.

    Parameters
    ----------
    job_id : str
        The job.
    savepoint_timeout_seconds : float
        How long it may take.
    poll_seconds, flink_conn_id
        See `FlinkJobOperator`.
    """

    def __init__(self, *, savepoint_timeout_seconds: float = 300.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.savepoint_timeout_seconds = savepoint_timeout_seconds

    def execute(self, context: Context) -> None:
        """Ask for a savepoint, or find the one that was asked for, and defer until it is there."""
        request_id = self._ask(context)
        self.wait(
            FlinkSavepointTrigger,
            self.resume,
            self.savepoint_timeout_seconds,
            request_id=request_id,
        )

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the path of the savepoint."""
        path: str | None = event["savepoint_path"]
        if path is None:
            raise AirflowException(f"job {self.job_id} took no savepoint: {event['detail']}")
        self.log.info("Job %s has taken savepoint %s", self.job_id, path)
        return path

    def on_kill(self) -> None:
        """Say that nothing is cancelled."""
        self.log.warning("A savepoint of job %s that was asked for goes on in Flink", self.job_id)

    def _ask(self, context: Context) -> str:
        job_id, ti = str(self.job_id), context["ti"]
        for number in count(1):
            request_id = self.request_id(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, number)
            status = self.hook.find_savepoint(job_id, request_id)
            if status is None:
                self.hook.trigger_savepoint(job_id, request_id)
            elif status.operation and status.operation.failure_cause:
                continue
            return request_id
        raise AssertionError("count is infinite")


class FlinkStopWithSavepointOperator(FlinkJobOperator):
    """Stop a job with a savepoint; returns `job_id` and `savepoint_path`, null where there is none.

    Afterwards the job does not run. A job that cannot take a savepoint (its tasks restart, say) is
    cancelled: its newest retained checkpoint is then what to restore, and as exact. Running it
    again finds the savepoint of the job that was stopped before. A stop that has begun goes on in
    Flink when a user ends the task.

    Parameters
    ----------
    job_id : str, optional
        The job; without one nothing is done.
    stop_timeout_seconds : float
        How long the savepoint, and then the end of the job, may take.
    poll_seconds, flink_conn_id
        See `FlinkJobOperator`.
    """

    def __init__(self, *, stop_timeout_seconds: float = END_SECONDS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stop_timeout_seconds = stop_timeout_seconds

    def execute(self, context: Context) -> dict[str, str | None]:
        """Ask for the stop and defer until the savepoint is there."""
        if not self.job_id:
            self.log.info("There is no job to stop")
            return self.result(None)
        job = self.hook.find_job(self.job_id)
        if job is None:
            self.log.warning("Flink does not know job %s: nothing to stop", self.job_id)
            return self.result(None)
        if job.state.ended:
            return self.result(self._savepoint_of(self.job_id))
        # not the task's own: a job is stopped once, whichever task asks
        request_id = self.request_id("stop", context["ti"].dag_id, context["ti"].run_id)
        self.hook.stop_with_savepoint(self.job_id, request_id)
        return self.wait(
            FlinkSavepointTrigger,
            self.end_with_savepoint,
            self.stop_timeout_seconds,
            request_id=request_id,
        )

    def end_with_savepoint(self, context: Context, event: dict[str, Any]) -> NoReturn:
        """Defer until the job has ended; cancel one that took no savepoint."""
        path = event["savepoint_path"]
        if path is None:
            self.log.warning(
                "Job %s took no savepoint and is cancelled: %s", self.job_id, event["detail"]
            )
            self.hook.cancel(str(self.job_id))
        self.wait(
            FlinkJobEndedTrigger,
            self.finish,
            self.stop_timeout_seconds,
            carried={"savepoint_path": path},
            is_cancelled=path is None,
        )

    def finish(self, context: Context, event: dict[str, Any]) -> dict[str, str | None]:
        """Return the savepoint of the job that has ended."""
        if event["state"] is None:
            raise AirflowException(f"job {self.job_id} does not end: {event['detail']}")
        savepoint_path: str | None = event["savepoint_path"]
        if savepoint_path is None:
            # one that came too late, perhaps
            return self.result(self._savepoint_of(str(self.job_id)))
        self.log.info("Job %s was stopped with savepoint %s", self.job_id, savepoint_path)
        return self.result(savepoint_path)

    def on_kill(self) -> None:
        """Say that nothing is cancelled."""
        self.log.warning("Job %s was told to stop with a savepoint, and does", self.job_id)

    def result(self, savepoint_path: str | None) -> dict[str, str | None]:
        """Return what the task returns."""
        return {"job_id": self.job_id or None, "savepoint_path": savepoint_path}

    def _savepoint_of(self, job_id: str) -> str | None:
        try:
            job = self.hook.job(job_id)
            savepoint = self.hook.settled_checkpoints(job_id).latest.savepoint
        except FlinkJobNotFoundError:
            self.log.warning("Flink does not know job %s any more", job_id)
            return None
        if job.state is JobStatus.FINISHED and savepoint and not savepoint.discarded:
            self.log.info("Job %s was stopped with savepoint %s", job_id, savepoint.external_path)
            return savepoint.external_path
        self.log.warning("Job %s is %s without a savepoint", job_id, job.state)
        return None


class FlinkCancelOperator(FlinkJobOperator):
    """Cancel a job without a savepoint; returns its last state once it has ended.

    Its retained checkpoints stay. A job that has ended already is left as it is; the result is
    `UNKNOWN` for one that Flink does not know. A cancellation goes on in Flink when a user ends the
    task.

    Parameters
    ----------
    job_id : str, optional
        The job; without one nothing is done, and the result is None.
    cancel_timeout_seconds : float
        How long its end may take.
    poll_seconds, flink_conn_id
        See `FlinkJobOperator`.
    """

    def __init__(self, *, cancel_timeout_seconds: float = END_SECONDS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_timeout_seconds = cancel_timeout_seconds

    def execute(self, context: Context) -> None:
        """Cancel the job and defer until it has ended."""
        if not self.job_id:
            self.log.info("There is no job to cancel")
            return
        self.hook.cancel(self.job_id)
        self.wait(FlinkJobEndedTrigger, self.resume, self.cancel_timeout_seconds, is_cancelled=True)

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the state in which the job has ended."""
        if event["state"] is None:
            raise AirflowException(f"job {self.job_id} does not end: {event['detail']}")
        self.log.info("Job %s has ended: %s", self.job_id, event["detail"])
        return str(event["state"])

    def on_kill(self) -> None:
        """Say that nothing is taken back."""
        self.log.warning("Job %s was cancelled, and ends", self.job_id)
