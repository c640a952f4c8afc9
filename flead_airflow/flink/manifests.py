"""FlinkDeployments of Apache Flink's Kubernetes operator, filled in for one job."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

JOB_ID: Final = "$internal.pipeline.job-id"
"""Setting by which the job has an id that the caller knows; the operator leaves it as it is."""
KEEP_JOB_MANAGER: Final = "execution.shutdown-on-application-finish"

Manifest = dict[str, Any]


def fill_in(
    template: Mapping[str, Any],
    *,
    job_id: str,
    arguments: Sequence[str],
    parallelism: int,
    savepoint_path: str | None,
) -> Manifest:
    """Return the manifest of one job; everything else is the template's.

    Parameters
    ----------
    template : mapping
        A FlinkDeployment whose `spec.job.args` end with the script.
    job_id : str
        32 hex digits, never used before.
    arguments : sequence of str
        Arguments of the script.
    savepoint_path : str, optional
        Savepoint or checkpoint that the job starts from; None starts from nothing.

    Raises
    ------
    ValueError
        When the template is no FlinkDeployment with a job.
    """
    try:
        is_one = template["kind"] == "FlinkDeployment" and template["metadata"]["name"]
        job = dict(template["spec"]["job"])
        configuration = dict(template["spec"].get("flinkConfiguration") or {})
    except (KeyError, TypeError) as error:
        raise ValueError(f"the manifest is no FlinkDeployment with a job: {error!r}") from error
    if not is_one:
        raise ValueError(f"the manifest is of kind {template['kind']}, not FlinkDeployment")
    manifest: Manifest = copy.deepcopy(dict(template))
    job |= {
        "args": [*job.get("args", ()), *arguments],
        "parallelism": parallelism,
        "state": "running",
    }
    if savepoint_path:
        job["initialSavepointPath"] = savepoint_path
    # A JobManager that is gone could not say what state its job has left.
    configuration |= {JOB_ID: job_id, KEEP_JOB_MANAGER: "false"}
    manifest["spec"] |= {"job": job, "flinkConfiguration": configuration}
    return manifest


def job_id_of(deployment: Mapping[str, Any]) -> str | None:
    """Id of the job that a FlinkDeployment was made for, None when it is not by `fill_in`."""
    configuration = deployment["spec"].get("flinkConfiguration") or {}
    found = configuration.get(JOB_ID)
    return None if found is None else str(found)
