"""Submit Spark jobs from a task, and follow them to their end."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import psutil
from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, Connection, Context
from airflow.sdk.exceptions import AirflowException

from flead_airflow.connections import DATABASE, SPARK, database_url, property_text

DATABASE_VARIABLE: Final = "FLEAD_DATABASE_URL"
APPLICATION: Final = re.compile(r"application (\S+) on ")
"""What `flead.analysis.progress` says first."""
SECRET: Final = re.compile(r"password|secret(?!keyref|s\.)|token$|access[.]?key", re.IGNORECASE)
"""Names of Spark's properties and of variables that hold secrets, not those that refer to one."""
OPEN_DATABASE: Final = re.compile(rf"(?<!secretKeyRef)\.{DATABASE_VARIABLE}$")
"""Names of Spark's properties that set the variable of the database's URL to what they hold."""
NOT_INHERITED: Final = ("AIRFLOW", "_AIRFLOW", "PYTHON", "VIRTUAL_ENV", "SPARK_", "PYSPARK")
"""Prefixes of variables of the task's own interpreter, and of Airflow's secrets."""
KEPT_LINES: Final = 400
SHOWN_LINES: Final = 12
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1
TRACEBACK: Final = "Traceback (most recent call last):"
SPARK_ERROR: Final = re.compile(r"Error: |Exception in thread|Caused by: |\S+ ERROR ")
LOG_LINE: Final = re.compile(r"(\d\d/\d\d/\d\d )?\d\d:\d\d:\d\d (TRACE|DEBUG|INFO|WARN|ERROR) ")
JAVA_FRAME: Final = re.compile(r"\s+(at |\.\.\. \d+ more)")


class SparkJobError(AirflowException):
    """A job failed; the message is what it failed with."""


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How jobs reach Spark: the extra of a `spark` connection, whose host is the master.

    Parameters
    ----------
    spark_submit : str
        Path or name of the program.
    environment : dict
        Variables of the program and the driver: `JAVA_HOME`, `PYSPARK_PYTHON` and the like.
    stream_environment : dict
        Variables that a job which outlives its task has besides.
    conf : dict
        Spark's properties; `spark.extraListeners` loads listeners, OpenLineage's for one.
    deploy_mode : str
        `client`: the driver runs beside the task. `cluster`: Spark places it, where the master can.
    kafka : dict
        Properties of the Kafka clients, see `flead_airflow.connections.spark_kafka`.
    history_url : str, optional
        Where the history server answers when it runs.
    """

    master: str
    spark_submit: str = "spark-submit"
    environment: dict[str, str] = {}
    stream_environment: dict[str, str] = {}
    conf: dict[str, str | int | float | bool] = {}
    deploy_mode: str = "client"
    kafka: dict[str, Any] = {}
    history_url: str | None = None

    @classmethod
    def of(cls, connection: Connection) -> "Cluster":
        """Read a connection.

        Raises
        ------
        ValueError
            It has no master, or a property that holds a secret.
        msgspec.ValidationError
            Names the key of its extra that is unknown or of the wrong type.
        """
        if not connection.host:
            raise ValueError(f"connection {connection.conn_id} needs a master as its host")
        port = f":{connection.port}" if connection.port else ""
        cluster = msgspec.convert(
            {"master": f"{connection.host}{port}"} | connection.extra_dejson, cls
        )
        where = f"connection {connection.conn_id} has %s under `conf` in its extra, where everybody"
        if secrets := sorted(name for name in cluster.conf if SECRET.search(name)):
            raise ValueError(
                f"{where % ', '.join(secrets)} who sees the processes would read it: put it into"
                " spark-defaults.conf in the `SPARK_CONF_DIR` of its `environment`"
            )
        if urls := sorted(name for name in cluster.conf if OPEN_DATABASE.search(name)):
            raise ValueError(
                f"{where % ', '.join(urls)} who sees Spark's pages would read its password: put it"
                " into a secret of Kubernetes, and name that as SECRET:KEY in"
                f" spark.kubernetes.driver.secretKeyRef.{DATABASE_VARIABLE}"
            )
        return cluster

    def command(
        self,
        script: str,
        config: str,
        *,
        name: str,
        conf: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Return the command that submits a job with the one argument that our jobs take."""
        properties = self.conf | dict(conf or {})
        settings = (f"{key}={property_text(value)}" for key, value in properties.items())
        return [
            self.spark_submit,
            "--master", self.master,
            "--deploy-mode", self.deploy_mode,
            "--name", name,
            *(part for setting in settings for part in ("--conf", setting)),
            script,
            "--config", config,
        ]  # fmt: skip

    def variables(self, database: str) -> dict[str, str]:
        """Return the environment of a job: this process's, less what is Airflow's own."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)
        }
        return inherited | self.environment | {DATABASE_VARIABLE: database}

    def history_page(self, application: str) -> str | None:
        """Return the page of an application."""
        return f"{self.history_url}/history/{application}/" if self.history_url else None


class SparkHistoryLink(BaseOperatorLink):
    """From a task to the page of its application."""

    name = "Spark history"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the page, "" when no application has started or nobody serves a history."""
        return getattr(operator, "history_page", None) or ""


