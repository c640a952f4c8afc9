"""`deploy_training` over a job that runs: what is kept, and what comes back when it fails."""

import json
import subprocess
import uuid

import pytest

from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.health.readings import Part
from flead.messaging.lag import consumer_lag
from flead.settings import TRAINING_SCRIPT, Settings
from flead.storage import control, deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead_airflow import health
from flead_airflow.connections import Servers
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import JobStatus
from tests.conftest import run_flead
from tests.integration.airflow.waiting import wait_for

pytestmark = [
    pytest.mark.servers,
    pytest.mark.usefixtures("database_connection", "kafka_connection"),
    pytest.mark.timeout(600),
]

REFUSED_RATE = 9.0
DEVICES = 40
ROWS = 4_000
IMPATIENCE_SECONDS = 8.0

REFUSING = """
import json, runpy, sys
configuration = json.loads(sys.argv[sys.argv.index("--training-config") + 1])
if configuration["hyperparameters"]["learning_rate"] == {rate}:
    raise ValueError("that is too fast")
runpy.run_path({script!r}, run_name="__main__")
"""
WITHOUT_CHECKPOINTS = """
import json, runpy, sys
configuration = json.loads(sys.argv[sys.argv.index("--training-config") + 1])
is_new = configuration["hyperparameters"]["learning_rate"] == {rate}
sys.argv = [{script!r}, *(["--wait-for", {gate!r}] if is_new else [])]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture
def flink_hook(flink_connection, clean_flink):
    with FlinkRestHook(flink_connection) as hook:
        yield hook


@pytest.fixture
def told():
    """Collect what the task `tell` fails with."""
    return []


@pytest.fixture
def redeploy(run_dag, told):
    """Return the function that runs `deploy_training`, with a limit for the new job's start."""

    def run(start_seconds=None, **params):
        def prepare(dag):
            dag.get_task("tell").on_failure_callback = [
                lambda context: told.append(str(context["exception"]))
            ]
            if start_seconds:
                dag.get_task("submit").start_timeout_seconds = start_seconds

        return run_dag("deploy_training", prepare, **params)

    return run


def states(run):
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def attempts(database_url):
    with connect(database_url) as connection, connection.cursor() as cursor:
        return deployments.newest_attempts(cursor)


