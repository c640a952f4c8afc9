"""What a decision about hyperparameters waits for, without a worker: time, and a person."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator, Context
from airflow.triggers.base import BaseTrigger, TriggerEvent

from flead.settings import Settings
from flead_airflow.connections import servers

logger = logging.getLogger(__name__)

ANSWER_KEY: Final = "answer"
"""XCom of an approval: `approved`, and `answered_by`, which is "timeout" when nobody did."""


def is_due(revision: int) -> bool:
    """Whether the next step of a decision can be taken; blocks."""
    from flead.tuning.changing import is_due as look  # noqa: PLC0415 - heavy, and a DAG imports us

    return look(servers().database_url, Settings.from_environment(), revision, datetime.now(UTC))


class TuningDueTrigger(BaseTrigger):
    """Fire once: when the trial of a decision, or the watch of what it adopted, is over.

    It looks at what is stored each time, so that a restarted triggerer loses nothing. A database
    that does not answer is asked again; the task's own timeout ends the wait.

    Parameters
    ----------
    revision : int
        Of the decision.
    poll_seconds : float
        Between two looks.
    """

    def __init__(self, *, revision: int, poll_seconds: float = 5.0) -> None:
        super().__init__()
        self.revision = revision
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments of this trigger."""
        return (
            "flead_airflow.tuning.TuningDueTrigger",
            {"revision": self.revision, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the revision."""
        while not await asyncio.to_thread(self._look):
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"revision": self.revision})

    def _look(self) -> bool:
        import psycopg2  # noqa: PLC0415 - heavy, and a DAG imports us

        try:
            return is_due(self.revision)
        except psycopg2.OperationalError:
            logger.warning("Cannot tell whether the trial is over; asking again", exc_info=True)
            return False


class WaitForOutcomeOperator(BaseOperator):
    """Succeed when the next step of a decision can be taken; at once when it waits for nothing.

    Parameters
    ----------
    revision : int
        Of the decision; may be the result of another task.
    poll_seconds : float
        Between two looks.
    """

    ui_color = "#f3e8fa"
    template_fields: Sequence[str] = ("revision",)

    def __init__(self, *, revision: Any, poll_seconds: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.revision = revision
        self.poll_seconds = poll_seconds

    def execute(self, context: Context) -> None:
        """Return at once when the step is due, else defer."""
        if is_due(self.revision):
            return
        settings = Settings.from_environment()
        seconds = settings.tuning_horizon_seconds + settings.max_wait_seconds
        self.defer(
            trigger=TuningDueTrigger(revision=self.revision, poll_seconds=self.poll_seconds),
            method_name=self.resume.__name__,
            # a triggerer that is down must not keep the task for ever
            timeout=timedelta(seconds=2 * seconds + 60),
        )

    def resume(self, context: Context, event: dict[str, Any]) -> None:
        """Succeed: the step is due."""


class RecordedApprovalOperator(ApprovalOperator):
    """Ask for an approval, and leave the answer to the tasks that follow, whichever it is.

    A rejection skips what comes next by an exception, with which the result would be lost.
    """

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Push the answer, then go on as an approval does."""
        if "error" not in event:
            user = event["responded_by_user"]
            answer = {
                "approved": event["chosen_options"] == [self.APPROVE],
                "answered_by": "timeout" if user is None else user["name"],
            }
            context["ti"].xcom_push(ANSWER_KEY, answer)
        return super().execute_complete(context, event)
