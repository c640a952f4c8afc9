"""Flink's REST API as an Airflow hook."""

import ssl
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import msgspec
import tenacity
from airflow.sdk import BaseHook, Connection

from flead_airflow.flink.durations import seconds_of
from flead_airflow.flink.errors import (
    FlinkBusyError,
    FlinkDuplicateJobError,
    FlinkJobNotFoundError,
    FlinkRestError,
    FlinkStateError,
    FlinkSubmissionError,
    FlinkUnreachableError,
)
from flead_airflow.flink.responses import (
    BackPressure,
    Checkpoints,
    ClusterOverview,
    ConfigEntry,
    Jars,
    JarUpload,
    Job,
    JobExceptions,
    JobsOverview,
    JobSummary,
    Metric,
    RefusedRequest,
    SavepointStatus,
    ThreadDump,
    Triggered,
)

PYTHON_DRIVER: Final = "org.apache.flink.client.python.PythonDriver"
DUPLICATE_MARKS: Final = (
    "DuplicateJobSubmissionException",
    "DuplicateApplicationSubmissionException",
)
RUNNER_THREAD: Final = "flink-jar-runner"
"""Beginning of the name of a JobManager's thread that runs a script."""
BUSY_SECONDS: Final = 420.0
"""How long a submission waits for the end of another one."""
CANCEL_SECONDS: Final = 45.0
"""How long a job that is to be cancelled may take to appear.

In `on_kill` there is less time when a person ends a task or a worker shuts down: Airflow 3.3 kills
the process five seconds after it was told to end.
"""
BUSY_POLL_SECONDS: Final = 1.0
LOG_TAIL_LINES: Final = 5_000
REQUEST_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
SUBMISSION_TIMEOUT: Final = httpx.Timeout(180.0, connect=10.0)
"""A submission is answered when the script has ended, seconds later."""
CACHE_TIMEOUTS: Final = ("rest.cache.checkpoint-statistics.timeout", "web.refresh-interval")
"""Settings of Flink, the first that is set: how old its answers about checkpoints may be."""
DEFAULT_CACHE_TIMEOUT: Final = "3 s"
SPARE_CACHE_SECONDS: Final = 0.5
FLINK_ERROR: Final = "org.apache.flink."
"""Beginning of what Flink answers when it does not know a job or a savepoint."""
DELETION_SECONDS: Final = 120.0
DELETION_POLL_SECONDS: Final = 0.2
STATE_IS_GONE: Final = "FileNotFoundException: Cannot find "
"""What Flink says of a savepoint or checkpoint that it was to delete."""
METRICS_FETCH_SECONDS: Final = 1.0
"""How long the TaskManagers may take to answer the JobManager."""
JAVA_FRAMES: Final = ("\tat ", "\t...")

Answer = TypeVar("Answer")


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, httpx.TransportError | FlinkUnreachableError) or (
        isinstance(error, FlinkRestError) and error.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    )


_retried = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_transient),
    wait=tenacity.wait_exponential_jitter(multiplier=0.25, max=5),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)


