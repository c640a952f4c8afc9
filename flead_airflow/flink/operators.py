"""Start and stop PyFlink jobs."""

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from flead_airflow.flink.arguments import check_program_arguments
from flead_airflow.flink.errors import FlinkDuplicateJobError, FlinkSubmissionError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import Job, JobStatus
from flead_airflow.flink.triggers import FlinkJobStartedTrigger

POLL_SECONDS: Final = 0.5
FAILURE_KEY: Final = "failure"
"""XCom key under which a submission leaves why it failed."""


class FlinkSubmitPythonJobOperator(BaseOperator):
    """Submit a PyFlink job to a session cluster and wait, deferred, until it has started.

    The caller chooses the job id and stores it before this runs. Flink accepts an id once, so that
    running the task twice attaches to the job that the first run submitted and never makes a second
    one. A job that does not start in time is cancelled, and so is one whose task a user ends.

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
    start_timeout_seconds : float
        How long the job may take until every vertex runs and a checkpoint has completed.
    poll_seconds : float
        Between two looks at the job.
    flink_conn_id : str
        See `FlinkRestHook`.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "script",
        "arguments",
        "parallelism",
        "savepoint_path",
    )
    ui_color = "#ffe3ec"

    def __init__(
        self,
        *,
        job_id: str,
        script: str,
        arguments: Sequence[str] = (),
        parallelism: int | str = 1,
        savepoint_path: str | None = None,
        allow_non_restored_state: bool = False,
        start_timeout_seconds: float = 300.0,
        poll_seconds: float = 1.0,
        flink_conn_id: str = FlinkRestHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.script = script
        self.arguments = arguments
        self.parallelism = parallelism
        self.savepoint_path = savepoint_path
        self.allow_non_restored_state = allow_non_restored_state
        self.start_timeout_seconds = start_timeout_seconds
        self.poll_seconds = poll_seconds
        self.flink_conn_id = flink_conn_id

    @cached_property
    def hook(self) -> FlinkRestHook:
        """The cluster."""
        return FlinkRestHook(self.flink_conn_id)

    def execute(self, context: Context) -> None:
        """Submit the job, or attach to it, and defer until it has started."""
        check_program_arguments(self.arguments)
        job = self.hook.find_job(self.job_id) or self._submit(context)
        if job and job.state.ended:
            raise self._failure(
                context,
                f"job {self.job_id} was submitted before and is {job.state}:"
                " Flink accepts an id once, so a new attempt needs a new id",
            )
        if job:
            self.log.info("Attaching to job %s, which is %s", self.job_id, job.state)
        self.defer(
            trigger=FlinkJobStartedTrigger(
                job_id=self.job_id,
                flink_conn_id=self.flink_conn_id,
                deadline=time.time() + self.start_timeout_seconds,
                poll_seconds=self.poll_seconds,
            ),
            method_name=self.resume.__name__,
            # a triggerer that is down must not keep the task for ever
            timeout=timedelta(seconds=2 * self.start_timeout_seconds),
        )

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the id of the started job, or fail with what Flink says about it."""
        if event["started"]:
            self.log.info("Job %s has started: %s", self.job_id, event["detail"])
            return self.job_id
        self.hook.cancel(self.job_id)
        raise self._failure(context, f"job {self.job_id} has not started: {event['detail']}")

    def on_kill(self) -> None:
        """Cancel the job."""
        self.hook.cancel(self.job_id)

    def _submit(self, context: Context) -> Job | None:
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
            )
        except FlinkDuplicateJobError:
            # an answer got lost, and what was refused is a repetition of our own
            return self.hook.job(self.job_id)
        except FlinkSubmissionError as error:
            reason = f"job {self.job_id} was not accepted: {error}"
            raise self._failure(context, reason) from error
        return None

    @staticmethod
    def _failure(context: Context, reason: str) -> AirflowFailException:
        """Leave the reason in the XCom; the task is not retried, because that cannot help."""
        context["ti"].xcom_push(key=FAILURE_KEY, value=reason)
        return AirflowFailException(reason)


class FlinkStopWithSavepointOperator(BaseOperator):
    """Stop a job with a savepoint; returns `job_id` and `savepoint_path`, null where there is none.

    Afterwards the job does not run. A job that cannot take a savepoint (its tasks restart, say) is
    cancelled: its newest retained checkpoint is then what to restore, and as exact. Running it
    again finds the savepoint of the job that was stopped before.

    Parameters
    ----------
    job_id : str, optional
        The job; without one nothing is done.
    stop_timeout_seconds : float
        How long the savepoint, and then the end of the job, may take.
    flink_conn_id : str
        See `FlinkRestHook`.
    """

    template_fields: Sequence[str] = ("job_id",)
    ui_color = "#ffe3ec"

    def __init__(
        self,
        *,
        job_id: str | None,
        stop_timeout_seconds: float = 120.0,
        flink_conn_id: str = FlinkRestHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.stop_timeout_seconds = stop_timeout_seconds
        self.flink_conn_id = flink_conn_id

    @cached_property
    def hook(self) -> FlinkRestHook:
        """The cluster."""
        return FlinkRestHook(self.flink_conn_id)

    def execute(self, context: Context) -> dict[str, str | None]:
        """Stop the job."""
        if not self.job_id:
            self.log.info("There is no job to stop")
            return {"job_id": None, "savepoint_path": None}
        job = self.hook.find_job(self.job_id)
        if job is None:
            self.log.warning("Flink does not know job %s: nothing to stop", self.job_id)
            return {"job_id": self.job_id, "savepoint_path": None}
        stop = self._savepoint_of if job.state.ended else self._stop
        return {"job_id": self.job_id, "savepoint_path": stop(self.job_id)}

    def _stop(self, job_id: str) -> str | None:
        trigger_id = uuid.uuid4().hex
        self.hook.stop_with_savepoint(job_id, trigger_id)
        deadline = time.monotonic() + self.stop_timeout_seconds
        while time.monotonic() < deadline:
            status = self.hook.savepoint(job_id, trigger_id)
            if status.operation and status.operation.failure_cause:
                self.log.warning(
                    "Job %s took no savepoint and is cancelled: %s",
                    job_id,
                    status.operation.failure_cause.stack_trace,
                )
                break
            if status.operation:
                self._wait_for_end(job_id)
                location = status.operation.location
                self.log.info("Job %s is stopped with savepoint %s", job_id, location)
                return location
            time.sleep(POLL_SECONDS)
        else:
            self.log.warning("Job %s took no savepoint in time and is cancelled", job_id)
        self.hook.cancel(job_id)
        self._wait_for_end(job_id)
        # one that came too late, perhaps
        return self._savepoint_of(job_id)

    def _wait_for_end(self, job_id: str) -> None:
        deadline = time.monotonic() + self.stop_timeout_seconds
        while not (job := self.hook.job(job_id)).state.ended:
            if time.monotonic() > deadline:
                raise AirflowException(f"job {job_id} is {job.state} and does not end")
            time.sleep(POLL_SECONDS)

    def _savepoint_of(self, job_id: str) -> str | None:
        job = self.hook.job(job_id)
        savepoint = self.hook.settled_checkpoints(job_id).latest.savepoint
        if job.state is JobStatus.FINISHED and savepoint and not savepoint.discarded:
            self.log.info("Job %s was stopped with savepoint %s", job_id, savepoint.external_path)
            return savepoint.external_path
        self.log.warning("Job %s is %s without a savepoint", job_id, job.state)
        return None
