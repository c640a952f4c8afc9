"""What the CLI asks of Flink's JobManager, over its REST API.

See https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/rest_api/.
"""

import time
from typing import Any

import httpx

from flead.stack.service import StackError


class FlinkError(StackError):
    """Flink could not do what was asked."""


class FlinkClient:
    """The few calls that the embedded stack needs; the Airflow hook is the full client."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(
            base_url=url,
            timeout=30,
            transport=httpx.HTTPTransport(retries=3, trust_env=False),
            # A proxy of the environment has no business between two processes of one machine.
            trust_env=False,
        )

    def _get(self, path: str) -> Any:
        response = self._http.get(path)
        response.raise_for_status()
        return response.json()

    def job_state(self, job_id: str) -> str | None:
        """Return the state of a job, None when the cluster does not know it."""
        # /jobs/:id comes from a cache: for seconds after its end a job still runs there.
        response = self._http.get(f"/jobs/{job_id}/status")
        # Unlike /jobs/:id it does not answer 404 for an unknown job, but 500 with this exception.
        if response.is_server_error and "FlinkJobNotFoundException" in response.text:
            return None
        response.raise_for_status()
        return str(response.json()["status"])

    def completed_checkpoints(self, job_id: str) -> int:
        """Return how many checkpoints a job has completed since it was submitted."""
        return int(self._get(f"/jobs/{job_id}/checkpoints")["counts"]["completed"])

    def stop_with_savepoint(self, job_id: str, timeout_seconds: float = 120) -> str:
        """Stop a job and return the path of its savepoint.

        Raises
        ------
        FlinkError
            When the savepoint failed (the job runs on) or was not complete in time.
        """
        response = self._http.post(
            f"/jobs/{job_id}/stop", json={"drain": False, "formatType": "CANONICAL"}
        )
        if response.is_error:
            raise FlinkError(f"job {job_id} cannot be stopped: {response.text}")
        trigger = response.json()["request-id"]
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            status = self._get(f"/jobs/{job_id}/savepoints/{trigger}")
            if status["status"]["id"] == "COMPLETED":
                operation = status["operation"]
                if "location" not in operation:
                    cause = operation["failure-cause"]["stack-trace"].splitlines()[0]
                    raise FlinkError(f"the savepoint of job {job_id} failed: {cause}")
                return str(operation["location"])
            time.sleep(0.2)
        raise FlinkError(f"the savepoint of job {job_id} took over {timeout_seconds:g} s")
