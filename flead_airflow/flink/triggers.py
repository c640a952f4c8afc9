"""Wait for Flink without a worker.

Each trigger fires once. Its deadline is absolute, so that a triggerer that takes it over from one
that was killed does not extend it, and a cluster that does not answer is waited for until then.
"""

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

from flead_airflow.flink.errors import FlinkRestError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import Job, JobStatus

ERROR_CHARACTERS: Final = 4_000
UNKNOWN: Final = "UNKNOWN"
"""In place of the state of a job that the JobManager does not know."""

Payload = dict[str, Any]


class FlinkTrigger(BaseTrigger):
    """Look at a job again and again; fire once, at the latest when the time is over.

    Parameters
    ----------
    job_id : str
        32 hex digits.
    flink_conn_id : str
        See `FlinkRestHook`.
    deadline : float
        Seconds since the epoch.
    poll_seconds : float
        Between two looks at the job.
    """

    def __init__(
        self, *, job_id: str, flink_conn_id: str, deadline: float, poll_seconds: float = 1.0
    ) -> None:
        super().__init__()
        self.job_id = job_id
        self.flink_conn_id = flink_conn_id
        self.deadline = deadline
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments of this trigger."""
        kind = type(self)
        return f"{kind.__module__}.{kind.__qualname__}", self.arguments()

    def arguments(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {
            "job_id": self.job_id,
            "flink_conn_id": self.flink_conn_id,
            "deadline": self.deadline,
            "poll_seconds": self.poll_seconds,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        with FlinkRestHook(self.flink_conn_id) as hook:
            payload = await self._wait(hook)
        yield TriggerEvent({"job_id": self.job_id, **payload})

    @abstractmethod
    def look(self, hook: FlinkRestHook) -> Payload | str:
        """Return the event, or what is waited for; blocks, in a thread of its own."""

    @abstractmethod
    def timed_out(self, waited_for: str) -> Payload:
        """Return the event of a wait whose time is over."""

    async def _wait(self, hook: FlinkRestHook) -> Payload:
        while True:
            try:
                seen = await asyncio.to_thread(self.look, hook)
            except (httpx.TransportError, FlinkRestError) as error:
                seen = f"Flink does not answer: {error}"
            if not isinstance(seen, str):
                return seen
            if time.time() >= self.deadline:
                return self.timed_out(f"its time is over: {seen}")
            await asyncio.sleep(self.poll_seconds)


class FlinkJobStartedTrigger(FlinkTrigger):
    """Fire when a job has started, or when it is certain that it will not.

    Started means that every vertex is RUNNING and a checkpoint has completed: a job can be RUNNING
    while its Python workers fail to start. The event has `started` and, for people, `detail`.

    Parameters
    ----------
    job_id, flink_conn_id, deadline, poll_seconds
        See `FlinkTrigger`.
    absent_is_final : bool
        Whether a job that the JobManager does not know has been lost; otherwise it is waited for.
    """

    def __init__(self, *, absent_is_final: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.absent_is_final = absent_is_final

    def arguments(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return super().arguments() | {"absent_is_final": self.absent_is_final}

    def look(self, hook: FlinkRestHook) -> Payload | str:
        """Tell whether the job has started."""
        job = hook.find_job(self.job_id)
        if job is None:
            if self.absent_is_final:
                lost = "the JobManager does not know the job: it was restarted meanwhile"
                return {"started": False, "detail": lost}
            return "the JobManager does not know the job yet"
        if job.state.ended:
            detail = f"the job is {job.state}{newest_exception(hook, job)}"
            return {"started": False, "detail": detail}
        if not job.runs_every_vertex:
            waiting = ", ".join(f"{v.name} {v.status}" for v in job.waiting_vertices)
            return f"the job is {job.state}; {waiting}{newest_exception(hook, job)}"
        checkpoints = hook.checkpoints(self.job_id)
        if checkpoints.counts.completed == 0:
            failed = checkpoints.latest.failed
            reason = f": {failed.failure_message}" if failed else ""
            return f"no checkpoint has completed{reason}"
        return {"started": True, "detail": "every vertex runs and a checkpoint has completed"}

    def timed_out(self, waited_for: str) -> Payload:
        """Say that it has not started."""
        return {"started": False, "detail": waited_for}

    async def on_kill(self) -> None:
        """Cancel the job: a user has given up on it."""
        with FlinkRestHook(self.flink_conn_id) as hook:
            await asyncio.to_thread(hook.cancel, self.job_id)
        self.log.warning("Job %s is cancelled in Flink, because a user ended its task", self.job_id)


class FlinkSavepointTrigger(FlinkTrigger):
    """Fire when a savepoint is complete or has failed.

    The event has `savepoint_path`, None for one that failed, and `detail`. One that was asked for
    cannot be taken back, so a user who ends the task ends only the wait.

    Parameters
    ----------
    job_id, flink_conn_id, deadline, poll_seconds
        See `FlinkTrigger`.
    request_id : str
        32 hex digits that the savepoint was asked for with, Flink's `triggerId`.
    """

    def __init__(self, *, request_id: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        # not `trigger_id`: a triggerer overwrites that of every trigger with a number of its own
        self.request_id = request_id

    def arguments(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return super().arguments() | {"request_id": self.request_id}

    def look(self, hook: FlinkRestHook) -> Payload | str:
        """Tell what has become of the savepoint."""
        status = hook.find_savepoint(self.job_id, self.request_id)
        if status is None:
            lost = "the JobManager does not know the savepoint: it was restarted meanwhile"
            return {"savepoint_path": None, "detail": lost}
        if status.operation is None:
            return f"the savepoint is {status.status.id}"
        cause = status.operation.failure_cause
        detail = f"it failed with\n{shortened(cause.stack_trace)}" if cause else "it is complete"
        return {"savepoint_path": status.operation.location, "detail": detail}

    def timed_out(self, waited_for: str) -> Payload:
        """Say that there is none."""
        return {"savepoint_path": None, "detail": waited_for}

    async def on_kill(self) -> None:
        """Say that nothing is cancelled."""
        self.log.warning(
            "A user ended the task, but the savepoint of job %s was asked for and goes on in Flink;"
            " if the job was to stop with it, it still does",
            self.job_id,
        )


class FlinkJobEndedTrigger(FlinkTrigger):
    """Fire when a job has ended.

    The event has `state`, `UNKNOWN` for a job that the JobManager does not know and None for one
    that has not ended in time, `detail`, and what is carried. An end that was asked for cannot be
    taken back, so a user who ends the task ends only the wait.

    Parameters
    ----------
    job_id, flink_conn_id, deadline, poll_seconds
        See `FlinkTrigger`.
    is_cancelled : bool
        Whether the job was cancelled; one that the script of its submission makes only now could
        not be told then, and is cancelled when it is seen.
    carried : dict, optional
        Comes back in the event; `dag.test()` drops the `kwargs` of a deferral.
    """

    def __init__(
        self, *, is_cancelled: bool = False, carried: Payload | None = None, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.is_cancelled = is_cancelled
        self.carried = carried or {}

    def arguments(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return super().arguments() | {"is_cancelled": self.is_cancelled, "carried": self.carried}

    def look(self, hook: FlinkRestHook) -> Payload | str:
        """Tell whether the job has ended."""
        job = hook.find_job(self.job_id)
        if job is None:
            if hook.runs_script():
                return "a script runs that may yet submit the job"
            # the script may have ended between the two looks
            job = hook.find_job(self.job_id)
        if job is None:
            return self._event(UNKNOWN, "the JobManager does not know the job")
        if self.is_cancelled and not (job.state.ended or job.state is JobStatus.CANCELLING):
            hook.cancel(self.job_id)
        detail = f"the job is {job.state}"
        return self._event(job.state.value, detail) if job.state.ended else detail

    def timed_out(self, waited_for: str) -> Payload:
        """Say that it has not ended."""
        return self._event(None, waited_for)

    async def on_kill(self) -> None:
        """Say that nothing is cancelled."""
        self.log.warning("A user ended the task, but job %s was told to end and does", self.job_id)

    def _event(self, state: str | None, detail: str) -> Payload:
        return {"state": state, "detail": detail, **self.carried}


def newest_exception(hook: FlinkRestHook, job: Job) -> str:
    """End of the newest failure of a job, which holds the Python traceback, or nothing."""
    entries = hook.exceptions(job.jid).exception_history.entries
    return f"; it failed with\n{shortened(entries[0].stacktrace)}" if entries else ""


def shortened(stack_trace: str) -> str:
    """End of a stack trace without frames of Java."""
    lines = [line for line in stack_trace.splitlines() if not line.startswith("\t")]
    return "\n".join(lines)[-ERROR_CHARACTERS:]