class FlinkRestHook(BaseHook):
    """Talk to the JobManager of a session cluster.

    Every call is retried on connection errors, 5xx answers and a 404 that is not Flink's. Repeating
    a stop is safe, because the caller chooses the request id; a submission is repeated once no
    script runs any more.

    Parameters
    ----------
    flink_conn_id : str
        Connection of type `http`: `schema` is `http` or `https`, `login` and `password` are sent as
        basic auth. Extra: `python_jar` (path of `flink-python-*.jar`), and for TLS `verify` (false
        to accept any certificate), `ca_file`, `cert_file` and `key_file`.
    python_jar : str, optional
        Path of `flink-python-*.jar`; the connection's extra is the default.
    """

    conn_name_attr = "flink_conn_id"
    default_conn_name = "flink_default"
    conn_type = "http"
    hook_name = "Flink REST"

    def __init__(
        self, flink_conn_id: str = default_conn_name, *, python_jar: str | None = None
    ) -> None:
        super().__init__()
        self.flink_conn_id = flink_conn_id
        self._python_jar = python_jar

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self.get_connection(self.flink_conn_id)

    @cached_property
    def client(self) -> httpx.Client:
        """HTTP client with address, authentication and TLS of the connection."""
        connection, extra = self.connection, self.connection.extra_dejson
        host = connection.host or "127.0.0.1"
        base = host if "://" in host else f"{connection.schema or 'http'}://{host}"
        url = httpx.URL(base)
        if connection.port:
            url = url.copy_with(port=connection.port)
        auth = (connection.login, connection.password or "") if connection.login else None
        verify = tls_context(extra) if url.scheme == "https" else False
        return httpx.Client(base_url=url, auth=auth, verify=verify)

    def get_conn(self) -> httpx.Client:
        """Return the HTTP client."""
        return self.client

    @_retried
    def _request(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> bytes:
        return self._send(method, path, json=json, params=params, files=files)

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        timeout: httpx.Timeout = REQUEST_TIMEOUT,
    ) -> bytes:
        response = self.client.request(
            method, path, json=json, params=params, files=files, timeout=timeout
        )
        if response.is_success:
            return response.content
        status, reason = response.status_code, _reason(response.content)
        message = f"{method} {response.url}: HTTP {status}: {reason}"
        if status == httpx.codes.NOT_FOUND and path.startswith("/jobs/"):
            # a proxy that has no Flink behind it must not make a running job a lost one
            if reason.startswith(FLINK_ERROR):
                raise FlinkJobNotFoundError(message, status)
            raise FlinkUnreachableError(message, status)
        raise FlinkRestError(message, status)

    def _get(self, path: str, answer: type[Answer]) -> Answer:
        return msgspec.json.decode(self._request("GET", path), type=answer)

    def overview(self) -> ClusterOverview:
        """Count the cluster's TaskManagers, slots and jobs."""
        return self._get("/overview", ClusterOverview)

    def jobs(self) -> list[JobSummary]:
        """List the jobs that the JobManager knows, ended ones included."""
        return self._get("/jobs/overview", JobsOverview).jobs

    def job(self, job_id: str) -> Job:
        """State of a job and of its vertices.

        Raises
        ------
        FlinkJobNotFoundError
            When the JobManager does not know it.
        """
        return self._get(f"/jobs/{job_id}", Job)

    def find_job(self, job_id: str) -> Job | None:
        """Like `job`, but None for a job that the JobManager does not know."""
        try:
            return self.job(job_id)
        except FlinkJobNotFoundError:
            return None

    def checkpoints(self, job_id: str) -> Checkpoints:
        """Count the checkpoints of a job; name the newest, the savepoint and what was restored."""
        return self._get(f"/jobs/{job_id}/checkpoints", Checkpoints)

    def settled_checkpoints(self, job_id: str) -> Checkpoints:
        """Like `checkpoints`, but as of this call or later: Flink answers from a cache.

        What is to continue from the last checkpoint of a job must not miss it.

        Raises
        ------
        FlinkStateError
            When the cluster's setting of how long it answers from there is not understood.
        """
        self.checkpoints(job_id)
        configuration = self.configuration()
        timeouts = (configuration[name] for name in CACHE_TIMEOUTS if name in configuration)
        time.sleep(seconds_of(next(timeouts, DEFAULT_CACHE_TIMEOUT)) + SPARE_CACHE_SECONDS)
        return self.checkpoints(job_id)

    def exceptions(self, job_id: str) -> JobExceptions:
        """Failures of a job, newest first."""
        return self._get(f"/jobs/{job_id}/exceptions", JobExceptions)

    def metrics(self, job_id: str, names: Sequence[str]) -> dict[str, float]:
        """Read metrics of a job, such as `numRestarts`; one that Flink does not have is left out.

        Some seconds after a job's start Flink has none yet.
        """
        answer = self._request("GET", f"/jobs/{job_id}/metrics", params={"get": ",".join(names)})
        return {
            each.id: float(each.value) for each in msgspec.json.decode(answer, type=list[Metric])
        }

    def back_pressure(self, job: Job) -> float | None:
        """Return the largest share of its time, 0 to 1, that a subtask waits for those behind it.

        Flink answers from what it has fetched before, and fetches anew when it is asked: so it is
        asked twice. None where it has fetched nothing, because no task runs.
        """
        self._back_pressure_ratios(job)
        time.sleep(METRICS_FETCH_SECONDS)
        return max(self._back_pressure_ratios(job), default=None)

    def _back_pressure_ratios(self, job: Job) -> list[float]:
        answers = [
            self._get(f"/jobs/{job.jid}/vertices/{vertex.id}/backpressure", BackPressure)
            for vertex in job.vertices
        ]
        return [subtask.ratio for answer in answers for subtask in answer.subtasks or ()]

    def configuration(self) -> dict[str, str]:
        """Read the settings of the JobManager, such as `execution.checkpointing.dir`."""
        entries = self._get("/jobmanager/config", list[ConfigEntry])
        return {entry.key: entry.value for entry in entries}

    def upload_python_jar(self) -> str:
        """Upload `flink-python-*.jar`, unless the JobManager holds it, and return its id.

        Raises
        ------
        ValueError
            When neither the hook nor the connection says where the jar is.
        """
        path = self._python_jar or self.connection.extra_dejson.get("python_jar")
        if not path:
            raise ValueError(
                f"connection {self.flink_conn_id} has no `python_jar` in its extra:"
                " the path of flink-python-*.jar, which is in opt/ of Flink"
            )
        jar = Path(path)
        held = [file for file in self._get("/jars", Jars).files if file.name == jar.name]
        if held:
            return max(held, key=lambda file: file.uploaded).id
        content = self._request(
            "POST",
            "/jars/upload",
            files={"jarfile": (jar.name, jar.read_bytes(), "application/x-java-archive")},
        )
        return PurePosixPath(msgspec.json.decode(content, type=JarUpload).filename).name

    def run_python_job(
        self,
        job_id: str,
        script: str,
        arguments: Sequence[str] = (),
        *,
        parallelism: int = 1,
        savepoint_path: str | None = None,
        allow_non_restored_state: bool = False,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        """Run a PyFlink script, which submits one job under the id `job_id` (32 hex digits).

        `script` is a path on the JobManager's machine. Flink accepts an id once, also after the job
        has ended; after a JobManager restarted without HA it accepts it again.

        A JobManager can run one script at a time. Another one may be this very job's, posted by a
        task that was killed or by a request whose answer came too late: so this waits for its end.

        Raises
        ------
        FlinkDuplicateJobError
            When the id was used before.
        FlinkSubmissionError
            When the script failed or what it submitted was refused, with its Python traceback.
        FlinkBusyError
            When another script still runs after seven minutes.
        """
        body = {
            "entryClass": PYTHON_DRIVER,
            "jobId": job_id,
            "parallelism": parallelism,
            "programArgsList": ["-py", script, *arguments],
            "savepointPath": savepoint_path,
            "allowNonRestoredState": allow_non_restored_state,
            "flinkConfiguration": dict(configuration or {}),
        }
        jar = self.upload_python_jar()
        try:
            self._run_when_free(jar, job_id, body)
        except FlinkRestError as error:
            if error.status_code != httpx.codes.BAD_REQUEST or isinstance(
                error, FlinkDuplicateJobError
            ):
                raise
            output = self._python_output_or_why_not()
            duplicate = any(mark in f"{error}{output}" for mark in DUPLICATE_MARKS)
            kind = FlinkDuplicateJobError if duplicate else FlinkSubmissionError
            raise kind(f"{error}\n{output}", error.status_code) from None

    def _run_when_free(self, jar: str, job_id: str, body: Mapping[str, object]) -> None:
        """Post a script once no other runs; one whose answer is lost is given time to make its job.

        Two at once would take each other's settings away: the first would make a job under an id of
        Flink's own, which nobody knows.
        """
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            self._wait_until_free(job_id, deadline)
            try:
                self._send("POST", f"/jars/{jar}/run", json=body, timeout=SUBMISSION_TIMEOUT)
            except (httpx.TransportError, FlinkRestError) as error:
                if not _is_transient(error) or time.monotonic() > deadline:
                    raise
                self.log.warning(
                    "The answer to the submission of job %s is lost: %s", job_id, error
                )
                time.sleep(BUSY_POLL_SECONDS)
            else:
                return

    def _wait_until_free(self, job_id: str, deadline: float) -> None:
        while self.runs_script():
            if time.monotonic() > deadline:
                raise FlinkBusyError(
                    "the JobManager still runs the script of another submission, so that job"
                    f" {job_id} was not posted; restart the JobManager if that script hangs",
                    httpx.codes.CONFLICT,
                )
            self.log.info("The JobManager runs a script; waiting for its end")
            time.sleep(BUSY_POLL_SECONDS)
        if self.find_job(job_id):
            raise FlinkDuplicateJobError(
                f"job {job_id} was submitted before", httpx.codes.BAD_REQUEST
            )

    def runs_script(self) -> bool:
        """Tell whether the JobManager runs a script, which may yet submit its job."""
        threads = self._get("/jobmanager/thread-dump", ThreadDump).thread_infos
        return any(thread.name.startswith(RUNNER_THREAD) for thread in threads)

    def _python_output_or_why_not(self) -> str:
        """Read what a script wrote that has failed; that it cannot be read must not hide why."""
        try:
            return self.python_output()
        except (httpx.TransportError, FlinkRestError) as error:
            return f"(what the script wrote could not be read from the JobManager's log: {error})"

    @_retried
    def python_output(self) -> str:
        """Read what the newest script wrote, without frames of Java.

        It comes from the JobManager's log, because Flink leaves it out of its answers.
        """
        with self.client.stream("GET", "/jobmanager/log") as response:
            if not response.is_success:
                status = response.status_code
                raise FlinkRestError(f"GET {response.url}: HTTP {status}", status)
            lines = deque(response.iter_lines(), maxlen=LOG_TAIL_LINES)
        return script_output(lines)

    def cancel(self, job_id: str) -> None:
        """Cancel a job without a savepoint; its retained checkpoints stay.

        A job that has ended or that the JobManager does not know is left as it is. While a script
        runs, which may yet submit the job, it is waited for.
        """
        deadline = time.monotonic() + CANCEL_SECONDS
        while not self.find_job(job_id) and self.runs_script() and time.monotonic() < deadline:
            time.sleep(BUSY_POLL_SECONDS)
        try:
            self._request("PATCH", f"/jobs/{job_id}", params={"mode": "cancel"})
        except FlinkJobNotFoundError:
            self.log.info("Flink does not know job %s: nothing to cancel", job_id)
        except FlinkRestError as error:
            if error.status_code != httpx.codes.CONFLICT:
                raise
            self.log.info("Job %s has ended: nothing to cancel", job_id)

    def stop_with_savepoint(self, job_id: str, request_id: str) -> None:
        """Ask for a savepoint and a stop, which `find_savepoint` follows by `request_id`.

        `request_id` is 32 hex digits that the caller chooses. Repeating the request starts no
        second savepoint. Without `execution.checkpointing.savepoint-dir` Flink refuses it.
        """
        body = {"drain": False, "formatType": "CANONICAL", "triggerId": request_id}
        self._request("POST", f"/jobs/{job_id}/stop", json=body)

    def trigger_savepoint(self, job_id: str, request_id: str) -> None:
        """Ask for a savepoint of a job that goes on, as `stop_with_savepoint` does.

        Raises
        ------
        FlinkJobNotFoundError
            When the JobManager does not know the job.
        """
        body = {"cancel-job": False, "formatType": "CANONICAL", "triggerId": request_id}
        self._request("POST", f"/jobs/{job_id}/savepoints", json=body)

    def find_savepoint(self, job_id: str, request_id: str) -> SavepointStatus | None:
        """State of a savepoint that was asked for; None when Flink does not know it (any more)."""
        try:
            return self._get(f"/jobs/{job_id}/savepoints/{request_id}", SavepointStatus)
        except FlinkJobNotFoundError:
            return None

    def delete_state(self, path: str) -> bool:
        """Delete a savepoint or retained checkpoint and wait for it; False for one that is gone.

        Parameters
        ----------
        path : str
            URI of its folder, which the JobManager can write to.

        Raises
        ------
        FlinkStateError
            When it could not be deleted, or not in two minutes.
        """
        content = self._request("POST", "/savepoint-disposal", json={"savepoint-path": path})
        request_id = msgspec.json.decode(content, type=Triggered).request_id
        deadline = time.monotonic() + DELETION_SECONDS
        while True:
            status = self._get(f"/savepoint-disposal/{request_id}", SavepointStatus)
            if status.operation:
                break
            if time.monotonic() > deadline:
                raise FlinkStateError(f"Flink still deletes {path}")
            time.sleep(DELETION_POLL_SECONDS)
        cause = status.operation.failure_cause
        if cause and STATE_IS_GONE not in cause.stack_trace:
            raise FlinkStateError(_gist(cause.stack_trace.splitlines()))
        return cause is None


def tls_context(extra: Mapping[str, Any]) -> ssl.SSLContext:
    """TLS settings of a connection's extra; with `verify` false any certificate is accepted."""
    context = ssl.create_default_context(cafile=extra.get("ca_file"))
    if extra.get("verify") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if extra.get("cert_file"):
        context.load_cert_chain(extra["cert_file"], extra.get("key_file"))
    return context


def script_output(log: Iterable[str]) -> str:
    """Lines that the newest script wrote, out of a JobManager's log and without frames of Java."""
    output: list[str] = []
    running = False
    for line in log:
        if "Python Process Started" in line:
            output, running = [], True
        elif "Python Process Exited" in line:
            running = False
        elif running and "PythonDriver" in line:
            text = line.partition("] - ")[2]
            if not text.startswith(JAVA_FRAMES):
                output.append(text)
    return "\n".join(output).strip()


def _reason(content: bytes) -> str:
    """First line of each error of an answer, and the root cause."""
    try:
        errors = msgspec.json.decode(content, type=RefusedRequest).errors
    except msgspec.DecodeError:
        return content.decode(errors="replace")[:500]
    lines = [line for error in errors for line in error.splitlines()]
    return _gist(lines)


def _gist(lines: Sequence[str]) -> str:
    """First line of a stack trace, and the root cause."""
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return "; ".join([*lines[:1], *causes[-1:]])
