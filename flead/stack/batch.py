"""A UTC day that somebody asks for, analysed by Airflow on the running stack."""

import time
from datetime import date

import msgspec

from flead.stack.addresses import Addresses
from flead.stack.airflow import PROCESSES
from flead.stack.airflow_rest import AirflowClient
from flead.stack.home import Home
from flead.stack.lifecycle import running_services
from flead.stack.service import StackError
from flead.stack.training import Say
from flead.storage import analysis_days, batch_results
from flead.storage.analysis_days import AnalysedDay, DayState
from flead.storage.connection import connect

BATCH_DAG = "daily_batch_analysis"
BATCH_SECONDS = 6 * 3600.0
"""As long as Airflow lets a run take."""
NEEDED = ("postgres", *PROCESSES)


class AnalysisReport(msgspec.Struct, frozen=True):
    """What the analysis of a day has come to, all of it as the database says.

    `rows` and `devices` are those of the day, `batch_rows` its results in `batch_analysis_results`:
    one a device. `seconds` is how long it took, the wait for other runs included.
    """

    analysis_date: date = msgspec.field(name="date")
    state: DayState
    dag_run_id: str
    rows: int
    devices: int
    batch_rows: int
    model_version: int | None
    reference_model_version: int | None
    needs_rerun: bool
    seconds: float


def analyse_day(home: Home, day: date, say: Say) -> AnalysisReport:
    """Have a day analysed, and wait until it is; a day without rows is analysed, too.

    Raises
    ------
    AirflowError
        The run failed: the message names it, its page, and the end of the failed task's log.
    StackError
        The stack does not run, or another analysis of the day has begun meanwhile.
    httpx.HTTPError, psycopg2.Error
        A server does not answer.
    """
    running = running_services(home)
    if missing := [name for name in NEEDED if name not in running]:
        raise StackError(f"{', '.join(missing)} of the stack do not run: start it with `flead up`")
    addresses = Addresses.of(home)
    began = time.monotonic()
    with AirflowClient.of(addresses) as airflow:
        run_id = airflow.trigger(BATCH_DAG, {"date": day.isoformat()})
        say(f"{BATCH_DAG}: {day}, run {run_id}")
        airflow.wait(BATCH_DAG, run_id, BATCH_SECONDS, on_progress=say)
    analysed, results = _stored(addresses, day)
    return AnalysisReport(
        analysis_date=day,
        state=analysed.state,
        dag_run_id=run_id,
        rows=analysed.rows or 0,
        devices=analysed.devices or 0,
        batch_rows=results,
        model_version=analysed.model_version,
        reference_model_version=analysed.reference_model_version,
        needs_rerun=analysed.needs_rerun,
        seconds=round(time.monotonic() - began, 1),
    )


def _stored(addresses: Addresses, day: date) -> tuple[AnalysedDay, int]:
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        analysed = analysis_days.get(cursor, day)
        results = batch_results.count(cursor, day)
    if analysed is None or analysed.state is DayState.RUNNING:
        raise StackError(f"another analysis of {day} has begun meanwhile: wait for its end")
    return analysed, results
