"""Jobs in application clusters that Apache Flink's Kubernetes operator makes of FlinkDeployments.

The FlinkDeployment is created by the provider's `FlinkKubernetesOperator`; everything else goes
over the REST API of the cluster, as on a session cluster.
"""

import time
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Final

import httpx
import yaml
from airflow.providers.apache.flink.operators.flink_kubernetes import FlinkKubernetesOperator
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException

from flead_airflow.flink.errors import FlinkJobNotFoundError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.manifests import Manifest, job_id_of
from flead_airflow.flink.operators import (
    FlinkCancelOperator,
    FlinkJobOperator,
    FlinkStopWithSavepointOperator,
    Guard,
    StartingJobMixin,
)

RESOURCE: Final = {"group": "flink.apache.org", "version": "v1beta1", "plural": "flinkdeployments"}
DELETION_SECONDS: Final = 180.0
POLL_SECONDS: Final = 1.0


class FlinkDeployments:
    """The FlinkDeployments of one namespace.

    Parameters
    ----------
    kubernetes_conn_id : str
        Connection of type `kubernetes`.
    namespace : str, optional
        The connection's is the default.
    """

    def __init__(self, kubernetes_conn_id: str, namespace: str | None) -> None:
        self._hook = KubernetesHook(conn_id=kubernetes_conn_id)
        self._namespace = namespace

    def find(self, name: str) -> Manifest | None:
        """Return a FlinkDeployment, None when there is none of the name."""
        try:
            found: Manifest = self._hook.get_custom_object(
                **RESOURCE, name=name, namespace=self._namespace
            )
        except ApiException as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            return None
        return found

    def delete(self, name: str) -> None:
        """Delete a FlinkDeployment, and wait until it and its cluster are gone.

        Savepoints and retained checkpoints stay.

        Raises
        ------
        AirflowException
            When it is not gone in time.
        """
        try:
            self._hook.delete_custom_object(**RESOURCE, name=name, namespace=self._namespace)
        except ApiException as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
        deadline = time.monotonic() + DELETION_SECONDS
        while self.find(name) is not None:
            if time.monotonic() > deadline:
                raise AirflowException(
                    f"FlinkDeployment {name} was deleted and is still there after"
                    f" {DELETION_SECONDS:.0f} s: does Flink's Kubernetes operator run?"
                )
            time.sleep(POLL_SECONDS)


