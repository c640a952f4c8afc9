"""Wait, without a worker, until a round of aggregation is due."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from flead.settings import Settings
from flead_airflow.connections import servers

logger = logging.getLogger(__name__)


def is_due() -> bool:
    """Whether a round should start now, by what is stored and what can be read; blocks."""
    from flead.rounds.readiness import round_is_due  # noqa: PLC0415 - heavy, and a DAG imports us

    found = servers()
    return round_is_due(
        found.database_url, found.kafka, Settings.from_environment(), datetime.now(UTC)
    )


class AggregationReadyTrigger(BaseTrigger):
    """Fire once: when a round is due, or when the deadline has passed.

    It compares what is stored with what can be read each time, so that no wake-up can be missed.
    A server that does not answer is asked again until the deadline; any other error, such as a
    topic that was rewound, fails the task at once.

    Parameters
    ----------
    deadline : float
        Seconds since the epoch; absolute, so that a restarted triggerer does not extend it.
    poll_seconds : float
        Between two looks.
    """

    def __init__(self, *, deadline: float, poll_seconds: float = 1.0) -> None:
        super().__init__()
        self.deadline = deadline
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments of this trigger."""
        return (
            "flead_airflow.rounds.AggregationReadyTrigger",
            {"deadline": self.deadline, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: whether a round is due."""
        while not (due := await asyncio.to_thread(self._look)) and time.time() < self.deadline:
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"due": due})

    def _look(self) -> bool:
        import psycopg2  # noqa: PLC0415 - heavy, and a DAG imports us
        from confluent_kafka import KafkaException  # noqa: PLC0415

        try:
            return is_due()
        except (psycopg2.OperationalError, KafkaException, TimeoutError):
            if time.time() >= self.deadline:
                raise
            logger.warning("Cannot tell whether a round is due; asking again", exc_info=True)
            return False


class WaitForUpdatesOperator(BaseOperator):
    """Succeed when a round is due; skip what follows when none is for `max_wait_seconds`.

    See `flead.rounds.readiness.round_is_due`. Database and topics are prepared first, so that
    the wait can begin before anything was deployed.
    """

    ui_color = "#e8f7e4"
    template_fields: Sequence[str] = ()

    def __init__(self, *, poll_seconds: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.poll_seconds = poll_seconds

    def execute(self, context: Context) -> None:
        """Return at once when a round is due, else defer."""
        from flead.messaging.topics import create_topics  # noqa: PLC0415 - heavy, as above
        from flead.storage.migrations import migrate  # noqa: PLC0415

        found = servers()
        migrate(found.database_url)
        create_topics(found.kafka)
        if is_due():
            return
        wait_seconds = Settings.from_environment().max_wait_seconds
        self.defer(
            trigger=AggregationReadyTrigger(
                deadline=time.time() + wait_seconds, poll_seconds=self.poll_seconds
            ),
            method_name=self.resume.__name__,
            # a triggerer that is down must not keep the task for ever
            timeout=timedelta(seconds=2 * wait_seconds + 60),
        )

    def resume(self, context: Context, event: dict[str, Any]) -> None:
        """Succeed or skip.

        Raises
        ------
        AirflowSkipException
            When no round was due in time.
        """
        if not event["due"]:
            raise AirflowSkipException("no round was due in time: see the Triage of this DAG")
