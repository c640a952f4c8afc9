"""The operator against a real Spark, and what is left when a task is killed."""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from airflow.sdk import Connection

from flead.stack.ports import Ports
from flead.stack.spark import (
    event_logs,
    prepare_spark,
    spark_configuration,
    spark_environment,
    spark_submit,
)
from flead_airflow.spark import (
    Cluster,
    SparkHistoryLink,
    SparkJobError,
    SparkJobOperator,
    failure_of,
    is_running,
    launch_detached,
    stop_detached,
)

SCRIPT = str(Path(__file__).with_name("tiny_analysis.py"))
PASSWORD = "p@ss w/rd"

needs_spark = pytest.mark.servers


@pytest.fixture(scope="module")
def connection(stack_home):
    """Return the id of an Airflow connection to Spark on this machine."""
    prepare_spark(stack_home)
    spark = {
        "conn_type": "spark",
        "host": "local[2]",
        "extra": {
            "spark_submit": str(spark_submit(stack_home)),
            "environment": spark_environment(stack_home),
            "conf": spark_configuration(stack_home),
            "history_url": f"http://127.0.0.1:{Ports.of(stack_home).spark_history}",
        },
    }
    database = {
        "conn_type": "postgres",
        "host": "db",
        "schema": "flead",
        "login": "flead",
        "password": PASSWORD,
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_FLEAD_SPARK", json.dumps(spark))
        environment.setenv("AIRFLOW_CONN_FLEAD_DB", json.dumps(database))
        environment.setenv("AIRFLOW__CORE__FERNET_KEY", "an Airflow secret")
        yield "flead_spark"


@pytest.fixture
def said(caplog, monkeypatch):
    """Return the function that returns the lines of the task's log."""
    caplog.set_level(logging.INFO)
    # Airflow's own loggers of these tests let warnings pass only.
    monkeypatch.setattr(SparkJobOperator, "log", logging.getLogger("task"))
    return lambda: [record.getMessage() for record in caplog.records]


def job(**config):
    return SparkJobOperator(task_id="analyse", script=SCRIPT, config=config)


def execute(operator):
    return operator.execute({})


def analyses():
    """Return the living processes of the job: JVM, driver, Python workers."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TINY") == "1":
                found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, analyses()
        time.sleep(0.1)


def has_busy_workers():
    return sum("pyspark.daemon" in command for command in analyses().values()) >= 2


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setenv("TINY", "1")


@needs_spark
class TestJob:
    def test_shows_its_output_its_progress_and_where_its_history_is(
        self, connection, said, stack_home
    ):
        # Its stage lasts for many looks.
        operator = job(show_database=True, show_command=True, wait=3)

        application = execute(operator)

        lines = said()
        assert "total 499500" in lines
        assert (event_logs(stack_home) / f"eventlog_v2_{application}").is_dir()
        assert any(line.startswith("stage ") and " tasks" in line for line in lines)
        page = f"/history/{application}/"
        assert any(line.startswith("history: http://") and page in line for line in lines)
        assert SparkHistoryLink().get_link(operator, ti_key=None).endswith(page)
        # The URL reaches the driver, and neither the log nor the command line shows its password.
        assert "database postgresql://flead:***@db/flead" in lines
        [command] = [line for line in lines if "org.apache.spark.deploy.SparkSubmit" in line]
        assert "FLEAD_DATABASE_URL" not in command

    def test_that_raises_in_its_driver_fails_with_that(self, connection):
        with pytest.raises(SparkJobError) as failure:
            execute(job(fail="driver"))

        assert str(failure.value).endswith("\nValueError: no such model: 7")
        assert "tiny_analysis.py" in str(failure.value)

    def test_that_raises_in_a_worker_fails_with_that(self, connection):
        with pytest.raises(SparkJobError) as failure:
            execute(job(fail="worker"))

        assert str(failure.value).endswith("\nValueError: no such feature: voltage")
        assert "\tat " not in str(failure.value)

    def test_whose_script_is_not_there_names_it(self, connection):
        lost = SparkJobOperator(task_id="analyse", script="/nowhere/job.py", config={})

        with pytest.raises(SparkJobError, match=r"/nowhere/job\.py"):
            execute(lost)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_whose_task_is_ended_leaves_no_process(self, connection, marked, number):
        task = multiprocessing.get_context("fork").Process(target=_run_as_airflow_does)
        task.start()
        wait_until(has_busy_workers)

        os.kill(task.pid, number)

        task.join(30)
        assert task.exitcode == (1 if number is signal.SIGTERM else -number)
        wait_until(lambda: not analyses())


def _run_as_airflow_does():
    operator = job(wait=300)
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    execute(operator)


class TestDetachedJob:
    VARIABLES = {"FLEAD_SERVICE": "spark-stream-of-a-test"}  # noqa: RUF012

    def test_outlives_its_task_and_stops_when_its_driver_is_asked(self, tmp_path):
        driver = (
            "import signal, sys, time\n"
            "def stop(*_): print('stopped'); sys.exit()\n"
            "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(60)\n"
        )
        # As with Spark, whose JVM waits for its driver and would end before it.
        parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
        log = tmp_path / "logs" / "stream.log"
        command = [sys.executable, "-c", parent, driver]
        launch = (
            "import json, os, pathlib, sys; from flead_airflow.spark import launch_detached;"
            "command, variables, log = json.loads(sys.argv[1]);"
            "print(launch_detached(command, os.environ | variables, pathlib.Path(log)))"
        )
        given = json.dumps([command, self.VARIABLES, str(log)])

        launched = subprocess.run(
            [sys.executable, "-c", launch, given], check=True, capture_output=True, text=True
        )

        group = int(launched.stdout)
        wait_until(lambda: log.read_text() == "ready\n")
        assert is_running(group, self.VARIABLES)
        assert stop_detached(group, self.VARIABLES)
        assert log.read_text() == "ready\nstopped\n"
        assert not is_running(group, self.VARIABLES)

    def test_that_does_not_stop_is_killed(self, tmp_path):
        log = tmp_path / "log"
        deaf = "import time; print('ready', flush=True); time.sleep(60)"
        command = [sys.executable, "-c", deaf]
        group = launch_detached(command, os.environ | self.VARIABLES, log)
        wait_until(lambda: log.read_text() == "ready\n")

        assert not stop_detached(group, self.VARIABLES, timeout_seconds=0.5)

        assert not is_running(group, self.VARIABLES)

    def test_is_not_confused_with_another_process(self):
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:  # noqa: S607
            assert not is_running(other.pid, self.VARIABLES)
            assert stop_detached(other.pid, self.VARIABLES)
            assert other.poll() is None
            other.kill()


class TestCluster:
    @staticmethod
    def connection(**extra):
        return Connection(
            conn_id="flead_test", conn_type="spark", host="spark://s", port=7077,
            extra=json.dumps(extra),
        )  # fmt: skip

    def test_gives_the_command_that_submits(self):
        cluster = Cluster.of(
            self.connection(spark_submit="/opt/spark-submit", conf={"spark.ui.enabled": False})
        )

        assert cluster.command("job.py", '{"day":1}', name="batch", conf={"a": 2}) == [
            "/opt/spark-submit", "--master", "spark://s:7077", "--deploy-mode", "client",
            "--name", "batch", "--conf", "spark.ui.enabled=false", "--conf", "a=2",
            "job.py", "--config", '{"day":1}',
        ]  # fmt: skip

    def test_keeps_airflows_own_variables_from_the_job(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
        monkeypatch.setenv("GLOBAL_MODELS_DIR", "/models")
        cluster = Cluster.of(self.connection(environment={"JAVA_HOME": "/java"}))

        variables = cluster.variables("postgresql://db/flead")

        expected = {
            "JAVA_HOME": "/java",
            "GLOBAL_MODELS_DIR": "/models",
            "FLEAD_DATABASE_URL": "postgresql://db/flead",
        }
        assert variables.items() >= expected.items()
        assert not [name for name in variables if name.startswith("AIRFLOW")]

    @pytest.mark.parametrize(
        "name", ["spark.hadoop.fs.s3a.secret.key", "spark.ssl.keyPassword", "spark.my.access.key"]
    )
    def test_refuses_a_secret_on_the_command_line_by_name_and_does_not_show_it(self, name):
        with pytest.raises(ValueError, match=f"flead_test has {name}") as refusal:
            Cluster.of(self.connection(conf={name: "hunter2"}))

        assert "hunter2" not in str(refusal.value)

    @pytest.mark.parametrize("prefix", ["kubernetes.driverEnv", "executorEnv", "yarn.appMasterEnv"])
    def test_refuses_the_url_of_the_database_as_a_property(self, prefix):
        name = f"spark.{prefix}.FLEAD_DATABASE_URL"

        with pytest.raises(ValueError, match=f"flead_test has {name}") as refusal:
            Cluster.of(self.connection(conf={name: "postgresql://flead:hunter2@db/flead"}))

        assert "spark.kubernetes.driver.secretKeyRef.FLEAD_DATABASE_URL" in str(refusal.value)
        assert "hunter2" not in str(refusal.value)

    def test_takes_what_only_refers_to_a_secret(self):
        reference = "spark.kubernetes.driver.secretKeyRef.FLEAD_DATABASE_URL"

        cluster = Cluster.of(self.connection(conf={reference: "flead:database-url"}))

        assert cluster.conf == {reference: "flead:database-url"}

    def test_refuses_a_key_that_it_does_not_know(self):
        with pytest.raises(ValueError, match="deploy-mode"):
            Cluster.of(self.connection(**{"deploy-mode": "cluster"}))


class TestFailure:
    def test_is_the_last_traceback_without_the_frames_of_java(self):
        lines = [
            "Traceback (most recent call last):",
            "ValueError: handled",
            "12:00:00 WARN Executor: slow",
            "Traceback (most recent call last):",
            '  File "job.py", line 3, in <module>',
            "py4j.protocol.Py4JJavaError: An error occurred while calling o41.load.",
            ": java.io.IOException: no such archive",
            "\tat org.apache.spark.Reader.read(Reader.scala:1)",
            "Caused by: java.nio.file.NoSuchFileException: /archive/day=2026-01-01",
            "\t... 12 more",
            "12:00:01 WARN SparkContext: stopping",
        ]

        assert failure_of(lines, 1) == "\n".join(
            [
                "the job ended with status 1:",
                "Traceback (most recent call last):",
                '  File "job.py", line 3, in <module>',
                "py4j.protocol.Py4JJavaError: An error occurred while calling o41.load.",
                ": java.io.IOException: no such archive",
                "Caused by: java.nio.file.NoSuchFileException: /archive/day=2026-01-01",
            ]
        )

    def test_without_a_traceback_is_what_spark_calls_an_error(self):
        lines = ["12:00:00 WARN Utils: x", "12:00:01 ERROR SparkContext: no master", "bye"]

        assert failure_of(lines, 1) == (
            "the job ended with status 1:\n12:00:01 ERROR SparkContext: no master"
        )

    def test_by_a_signal_names_it_and_shows_the_end_of_the_output(self):
        assert failure_of(["stage 1: 3/4 tasks"], -9) == (
            "the job was ended by SIGKILL:\nstage 1: 3/4 tasks"
        )
