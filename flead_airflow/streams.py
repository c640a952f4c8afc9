"""Wait, without a worker, until a driver of the stream analysis has begun."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.triggers.base import BaseTrigger, TriggerEvent

from flead.settings import Settings

logger = logging.getLogger(__name__)


class StreamStartedTrigger(BaseTrigger):
    """Fire once: when a driver has committed its first batch, has failed, or is out of time.

    Parameters
    ----------
    deployment_id : str
    deadline : float
        Seconds since the epoch; absolute, so that a restarted triggerer does not extend it.
    poll_seconds : float
        Between two looks.
    """

    def __init__(self, *, deployment_id: str, deadline: float, poll_seconds: float = 1.0) -> None:
        super().__init__()
        self.deployment_id = deployment_id
        self.deadline = deadline
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments of this trigger."""
        return (
            "flead_airflow.streams.StreamStartedTrigger",
            {
                "deployment_id": self.deployment_id,
                "deadline": self.deadline,
                "poll_seconds": self.poll_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: why the driver failed, "" when it runs."""
        while (reason := await asyncio.to_thread(self._look)) is None:
            if time.time() >= self.deadline:
                reason = "it has committed no batch in time"
                break
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"reason": reason})

    def _look(self) -> str | None:
        import psycopg2  # noqa: PLC0415 - heavy, and a DAG imports us

        from flead_airflow.stream_deployments import look  # noqa: PLC0415

        try:
            return look(self.deployment_id)
        except psycopg2.OperationalError:
            logger.warning("Cannot tell whether the stream runs; asking again", exc_info=True)
            return None


class WaitForStreamOperator(BaseOperator):
    """Succeed when the driver of a deployment has begun to analyse.

    Parameters
    ----------
    deployment_id : str
        May be the result of another task.
    """

    template_fields: Sequence[str] = ("deployment_id",)
    ui_color = "#fff0e0"

    def __init__(self, *, deployment_id: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deployment_id = deployment_id

    def execute(self, context: Context) -> None:
        """Defer until there is something to tell."""
        seconds = Settings.from_environment().job_start_seconds
        self.defer(
            trigger=StreamStartedTrigger(
                deployment_id=self.deployment_id, deadline=time.time() + seconds
            ),
            method_name=self.resume.__name__,
            timeout=timedelta(seconds=2 * seconds + 60),
        )

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the deployment.

        Raises
        ------
        StreamStartError
            The driver has failed or is late; with the end of its log.
        """
        from flead_airflow.stream_deployments import (  # noqa: PLC0415 - heavy, as above
            StreamStartError,
            end_of_log,
        )

        if reason := event["reason"]:
            raise StreamStartError(
                f"deployment {self.deployment_id} does not run: {reason}\n{end_of_log()}"
            )
        return str(self.deployment_id)