class FlinkDeploymentOperator(FlinkKubernetesOperator):
    """Create the FlinkDeployment of a job, in place of one of another job.

    The FlinkDeployment that is there is deleted first; the task fails when its job has not ended.
    Run again, it finds the one that it has created.

    Parameters
    ----------
    application_file : str
        The manifest as YAML, made by `flead_airflow.flink.manifests.fill_in`.
    guard : callable, optional
        Called with the job id; returns a context manager that is entered before the FlinkDeployment
        is looked for and left once it was created: to hold a lock, or to refuse by raising.
    flink_conn_id
        See `FlinkRestHook`; it is asked whether the job that is there has ended.
    namespace, kubernetes_conn_id
        See `FlinkKubernetesOperator`.
    """

    def __init__(
        self,
        *,
        guard: Guard = nullcontext,
        flink_conn_id: str = FlinkRestHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.guard = guard
        self.flink_conn_id = flink_conn_id

    def execute(self, context: Context) -> Any:
        """Create it."""
        manifest: Manifest = yaml.safe_load(self.application_file)
        name, job_id = manifest["metadata"]["name"], str(job_id_of(manifest))
        deployments = FlinkDeployments(self.kubernetes_conn_id, self.namespace)
        with self.guard(job_id):
            there = deployments.find(name)
            if there is not None:
                if job_id_of(there) == job_id:
                    self.log.info("FlinkDeployment %s is there already", name)
                    return there
                self._refuse_if_it_runs(there)
                self.log.info("FlinkDeployment %s of job %s makes way", name, job_id_of(there))
                deployments.delete(name)
            return super().execute(context)

    def _refuse_if_it_runs(self, there: Manifest) -> None:
        job_id = job_id_of(there)
        if job_id is None or not is_ready(there):
            return
        with FlinkRestHook(self.flink_conn_id) as hook:
            job = hook.find_job(job_id)
        if job and not job.state.ended:
            raise AirflowFailException(
                f"FlinkDeployment {there['metadata']['name']} is that of job {job_id}, which is"
                f" {job.state}: stop it first"
            )


def is_ready(deployment: Manifest) -> bool:
    """Tell whether the JobManager of a FlinkDeployment has come up, so that it can be asked."""
    status: Manifest = deployment.get("status", {})
    return status.get("jobManagerDeploymentStatus") == "READY"


class FlinkAwaitJobOperator(StartingJobMixin, FlinkJobOperator):
    """Wait, deferred, until a job that something else has submitted has started; returns its id.

    A cluster that does not answer and a job that is not known yet are waited for. A job that does
    not start in time is cancelled, and so is one whose task a user ends.

    Parameters
    ----------
    job_id : str
        32 hex digits.
    start_timeout_seconds : float
        How long it may take until every vertex runs and a checkpoint has completed.
    poll_seconds, flink_conn_id
        See `FlinkJobOperator`.
    """

    def __init__(self, *, start_timeout_seconds: float = 300.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_timeout_seconds = start_timeout_seconds

    def execute(self, context: Context) -> None:
        """Defer until the job has started."""
        self.await_start(None, absent_is_final=False)

    def resume(self, context: Context, event: dict[str, Any]) -> str:
        """Return the id of the started job, or cancel it and wait for its end."""
        try:
            return super().resume(context, event)
        except httpx.TransportError as error:
            # a cluster that never came up: another try would only wait as long again
            reason = f"{event['detail']}; nor could it be cancelled: {error}"
            raise self.failure(context, f"job {self.job_id} has not started: {reason}") from error


class OfFlinkDeploymentOperator(FlinkJobOperator):
    """What operators on the job of a FlinkDeployment have in common.

    Parameters
    ----------
    deployment_name : str
        Name of the FlinkDeployment.
    namespace, kubernetes_conn_id
        See `FlinkKubernetesOperator`.
    """

    def __init__(
        self,
        *,
        deployment_name: str,
        namespace: str | None = None,
        kubernetes_conn_id: str = "kubernetes_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deployment_name = deployment_name
        self.namespace = namespace
        self.kubernetes_conn_id = kubernetes_conn_id

    @cached_property
    def deployments(self) -> FlinkDeployments:
        """Where the FlinkDeployment is looked for."""
        return FlinkDeployments(self.kubernetes_conn_id, self.namespace)

    def find_deployment(self) -> Manifest | None:
        """Return the FlinkDeployment if it is that of the job."""
        there = self.deployments.find(self.deployment_name) if self.job_id else None
        if there is None or job_id_of(there) != self.job_id:
            self.log.info("No FlinkDeployment %s of job %s", self.deployment_name, self.job_id)
            return None
        return there


class FlinkDeploymentStopOperator(OfFlinkDeploymentOperator, FlinkStopWithSavepointOperator):
    """Stop the job of a FlinkDeployment with a savepoint; without one there is nothing to stop."""

    def execute(self, context: Context) -> dict[str, str | None]:
        """Stop it."""
        if self.find_deployment() is None:
            return self.result(None)
        return super().execute(context)


class FlinkDeploymentCancelOperator(OfFlinkDeploymentOperator, FlinkCancelOperator):
    """Cancel the job of a FlinkDeployment; delete one whose cluster has not come up."""

    def execute(self, context: Context) -> Any:
        """Cancel or delete."""
        there = self.find_deployment()
        if there is None:
            return None
        if is_ready(there):
            return super().execute(context)
        self.log.warning("The JobManager of %s is not ready: deleting it", self.deployment_name)
        self.deployments.delete(self.deployment_name)
        return None


class FlinkApplicationHook(FlinkRestHook):
    """REST API of the application cluster of a FlinkDeployment.

    While there is no FlinkDeployment no job is known; otherwise a cluster that does not answer is
    an error, as for every cluster.

    Parameters
    ----------
    flink_conn_id : str
        See `FlinkRestHook`; its host is `<name of the FlinkDeployment>-rest`.
    template : dict
        The manifest, whose `flinkConfiguration` is that of the cluster.
    kubernetes_conn_id : str
        Connection of type `kubernetes`.
    """

    def __init__(self, flink_conn_id: str, template: Manifest, kubernetes_conn_id: str) -> None:
        super().__init__(flink_conn_id)
        self.template = template
        self.kubernetes_conn_id = kubernetes_conn_id

    @cached_property
    def deployments(self) -> FlinkDeployments:
        """Where the FlinkDeployment is looked for."""
        namespace = self.template["metadata"].get("namespace")
        return FlinkDeployments(self.kubernetes_conn_id, namespace)

    def configuration(self) -> dict[str, str]:
        """Read the settings from the manifest: there may be no cluster to ask."""
        settings = self.template["spec"].get("flinkConfiguration") or {}
        return {name: str(value) for name, value in settings.items()}

    def _request(self, method: str, path: str, **arguments: Any) -> bytes:
        if self.deployments.find(self.template["metadata"]["name"]) is None:
            raise FlinkJobNotFoundError(
                f"{method} {path}: there is no FlinkDeployment"
                f" {self.template['metadata']['name']}, and so no job",
                httpx.codes.NOT_FOUND,
            )
        return super()._request(method, path, **arguments)
