"""The training job through Flink's Kubernetes operator.

No Kubernetes can start here. The provider's operator and client talk to a stand-in that admits by
the operator's schema, and each FlinkDeployment that it admits is run on a real session cluster.
"""

import json
import time
import uuid
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException
from kubernetes.client import ApiException

from flead.settings import FLINK_DEPLOYMENT
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.kubernetes import (
    FlinkApplicationHook,
    FlinkAwaitJobOperator,
    FlinkDeploymentCancelOperator,
    FlinkDeploymentOperator,
    FlinkDeploymentStopOperator,
)
from flead_airflow.flink.manifests import fill_in, job_id_of
from flead_airflow.flink.operators import failure_of
from tests.integration.airflow.kubernetes_api import KubernetesApi, serve

CONNECTION = "flead_kubernetes"
NAME = "flead-training"


@pytest.fixture
def template():
    return yaml.safe_load(FLINK_DEPLOYMENT.read_text())


@pytest.fixture
def connect_to(monkeypatch):
    """Return the function that makes the Airflow connection to an API server."""

    def make(url):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "nobody", "user": {"token": "none"}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
            "current-context": "here",
        }
        connection = {"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(config)}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", json.dumps(connection))

    return make


@pytest.fixture
def api(connect_to):
    """Make a namespace in which nothing comes of what is created."""
    api = KubernetesApi(on_created=lambda _: None)
    with serve(api) as url:
        connect_to(url)
        yield api


def create(template, number, guard=nullcontext, **changes):
    manifest = fill_in(
        template, job_id=f"{number:032x}", arguments=[], parallelism=1, savepoint_path=None
    )
    manifest["spec"] |= changes
    return FlinkDeploymentOperator(
        task_id="create",
        application_file=yaml.safe_dump(manifest),
        guard=guard,
        kubernetes_conn_id=CONNECTION,
        namespace="flead",
        flink_conn_id="flead_flink",
    ).execute({})


def act(kind, number):
    """Run an operator on a job, whose cluster does not answer."""
    return kind(
        task_id="act",
        job_id=f"{number:032x}",
        deployment_name=NAME,
        namespace="flead",
        kubernetes_conn_id=CONNECTION,
        flink_conn_id="nowhere",
    ).execute({})


class TestFlinkDeployment:
    def test_is_created_once_although_the_task_runs_twice(self, api, template):
        create(template, 1)
        create(template, 1)

        assert [job_id_of(each) for each in api.created] == [f"{1:032x}"]

    def test_of_another_job_is_gone_before_the_new_one_is_created(self, api, template):
        create(template, 1)
        create(template, 2)

        assert [job_id_of(each) for each in api.created] == [f"{1:032x}", f"{2:032x}"]
        assert job_id_of(api.held[NAME]) == f"{2:032x}"

    @pytest.mark.servers
    @pytest.mark.timeout(280)
    def test_of_another_job_makes_way_only_once_that_has_ended(
        self, api, template, flink_connection, clean_flink, tiny_job
    ):
        running, following = uuid.uuid4().int, uuid.uuid4().int
        create(template, running)
        with FlinkRestHook(flink_connection) as flink:
            flink.run_python_job(f"{running:032x}", tiny_job)
            api.held[NAME]["status"] = {"jobManagerDeploymentStatus": "READY"}

            with pytest.raises(AirflowFailException, match=f"that of job {running:032x}, which is"):
                create(template, following)

            assert job_id_of(api.held[NAME]) == f"{running:032x}"
            flink.cancel(f"{running:032x}")
            while not flink.job(f"{running:032x}").state.ended:
                time.sleep(0.2)

        create(template, following)

        assert job_id_of(api.held[NAME]) == f"{following:032x}"

    def test_is_left_alone_by_a_task_of_an_attempt_that_is_over(self, api, template):
        create(template, 1)
        asked = []

        @contextmanager
        def refuse(job_id):
            asked.append(job_id)
            raise AirflowFailException("it is superseded")
            yield

        with pytest.raises(AirflowFailException, match="it is superseded"):
            create(template, 2, guard=refuse)

        assert asked == [f"{2:032x}"]
        assert job_id_of(api.held[NAME]) == f"{1:032x}"

    def test_that_the_operator_would_not_accept_is_refused_with_the_reason(self, api, template):
        with pytest.raises(ApiException, match="'v9_9' is not one of"):
            create(template, 1, flinkVersion="v9_9")

    def test_whose_cluster_has_not_come_up_is_deleted_to_end_its_job(self, api, template):
        create(template, 1)
        api.held[NAME]["status"] = {"jobManagerDeploymentStatus": "ERROR"}

        assert act(FlinkDeploymentCancelOperator, 2) is None
        assert api.held
        assert act(FlinkDeploymentCancelOperator, 1) is None
        assert not api.held
        assert act(FlinkDeploymentCancelOperator, 1) is None

    def test_that_is_gone_or_of_another_job_leaves_nothing_to_stop(self, api, template):
        nothing = {"job_id": f"{1:032x}", "savepoint_path": None}
        assert act(FlinkDeploymentStopOperator, 1) == nothing

        create(template, 2)

        assert act(FlinkDeploymentStopOperator, 1) == nothing