class SparkJobOperator(BaseOperator):
    """Run a Spark job to its end, with its output in the log of the task; returns its application.

    Needs no Spark in Airflow's environment: `spark-submit` of the connection runs in the
    environment that the connection gives. A driver beside the task gets the database's URL as the
    variable `FLEAD_DATABASE_URL` of its process, one that Spark places elsewhere from what the
    connection's `conf` names: a secret of Kubernetes, by
    `spark.kubernetes.driver.secretKeyRef.FLEAD_DATABASE_URL`. Everything else is in the one
    argument `--config JSON`. Whatever ends the task ends the job: a task that a user ends stops it,
    and one that is killed takes it along where there is `setpriv` (of util-linux); elsewhere such a
    driver runs on to its end.

    Parameters
    ----------
    script : str
        Path of the job; for a driver that Spark places, a URI that it can read.
    config : dict or struct
        What the job takes; it may be the result of another task, and holds no secret.
    name : str, optional
        Name of the application where the job gives none; the task's by default.
    conf : dict, optional
        Properties that go before those of the connection.
    database_conn_id, spark_conn_id : str
        See `flead_airflow.connections.database_url` and `Cluster`.
    """

    template_fields: Sequence[str] = ("script", "config", "conf")
    template_fields_renderers: dict[str, str] = {"config": "json", "conf": "json"}  # noqa: RUF012
    operator_extra_links = (SparkHistoryLink(),)
    ui_color = "#fff0e0"

    def __init__(
        self,
        *,
        script: str,
        config: Any,
        name: str | None = None,
        conf: Mapping[str, Any] | None = None,
        database_conn_id: str = DATABASE,
        spark_conn_id: str = SPARK,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.script = script
        self.config = config
        self.name = name
        self.conf = conf
        self.database_conn_id = database_conn_id
        self.spark_conn_id = spark_conn_id
        self.history_page: str | None = None
        self._process: subprocess.Popen[str] | None = None
        self._ended_by_user = False

    def execute(self, context: Context) -> str | None:
        """Submit the job and follow it.

        Raises
        ------
        SparkJobError
            The job failed: the last of its Python traceback, or of what Spark said.
        """
        cluster = Cluster.of(BaseHook.get_connection(self.spark_conn_id))
        database = BaseHook.get_connection(self.database_conn_id)
        environment = cluster.variables(database_url(database))
        command = cluster.command(
            self.script,
            msgspec.json.encode(self.config).decode(),
            name=self.name or self.task_id,
            conf=self.conf,
        )
        secrets = list(_secrets(database, environment))
        self.log.info("Submitting %s to %s", self.script, cluster.master)
        began = time.monotonic()
        application, lines = None, deque[str](maxlen=KEPT_LINES)
        try:
            self._process = _start(command, environment)
            for line in _masked(self._process.stdout or (), secrets):
                lines.append(line)
                self.log.info("%s", line)
                if application is None and (found := APPLICATION.match(line)):
                    application = found[1]
                    self._show_history(cluster, application)
            status = self._process.wait()
        finally:
            self._end()
        if self._ended_by_user:
            raise SparkJobError("the job was ended with its task")
        if status:
            raise SparkJobError(failure_of(lines, status))
        self.log.info("The job has ended after %.0f s", time.monotonic() - began)
        return application

    def on_kill(self) -> None:
        """Ask the job to stop, and let it be killed when it does not.

        Airflow calls this from a signal handler, perhaps in the middle of a wait for the process:
        it must not wait itself.
        """
        self._ended_by_user = True
        if self._process is not None and self._process.returncode is None:
            group = self._process.pid
            _signal(group, signal.SIGTERM)
            killer = threading.Timer(STOP_SECONDS, _signal, (group, signal.SIGKILL))
            killer.daemon = True
            killer.start()

    def _end(self) -> None:
        """End the process group of the job, whatever is left of it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            _signal(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        _signal(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _show_history(self, cluster: Cluster, application: str) -> None:
        self.history_page = cluster.history_page(application)
        if self.history_page:
            self.log.info(
                "history: %s; start it with bin/flead up spark-history", self.history_page
            )


def failure_of(lines: Iterable[str], status: int) -> str:
    """Return what a job failed with: the end of its last traceback, or of what Spark said.

    Parameters
    ----------
    lines : iterable of str
        The last lines of its output.
    status : int
        The exit status; negative for a signal.
    """
    said = list(lines)
    if status < 0:
        return f"the job was ended by {signal.Signals(-status).name}:\n" + "\n".join(
            said[-SHOWN_LINES:]
        )
    cause = _traceback(said) or [line for line in said if SPARK_ERROR.match(line)] or said
    return f"the job ended with status {status}:\n" + "\n".join(cause[-SHOWN_LINES:])


def launch_detached(command: Sequence[str], environment: Mapping[str, str], log_file: Path) -> int:
    """Start a job that outlives its task, and return the id of its process group.

    SIGTERM to the group reaches a driver that handles it, and does nothing to Spark's JVM, which
    would otherwise end under the driver's feet.

    Parameters
    ----------
    command : sequence of str
        See `Cluster.command`.
    environment : mapping
        All variables: `Cluster.variables` and the connection's `stream_environment`.
    log_file : Path
        What the job says is added to it.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            # A signal that the shell ignores stays ignored in the program that it becomes.
            ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Not Airflow's folder, by which a supervisor could take it for a part of Airflow.
            cwd=log_file.parent,
            start_new_session=True,
        )
    return process.pid


