"""Wait for Flink without a worker."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseTrigger, TriggerEvent

from flead_airflow.flink.errors import FlinkRestError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import Job

ERROR_CHARACTERS = 4_000


class FlinkJobStartedTrigger(BaseTrigger):
    """Fire once: when a job has started, or when it is certain that it will not.

    Started means that every vertex is RUNNING and a checkpoint has completed: a job can be RUNNING
    while its Python workers fail to start.

    Parameters
    ----------
    job_id : str
        32 hex digits.
    flink_conn_id : str
        See `FlinkRestHook`.
    deadline : float
        Seconds since the epoch; absolute, so that a restarted triggerer does not extend it.
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
        return (
            "flead_airflow.flink.triggers.FlinkJobStartedTrigger",
            {
                "job_id": self.job_id,
                "flink_conn_id": self.flink_conn_id,
                "deadline": self.deadline,
                "poll_seconds": self.poll_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: `job_id`, `started`, and `detail` for people."""
        with FlinkRestHook(self.flink_conn_id) as hook:
            started, detail = await self._wait(hook)
        yield TriggerEvent({"job_id": self.job_id, "started": started, "detail": detail})

    async def on_kill(self) -> None:
        """Cancel the job: a user has given up on this deployment."""
        with FlinkRestHook(self.flink_conn_id) as hook:
            await asyncio.to_thread(hook.cancel, self.job_id)

    async def _wait(self, hook: FlinkRestHook) -> tuple[bool, str]:
        while True:
            started, detail = await asyncio.to_thread(self._look, hook)
            if started is not None:
                return started, detail
            if time.time() >= self.deadline:
                return False, f"its time is over: {detail}"
            await asyncio.sleep(self.poll_seconds)

    def _look(self, hook: FlinkRestHook) -> tuple[bool | None, str]:
        """Whether the job has started, None for not yet, and why; blocks."""
        try:
            return self._progress(hook)
        except (httpx.TransportError, FlinkRestError) as error:
            return None, f"Flink does not answer: {error}"

    def _progress(self, hook: FlinkRestHook) -> tuple[bool | None, str]:
        job = hook.find_job(self.job_id)
        if job is None:
            return False, "the JobManager does not know the job: it was restarted meanwhile"
        if job.state.ended:
            return False, f"the job is {job.state}{newest_exception(hook, job)}"
        if not job.runs_every_vertex:
            waiting = ", ".join(f"{v.name} {v.status}" for v in job.waiting_vertices)
            return None, f"the job is {job.state}; {waiting}{newest_exception(hook, job)}"
        checkpoints = hook.checkpoints(self.job_id)
        if checkpoints.counts.completed == 0:
            failed = checkpoints.latest.failed
            reason = f": {failed.failure_message}" if failed else ""
            return None, f"no checkpoint has completed{reason}"
        return True, "every vertex runs and a checkpoint has completed"


def newest_exception(hook: FlinkRestHook, job: Job) -> str:
    """End of the newest failure of a job, which holds the Python traceback, or nothing."""
    entries = hook.exceptions(job.jid).exception_history.entries
    if not entries:
        return ""
    lines = [line for line in entries[0].stacktrace.splitlines() if not line.startswith("\t")]
    return "; it failed with\n" + "\n".join(lines)[-ERROR_CHARACTERS:]
