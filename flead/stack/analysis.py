"""The analysis beside a demonstration: windows on the stream, and the day so far in one batch."""

from datetime import UTC, datetime

from flead.stack import streams
from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.batch import BATCH_DAG
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
        self._runs: dict[str, str] = {}
        """By DAG, those whose end is awaited."""
        self._has_day = False

    @property
    def is_over(self) -> bool:
        """Whether all that was to be started has ended."""
        return self._has_day and not self._runs

    def begin(self) -> None:
        """Start the deployment of the stream analysis; the training is watched meanwhile.

        Raises
        ------
        AirflowError
            When Airflow refuses it.
        """
        with AirflowClient.of(self._addresses) as airflow:
            self._start(airflow, streams.DEPLOY_DAG, {"trigger_seconds": TRIGGER_SECONDS})

    def go_on(self, stream_windows: int) -> None:
        """Have today analysed once the stream has archived rows.

        Raises
        ------
        AirflowError
            When a run that was started has failed.
        """
        is_due = stream_windows > 0 and not self._has_day
        if not is_due and not self._runs:
            return
        with AirflowClient.of(self._addresses) as airflow:
            for dag, run in list(self._runs.items()):
                if airflow.has_ended(dag, run):
                    del self._runs[dag]
                    airflow.wait(dag, run, 0)
                    self._say(f"{dag}: done")
            if is_due:
                self._has_day = True
                self._start(airflow, BATCH_DAG, {"date": datetime.now(UTC).date().isoformat()})

    def _start(self, airflow: AirflowClient, dag: str, params: dict[str, object]) -> None:
        self._say(f"{dag}: {', '.join(f'{name} {value}' for name, value in params.items())}")
        self._runs[dag] = airflow.trigger(dag, params)