def is_running(group: int, variables: Mapping[str, str]) -> bool:
    """Tell whether a detached job runs.

    Parameters
    ----------
    group : int
        What `launch_detached` returned, perhaps before this machine was started anew.
    variables : mapping
        Some that it was started with, so that no other process is taken for it.
    """
    try:
        process = psutil.Process(group)
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().items() >= variables.items()
    except psutil.Error:
        return False


def stop_detached(
    group: int, variables: Mapping[str, str], timeout_seconds: float = STOP_SECONDS
) -> bool:
    """Ask a detached job to stop, and kill what does not; nothing happens when it does not run.

    Returns
    -------
    bool
        Whether it did not have to be killed.
    """
    if not is_running(group, variables):
        return True
    _signal(group, signal.SIGTERM)
    stopped = _ends(group, variables, timeout_seconds)
    _signal(group, signal.SIGKILL)
    _ends(group, variables, timeout_seconds)
    return stopped


def _ends(group: int, variables: Mapping[str, str], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while is_running(group, variables):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _start(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    return subprocess.Popen(
        [*guard, *command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _secrets(database: Connection, environment: Mapping[str, str]) -> Iterator[str]:
    password = database.password or ""
    given = {"password": password, "password as in a URL": quote(password, safe="")}
    for name, value in (given | database.extra_dejson | dict(environment)).items():
        if value and SECRET.search(name):
            yield str(value)


def _masked(lines: Iterable[str], secrets: Iterable[str]) -> Iterator[str]:
    longest_first = sorted(secrets, key=len, reverse=True)
    for line in lines:
        shown = line.rstrip("\n")
        for secret in longest_first:
            shown = shown.replace(secret, "***")
        yield shown


def _traceback(lines: Sequence[str]) -> list[str]:
    """Return the last traceback, without the frames of Java.

    The driver's own comes last of all, and ends with that of the worker if one raised.
    """
    starts = [number for number, line in enumerate(lines) if line.endswith(TRACEBACK)]
    if not starts:
        return []
    found: list[str] = []
    for line in lines[starts[-1] :]:
        if LOG_LINE.match(line):
            break
        if not JAVA_FRAME.match(line) and line.strip():
            found.append(line)
    return found
