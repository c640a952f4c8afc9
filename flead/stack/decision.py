"""The decision beside a demonstration: other hyperparameters, tried by parts of the fleet."""

from collections.abc import Mapping
from typing import Final

from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.training import Say

TUNING_DAG: Final = "hyperparameter_tuning"
VERSIONS_BEFORE: Final = 3
"""Versions after which the fleet is asked to try something."""

SETTINGS: Final[Mapping[str, str]] = {
    "FLEAD_EVALUATION_INTERVAL_SECONDS": "60",
    "FLEAD_TUNING_HORIZON_SECONDS": "60",
    "FLEAD_TUNING_TRIALS": "2",
    "FLEAD_TUNING_FRACTION": "0.2",
    "FLEAD_TUNING_MIN_DEVICES": "10",
    "FLEAD_MAX_WAIT_SECONDS": "60",
}
"""Settings with which a small fleet evaluates, tries and decides within minutes."""


class Decision:
    """Has hyperparameters tuned once there are some versions, again if that led to nothing.

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
        self._run: str | None = None

    def go_on(self, versions: int, tuning_decisions: int) -> None:
        """Trigger the DAG when it is time.

        Raises
        ------
        AirflowError
            When Airflow refused it.
        """
        if versions < VERSIONS_BEFORE or tuning_decisions:
            return
        with AirflowClient.of(self._addresses) as airflow:
            if self._run is None or airflow.has_ended(TUNING_DAG, self._run):
                self._say(f"{TUNING_DAG}: parts of the fleet try other hyperparameters")
                self._run = airflow.trigger(TUNING_DAG, {"force": True})