def test_a_cluster_that_never_answers_fails_the_task_for_good(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://127.0.0.1:9")
    pushed = {}
    ti = SimpleNamespace(
        xcom_push=lambda key, value: pushed.update({key: value}),
        xcom_pull=lambda task_ids, key: pushed.get(key),
    )
    operator = FlinkAwaitJobOperator(task_id="wait", job_id="0" * 32, flink_conn_id="nowhere")

    with pytest.raises(AirflowFailException, match="its time is over; nor could it be cancelled"):
        operator.resume({"ti": ti}, {"started": False, "detail": "its time is over"})

    assert failure_of(ti, "wait", "0" * 32).startswith(f"job {'0' * 32} has not started")
    # the next attempt of a run that was cleared fails by itself, for a reason of its own
    assert failure_of(ti, "wait", "1" * 32) is None


def test_without_a_flink_deployment_no_job_is_known_and_settings_are_the_manifests(api, template):
    with FlinkApplicationHook("nowhere", template, CONNECTION) as hook:
        assert hook.find_job("0" * 32) is None
        assert hook.configuration()["execution.checkpointing.dir"] == "s3://flead/checkpoints"


@pytest.mark.servers
@pytest.mark.lengthy
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("database_connection", "kafka_connection")
def test_deploy_training_deploys_redeploys_and_restores_on_kubernetes(
    run_dag,
    flink_connection,
    clean_flink,
    connect_to,
    database_url,
    tiny_job,
    tmp_path,
    monkeypatch,
):
    script = tmp_path / "job.py"
    script.write_text(
        "import runpy, sys\n"
        "if '\"learning_rate\":9.0' in sys.argv[-1]: raise ValueError('too fast')\n"
        f"sys.argv = ['job.py']\nrunpy.run_path({tiny_job!r}, run_name='__main__')\n"
    )
    with FlinkRestHook(flink_connection) as flink:
        template = yaml.safe_load(FLINK_DEPLOYMENT.read_text())
        template["spec"]["job"]["args"] = ["-py", str(script)]
        template["spec"]["flinkConfiguration"] |= {
            name: flink.configuration()[name]
            for name in ("execution.checkpointing.dir", "execution.checkpointing.savepoint-dir")
        }

        def run_it(deployment):
            job = deployment["spec"]["job"]
            _, path, *arguments = job["args"]
            try:
                flink.run_python_job(
                    job_id_of(deployment),
                    path,
                    arguments,
                    parallelism=job["parallelism"],
                    savepoint_path=job.get("initialSavepointPath"),
                )
                deployment["status"] = {"jobManagerDeploymentStatus": "READY"}
            except RuntimeError:
                deployment["status"] = {"jobManagerDeploymentStatus": "ERROR"}

        api = KubernetesApi(run_it)
        manifest = tmp_path / "manifest.yaml"
        manifest.write_text(yaml.safe_dump(template))
        monkeypatch.setenv("FLEAD_TRAINING_CLUSTER", "kubernetes")
        monkeypatch.setenv("FLEAD_KUBERNETES_MANIFEST", str(manifest))

        def impatient(dag):
            dag.get_task("submit").start_timeout_seconds = 3

        with serve(api) as url:
            connect_to(url)
            assert run_dag("deploy_training", parallelism=1).state == "success"
            assert run_dag("deploy_training", parallelism=2).state == "success"
            assert run_dag("deploy_training", impatient, learning_rate=9).state == "failed"

        with connect(database_url) as connection, connection.cursor() as cursor:
            restored, failed, second, first = deployments.newest_attempts(cursor)
        assert [job_id_of(each) for each in api.created] == [
            each.job_id for each in (first, second, failed, restored)
        ]
        assert second.restored_from == first.savepoint_path is not None
        assert (restored.status, failed.status) == (AttemptStatus.ACTIVE, AttemptStatus.FAILED)
        assert restored.configuration == second.configuration
        assert restored.restored_from == second.savepoint_path is not None
        assert flink.job(restored.job_id).runs_every_vertex