def steps(database_url):
    """Every row of the table, oldest first."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT kind, status FROM training_deployments ORDER BY id")
        return cursor.fetchall()


def rate_of_the_fleet(database_url):
    with connect(database_url) as connection, connection.cursor() as cursor:
        return control.newest_control(cursor).hyperparameters.learning_rate


def running(flink_hook):
    return [job.jid for job in flink_hook.jobs() if not job.state.ended]


def savepoint_of(flink_hook, job_id):
    trigger_id = uuid.uuid4().hex
    flink_hook.trigger_savepoint(job_id, trigger_id)
    wait_for(lambda: flink_hook.find_savepoint(job_id, trigger_id).operation)
    return flink_hook.find_savepoint(job_id, trigger_id).operation.location


class TestOfTheTrainingJob:
    @pytest.fixture
    def devices_in(self, checkout, stack_home):
        """Return the function that reads what a savepoint holds of each device."""
        program = checkout / "tests" / "integration" / "programs" / "devices_of_savepoint.py"

        def read(savepoint):
            command = [stack_home.python("tools"), program, savepoint, *FEATURES]
            return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

        return read

    def test_keeps_every_devices_model_and_one_that_is_refused_brings_the_job_before_it_back(
        self,
        redeploy,
        told,
        devices_in,
        flink_hook,
        database_url,
        kafka,
        stack_home,
        tmp_path,
        monkeypatch,
    ):
        script = tmp_path / "training.py"
        script.write_text(REFUSING.format(rate=REFUSED_RATE, script=str(TRAINING_SCRIPT)))
        monkeypatch.setenv("FLEAD_TRAINING_SCRIPT", str(script))
        # Windows close by their number of rows alone, so that nothing changes without rows.
        params = {"window_seconds": 86_400, "checkpoint_interval_seconds": 0.5}
        assert redeploy(parallelism=2, **params).state == "success"
        [first] = attempts(database_url)
        sent = run_flead(
            stack_home, "simulate", "--devices", str(DEVICES), "--rate", "3000/s",
            "--rows", str(ROWS), "--json",
        )  # fmt: skip
        assert json.loads(sent.stdout)["rows"] == ROWS
        group = first.configuration.consumer_group
        properties = {"bootstrap.servers": kafka}
        wait_for(lambda: not any(consumer_lag(properties, group, Topic.TELEMETRY).values()))

        assert redeploy(learning_rate=0.25, parallelism=1, **params).state == "success"

        second, first = attempts(database_url)
        before = devices_in(first.savepoint_path)
        after = devices_in(savepoint_of(flink_hook, second.job_id))
        assert len(before) == DEVICES
        assert after == before
        job = flink_hook.job(second.job_id)
        assert {vertex.parallelism for vertex in job.vertices} == {1}
        assert rate_of_the_fleet(database_url) == 0.25

        failed_run = redeploy(learning_rate=REFUSED_RATE, parallelism=2, **params)

        assert failed_run.state == "failed"
        restored, failed, second, first = attempts(database_url)
        assert (failed.status, failed.savepoint_path) == (AttemptStatus.FAILED, None)
        assert failed.reason.endswith("ValueError: that is too fast")
        assert restored.status is AttemptStatus.ACTIVE
        assert restored.deployment_id == second.deployment_id
        assert restored.configuration == second.configuration
        assert restored.restored_from == second.savepoint_path is not None
        assert running(flink_hook) == [restored.job_id]
        assert devices_in(savepoint_of(flink_hook, restored.job_id)) == before
        assert rate_of_the_fleet(database_url) == 0.25
        assert steps(database_url) == [
            ("submit", "stopped"),
            ("savepoint", "completed"),
            ("stop", "completed"),
            ("restore", "superseded"),
            ("savepoint", "completed"),
            ("stop", "completed"),
            ("restore", "failed"),
            ("restore", "active"),
        ]
        [message] = told
        assert message.startswith(
            f"{failed_run.run_id} has failed, and deployment {second.deployment_id} runs with its"
            f" parameters as before (job {restored.job_id}, parallelism 1, from "
        )
        assert message.endswith("ValueError: that is too fast")


class TestOfAJobThatDoesNotStartInTime:
    @pytest.fixture
    def first(self, redeploy, database_url, tiny_job, tmp_path, monkeypatch):
        """Deploy a job that starts, by a script whose next one waits for a file `gate`."""
        script = tmp_path / "job.py"
        values = {"rate": REFUSED_RATE, "script": tiny_job, "gate": str(tmp_path / "gate")}
        script.write_text(WITHOUT_CHECKPOINTS.format(**values))
        monkeypatch.setenv("FLEAD_TRAINING_SCRIPT", str(script))
        assert redeploy(parallelism=1).state == "success"
        [attempt] = attempts(database_url)
        return attempt

    @pytest.mark.lengthy
    def test_comes_back_from_its_savepoint(self, redeploy, told, flink_hook, database_url, first):
        run = redeploy(IMPATIENCE_SECONDS, learning_rate=REFUSED_RATE, parallelism=2)

        assert run.state == "failed"
        restored, failed, first = attempts(database_url)
        assert failed.savepoint_path is None
        assert "its time is over" in failed.reason
        assert restored.restored_from == first.savepoint_path is not None
        assert restored.configuration == first.configuration
        assert running(flink_hook) == [restored.job_id]
        assert flink_hook.job(failed.job_id).state is JobStatus.CANCELED
        assert "has not started: its time is over: " in told[0]

    def test_comes_back_from_the_checkpoint_that_the_new_one_completes_after_its_deadline(
        self, redeploy, flink_hook, database_url, first, monkeypatch, tmp_path
    ):
        cancel = FlinkRestHook.cancel
        gate = tmp_path / "gate"

        def cancel_late(hook, job_id):
            """Let the job complete its first checkpoint between its deadline and its end."""
            if not gate.exists():
                assert hook.checkpoints(job_id).counts.completed == 0
                gate.touch()
                wait_for(lambda: hook.settled_checkpoints(job_id).counts.completed)
            cancel(hook, job_id)

        monkeypatch.setattr(FlinkRestHook, "cancel", cancel_late)
        run = redeploy(IMPATIENCE_SECONDS, learning_rate=REFUSED_RATE, parallelism=2)
        monkeypatch.setattr(FlinkRestHook, "cancel", cancel)

        assert run.state == "failed"
        restored, failed, first = attempts(database_url)
        assert "its time is over: " in failed.reason
        assert f"/{failed.job_id}/chk-" in failed.savepoint_path
        assert restored.restored_from == failed.savepoint_path
        assert restored.configuration == first.configuration
        restored_from = flink_hook.checkpoints(restored.job_id).latest.restored
        assert restored_from.external_path == failed.savepoint_path
        assert running(flink_hook) == [restored.job_id]

    @pytest.mark.lengthy
    def test_that_cannot_come_back_either_says_so_and_is_left_to_the_health_gate(
        self, redeploy, told, flink_hook, database_url, kafka, first, monkeypatch
    ):
        monkeypatch.setenv("FLEAD_JOB_START_SECONDS", "0.1")

        run = redeploy(learning_rate=REFUSED_RATE, parallelism=2)

        assert run.state == "failed"
        assert states(run)["restore"] == "failed"
        restored, failed, first = attempts(database_url)
        assert [each.status for each in (restored, failed)] == [AttemptStatus.FAILED] * 2
        assert running(flink_hook) == []
        servers = Servers(database_url, {"bootstrap.servers": kafka})
        finding = health.check(servers, flink_hook, Settings(), dag_run_id="run-1", deploying=[])
        assert finding.healing == [Part.TRAINING]
        with connect(database_url) as connection, connection.cursor() as cursor:
            assert deployments.expected(cursor).job_id == first.job_id
        assert "should run and does not; monitor_training deploys it again" in told[0]
