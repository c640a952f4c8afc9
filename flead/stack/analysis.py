"""The analysis beside a demonstration: windows on the stream, and the day so far in one batch."""

from datetime import UTC, datetime

from flead.stack import streams
from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.batch import BATCH_DAG, BATCH_SECONDS
from flead.stack.training import Say

TRIGGER_SECONDS = 10
"""Between two batches of the stream: somebody watches."""


class Analysis:
    """What a demonstration starts besides training; evaluations come by themselves.

    Parameters
    ----------
    addresses
        The stack.
    say
        Receives lines of progress.
    """

    def __init__(self, addresses: Addresses, say: Say) -> None:
        self._addresses = addresses
        self._say = say
        self._batch_run: str | None = None
        self._is_over = False

    def begin(self) -> None:
        """Deploy the stream analysis.

        Raises
        ------
        AirflowError
            When the deployment failed.
        """
        streams.deploy(self._addresses, {"trigger_seconds": TRIGGER_SECONDS}, self._say)

    def go_on(self, stream_windows: int) -> None:
        """Have today analysed once the stream has archived rows.

        Raises
        ------
        AirflowError
            When the analysis failed.
        """
        if self._is_over or not stream_windows:
            return
        with AirflowClient.of(self._addresses) as airflow:
            if self._batch_run is None:
                today = datetime.now(UTC).date().isoformat()
                self._say(f"{BATCH_DAG}: {today}, so far")
                self._batch_run = airflow.trigger(BATCH_DAG, {"date": today})
            elif airflow.has_ended(BATCH_DAG, self._batch_run):
                self._is_over = True
                airflow.wait(BATCH_DAG, self._batch_run, BATCH_SECONDS)
