"""The decision beside a demonstration: other hyperparameters, tried by parts of the fleet."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from flead.settings import PREFIX, Settings
from flead.stack.addresses import Addresses
from flead.stack.airflow_rest import AirflowClient
from flead.stack.training import Say
from flead.storage import decisions
from flead.storage.connection import connect
from flead.storage.decisions import DecisionStatus, TuningDecision

if TYPE_CHECKING:
    from flead.stack.demonstration import Progress

TUNING_DAG: Final = "hyperparameter_tuning"
VERSIONS_BEFORE: Final = 3
"""Versions after which the fleet is asked to try something."""

LEAST_PERIOD_SECONDS: Final = 60.0
"""A shorter trial would be over before its windows have closed."""

OVERHEAD_SECONDS: Final = 300.0
"""Deployment, versions before, and the steps of a decision, on two cores."""


def period_seconds(devices: int, rows_per_minute: float) -> float:
    """Return how long a device of a fleet takes to send twice the rows that it counts from.

    Of a period that is judged, its last window may come too late.
    """
    rows = 2 * Settings.from_environment().tuning_min_rows
    return max(LEAST_PERIOD_SECONDS, math.ceil(60.0 * rows * devices / rows_per_minute))


def decision_settings(devices: int, rows_per_minute: float) -> dict[str, str]:
    """Return settings with which a fleet evaluates, tries and decides within minutes, by variable.

    Parameters
    ----------
    devices, rows_per_minute
        The fleet, with what it sends altogether.
    """
    return {
        "FLEAD_EVALUATION_INTERVAL_SECONDS": "60",
        "FLEAD_TUNING_HORIZON_SECONDS": f"{period_seconds(devices, rows_per_minute):g}",
        "FLEAD_TUNING_TRIALS": "2",
        "FLEAD_TUNING_FRACTION": "0.2",
        # Half of what a cohort has on average, for a hash is no exact fraction.
        "FLEAD_TUNING_MIN_DEVICES": str(min(10, max(2, devices // 10))),
        "FLEAD_TUNING_APPROVAL_SECONDS": "60",
        "FLEAD_MAX_WAIT_SECONDS": "60",
    }


def unreached(wanted: Mapping[str, str], running: Mapping[str, str]) -> str | None:
    """Say what a stack that runs already has set otherwise, and what to do; None when nothing is.

    Parameters
    ----------
    wanted
        Variables of the settings that a decision is wanted with.
    running
        Variables that the services of the stack were started with.
    """
    settings = Settings.from_environment(running)
    names = {variable: variable.removeprefix(PREFIX).lower() for variable in wanted}
    others = [
        f"{variable} is {getattr(settings, name):g}, not {wanted[variable]}"
        for variable, name in names.items()
        if getattr(settings, name) != float(wanted[variable])
    ]
    if not others:
        return None
    seconds = (
        OVERHEAD_SECONDS
        + settings.evaluation_interval_seconds
        + settings.tuning_horizon_seconds
        + settings.tuning_approval_seconds
        + 2 * settings.max_wait_seconds
    )
    return (
        "warning: the stack runs already, and its services keep what they were started with: "
        f"{', '.join(others)}. Stop it first (`flead down`), or wait longer: a decision may take "
        f"--timeout {seconds:.0f}"
    )


class Decision:
    """Has hyperparameters tuned once there is something to compare with, again if that led nowhere.

    Parameters
    ----------
    addresses
        The stack.
    say
        Receives lines of progress.
    since
        When the demonstration began, by the database's time.
    seconds_before
        How long updates come before devices are asked to try something.
    """

    def __init__(
        self, addresses: Addresses, say: Say, since: datetime, seconds_before: float
    ) -> None:
        self._addresses = addresses
        self._say = say
        self._since = since
        self._seconds_before = seconds_before
        self._run: str | None = None
        self._said: tuple[int, DecisionStatus] | None = None

    def go_on(self, progress: "Progress") -> None:
        """Trigger the DAG when it is time, and say how far the decision has come.

        Raises
        ------
        AirflowError
            When Airflow refused it.
        """
        if self._run is not None:
            self._tell()
        if progress.decisions_on_trials or not self._has_period_before(progress):
            return
        with AirflowClient.of(self._addresses) as airflow:
            if self._run is None or airflow.has_ended(TUNING_DAG, self._run):
                self._say(f"{TUNING_DAG}: parts of the fleet try other hyperparameters")
                self._run = airflow.trigger(TUNING_DAG, {"force": True})

    def _has_period_before(self, progress: "Progress") -> bool:
        first = progress.seconds_to_first_version
        return (
            first is not None
            and len(progress.versions) >= VERSIONS_BEFORE
            and progress.seconds - first >= self._seconds_before
        )

    def _tell(self) -> None:
        with connect(self._addresses.database_url) as connection, connection.cursor() as cursor:
            decision = decisions.newest_since(cursor, self._since)
        if decision is None or self._said == (decision.revision, decision.status):
            return
        self._said = decision.revision, decision.status
        self._say(f"decision {decision.revision}: {describe(decision)}")


def describe(decision: TuningDecision) -> str:
    """Return how far a decision has come, in a line."""
    tried = len(decision.trials)
    if decision.status in {DecisionStatus.PROPOSED, DecisionStatus.TRYING}:
        return f"{decision.status}, {tried} trials of {decision.horizon_seconds:g} s"
    if decision.status is DecisionStatus.AWAITING_APPROVAL:
        return f"{decision.status}, answer in Airflow's Required Actions: {decision.reason}"
    return f"{decision.status}: {decision.reason}"
