"""What the CLI asks of Airflow, over its public REST API.

See https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import tenacity

from flead.stack.addresses import Addresses
from flead.stack.service import StackError

FINISHED = frozenset({"success", "failed"})
STARTED = frozenset({"running", "deferred", "success", "failed"})


class AirflowError(StackError):
    """Airflow refused a request, or a run did not end as it should."""


class AirflowConflictError(AirflowError):
    """What was to be made is there already."""


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
    )


_retry = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_transient),
    wait=tenacity.wait_exponential(multiplier=0.2, max=5),
    # Longer than one request may take, so that one that has timed out is repeated.
    stop=tenacity.stop_after_delay(90),
    reraise=True,
)


class AirflowClient:
    """A session with one API server.

    Parameters
    ----------
    url
        Root of the API server, such as ``http://127.0.0.1:8080``.
    username, password
        An account that may trigger runs.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self._account = {"username": username, "password": password}
        self._url = url
        # A proxy of the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    @classmethod
    def of(cls, addresses: Addresses) -> Self:
        """Return a session with the API server of an embedded stack."""
        return cls(addresses.airflow_url, addresses.airflow_user, addresses.airflow_password)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    @_retry
    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        response = self._http.request(method, path, **arguments)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            token = self._http.post("/auth/token", json=self._account)
            token.raise_for_status()
            self._http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            response = self._http.request(method, path, **arguments)
        if response.is_client_error:
            conflict = response.status_code == httpx.codes.CONFLICT
            kind = AirflowConflictError if conflict else AirflowError
            raise kind(f"{method} {path}: HTTP {response.status_code}: {response.text}")
        response.raise_for_status()
        return response.json()

    def wait_for_dag(self, dag_id: str, timeout_seconds: float = 120) -> dict[str, Any]:
        """Wait until Airflow has parsed a DAG; return what it says of it.

        Raises
        ------
        AirflowError
            When it has not within `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return dict(self._request("GET", f"/api/v2/dags/{dag_id}"))
            except AirflowError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run with Params and return its id.

        The id is chosen here, so that a request whose answer came too late and that is repeated
        starts no second run.

        Raises
        ------
        AirflowError
            When the DAG is paused: its run would wait for ever.
        """
        if self.wait_for_dag(dag_id)["is_paused"]:
            raise AirflowError(f"{dag_id} is paused: let it run again on {self._url}/dags/{dag_id}")
        run_id = f"manual__{datetime.now(UTC).isoformat()}"
        runs = f"/api/v2/dags/{dag_id}/dagRuns"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        try:
            self._request("POST", runs, json=body)
        except AirflowConflictError:
            self._request("GET", f"{runs}/{run_id}")
        return run_id

    def page(self, dag_id: str, run_id: str) -> str:
        """Return the address of the page about a run."""
        return f"{self._url}/dags/{dag_id}/runs/{quote(run_id, safe='')}"

    def has_ended(self, dag_id: str, run_id: str) -> bool:
        """Tell whether a run has succeeded or failed."""
        run = self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        return run["state"] in FINISHED

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout_seconds: float,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Wait until a run has succeeded; `on_progress` hears of each task that starts, by name.

        Raises
        ------
        AirflowError
            When the run failed, with the end of the failed task's log, or did not end in time; it
            names the page about the run.
        """
        deadline = time.monotonic() + timeout_seconds
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        seen: set[str] = set()
        while True:
            state = self._request("GET", path)["state"]
            for task in self._request("GET", f"{path}/taskInstances")["task_instances"]:
                if task["state"] in STARTED and task["task_id"] not in seen:
                    seen.add(task["task_id"])
                    on_progress(f"{dag_id}: {task['task_id']}")
            if state in FINISHED:
                break
            if time.monotonic() > deadline:
                late = f"{dag_id} run {run_id} is {state} after {timeout_seconds:g} s"
                raise AirflowError(f"{late}; see {self.page(dag_id, run_id)}")
            time.sleep(0.5)
        if state != "success":
            failed = f"{dag_id} run {run_id} {state}; see {self.page(dag_id, run_id)}"
            raise AirflowError(f"{failed}{self._failures(path)}")

    def _failures(self, path: str) -> str:
        tasks = self._request("GET", f"{path}/taskInstances")["task_instances"]
        return "".join(
            f"\ntask {task['task_id']}:\n{self._log_end(path, task)}"
            for task in tasks
            if task["state"] == "failed"
        )

    def _log_end(self, path: str, task: dict[str, Any]) -> str:
        log = self._request(
            "GET",
            f"{path}/taskInstances/{task['task_id']}/logs/{task['try_number']}",
            headers={"Accept": "application/json"},
        )
        lines = [_log_line(entry) for entry in log["content"]]
        return "\n".join(lines[-15:])


def _log_line(entry: dict[str, Any] | str) -> str:
    if isinstance(entry, str):
        return entry
    errors = "".join(
        f" {detail.get('exc_type')}: {detail.get('exc_value')}"
        for detail in entry.get("error_detail") or []
    )
    return f"{entry.get('event', '')}{errors}"
