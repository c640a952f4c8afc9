"""What the CLI asks of Flink's JobManager, over its REST API.

See https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/rest_api/.
"""

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from flead.stack.service import StackError

SUBMIT_SECONDS: Final = 120


class FlinkError(StackError):
    """Flink could not do what was asked."""


class FlinkClient:
    """What the embedded stack, its benchmarks and its tests need; the Airflow hook is the full one.

    A job that the operators of `flead_airflow` submit is theirs: they write it down first.
    """

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

    def running_jobs(self) -> list[str]:
        """Return the ids of the jobs that have not ended."""
        jobs = self._get("/jobs")["jobs"]
        ended = {"FINISHED", "CANCELED", "FAILED", "SUSPENDED"}
        return [job["id"] for job in jobs if job["status"] not in ended]

    def upload(self, jar: Path) -> str:
        """Upload a jar and return the id that `run_python` takes.

        Raises
        ------
        FlinkError
            When the JobManager refused it.
        """
        with jar.open("rb") as content:
            response = self._http.post("/jars/upload", files={"jarfile": (jar.name, content)})
        if response.is_error:
            raise FlinkError(f"{jar.name} cannot be uploaded: {response.text}")
        return str(response.json()["filename"]).rsplit("/", 1)[-1]

    def run_python(
        self,
        jar_id: str,
        script: Path,
        arguments: Sequence[str] = (),
        *,
        parallelism: int,
        savepoint: str | None = None,
    ) -> str:
        """Run a Python program as a job, from a savepoint if one is given, and return its id.

        Raises
        ------
        FlinkError
            When the program failed before it had submitted its job; the JobManager's log says why.
        """
        job_id = uuid.uuid4().hex
        response = self._http.post(
            f"/jars/{jar_id}/run",
            json={
                "entryClass": "org.apache.flink.client.python.PythonDriver",
                "parallelism": parallelism,
                "jobId": job_id,
                "savepointPath": savepoint,
                "programArgsList": ["-py", str(script), *arguments],
            },
            timeout=SUBMIT_SECONDS,
        )
        if response.is_error:
            raise FlinkError(f"{script.name} cannot be run: {response.text}")
        return job_id

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job; one that has ended stays as it is."""
        response = self._http.patch(f"/jobs/{job_id}", params={"mode": "cancel"})
        if response.status_code != httpx.codes.CONFLICT:
            response.raise_for_status()

    def failures(self, job_id: str) -> list[dict[str, Any]]:
        """Return the failures of a job, newest first, each with its `stacktrace`."""
        return list(self._get(f"/jobs/{job_id}/exceptions")["exceptionHistory"]["entries"])

    def restarts(self, job_id: str) -> int | None:
        """Return how often a job was restarted; None until its metrics have come."""
        metrics = self._get(f"/jobs/{job_id}/metrics?get=numRestarts")
        return int(metrics[0]["value"]) if metrics else None

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """Return the last checkpoints of a job, newest first."""
        return list(self._get(f"/jobs/{job_id}/checkpoints")["history"])

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
