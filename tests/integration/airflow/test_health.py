"""The health gate against a real cluster, broker and database."""

import json
import time
import uuid
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.sdk import BaseNotifier
from airflow.utils import db
from airflow.utils.session import create_session
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import select

from flead.contracts.analysis import StreamAnalysis
from flead.contracts.deployment import TrainingDeployment
from flead.contracts.topics import Topic
from flead.health.readings import Breach, Part, Reading, Verdict
from flead.messaging.reading import end_offsets
from flead.messaging.topics import create_topics
from flead.settings import Settings
from flead.storage import deployments, offsets, stream_deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead.storage.health import replace_reading
from flead.storage.migrations import is_migrated, migrate
from flead.storage.progress import database_time
from flead.storage.stream_batches import CONSUMER
from flead_airflow import health
from flead_airflow.connections import Servers
from flead_airflow.deployments import open_resumed
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.notifying import LogNotifier, health_notifier
from tests.integration.airflow.waiting import wait_for

pytestmark = [pytest.mark.servers, pytest.mark.timeout(280)]

SETTINGS = Settings()
BREAK_AT_ONCE = ["--break-when", __file__]


@pytest.fixture
def servers(database_url, database_connection, kafka_connection, kafka):
    migrate(database_url)
    properties = {"bootstrap.servers": kafka}
    create_topics(properties)
    return Servers(database_url, properties)


@pytest.fixture
def flink_hook(flink_connection, clean_flink):
    with FlinkRestHook(flink_connection) as hook:
        yield hook


@pytest.fixture
def deployed(servers):
    """Record an active deployment with a job id and a consumer group of its own."""
    configuration = TrainingDeployment(
        features=["x"],
        bootstrap_servers=servers.bootstrap_servers,
        consumer_group=uuid.uuid4().hex,
    )
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.open_attempt(cursor, uuid.uuid4().hex, configuration)
        return deployments.mark_active(cursor, attempt.job_id)


@pytest.fixture
def cut_off(servers, deployed):
    """Record a deployment in place of that one, whose run has ended before its job had started."""
    name, left = uuid.uuid4().hex, "file:///savepoint"
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        deployments.mark_replaced(cursor, deployed.job_id, name, left, None)
        attempt = deployments.open_attempt(cursor, name, deployed.configuration, left)
        deployments.mark_posted(cursor, attempt.job_id)
    return attempt


@pytest.fixture
def take(servers, flink_hook):
    def take_reading(flink=flink_hook, settings=SETTINGS):
        return health.take_reading(servers, flink, settings, dag_run_id="now", deploying=[])

    return take_reading


@pytest.fixture
def check(servers, flink_hook):
    def check_as(run, flink=flink_hook, settings=SETTINGS, deploying=()):
        return health.check(servers, flink, settings, dag_run_id=run, deploying=deploying)

    return check_as


@pytest.fixture
def commit(servers, deployed):
    """Commit offsets of the telemetry as the job does with its checkpoints."""

    def commit_offsets(next_offsets):
        consumer = Consumer(servers.kafka | {"group.id": deployed.configuration.consumer_group})
        positions = [
            TopicPartition(Topic.TELEMETRY, partition, offset)
            for partition, offset in next_offsets.items()
        ]
        consumer.commit(offsets=positions, asynchronous=False)
        consumer.close()

    return commit_offsets


def send(producer, topic, messages, age_seconds=0.0):
    at = int(1_000 * (time.time() - age_seconds))
    for _ in range(messages):
        producer.produce(topic, b"{}", b"a", partition=0, timestamp=at)
    assert producer.flush(30) == 0


def rows(servers, *columns):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(columns)} FROM training_health"  # noqa: S608 - constants
            " ORDER BY created_at, id"
        )
        return cursor.fetchall()


def test_a_database_without_tables_is_left_as_it_is(
    database_url, database_connection, kafka, flink_hook
):
    empty = Servers(database_url, {"bootstrap.servers": kafka})

    assert health.check(empty, flink_hook, SETTINGS, dag_run_id="run-1", deploying=[]) is None
    with connect(database_url) as connection, connection.cursor() as cursor:
        assert not is_migrated(cursor)


class TestReadingOfTheJob:
    def test_that_runs_has_its_vertices_checkpoints_and_back_pressure(
        self, take, flink_hook, deployed, tiny_job
    ):
        flink_hook.run_python_job(deployed.job_id, tiny_job)
        wait_for(lambda: flink_hook.checkpoints(deployed.job_id).latest.completed)
        # Flink reads it off the tasks only once it has been asked.
        wait_for(lambda: flink_hook.back_pressure(flink_hook.job(deployed.job_id)) is not None)

        reading = take()

        assert (reading.job_id, reading.job_state) == (deployed.job_id, "RUNNING")
        vertices = len(flink_hook.job(deployed.job_id).vertices)
        assert (reading.vertices_running, reading.vertices_total) == (vertices, vertices)
        assert 0 <= reading.checkpoint_age_seconds < 30
        assert reading.restarts == 0
        assert 0 <= reading.back_pressure_ratio <= 1
        assert (reading.flink_error, reading.kafka_error) == (None, None)

    def test_that_has_failed_says_so_and_it_is_deployed_again(
        self, check, flink_hook, deployed, tiny_job, servers
    ):
        flink_hook.run_python_job(deployed.job_id, tiny_job, [*BREAK_AT_ONCE, "--no-restart"])
        wait_for(lambda: flink_hook.job(deployed.job_id).state.ended)

        finding = check("run-1")

        assert finding.message == "job_failed: FAILED (limit: RUNNING); training is deployed again"
        assert rows(servers, "job_state", "restarts", "verdict", "healing") == [
            ("FAILED", 1, "healing", ["training"])
        ]

    def test_that_was_stopped_for_one_that_did_not_start_is_as_good_as_lost(
        self, check, flink_hook, deployed, tiny_job, servers
    ):
        flink_hook.run_python_job(deployed.job_id, tiny_job)
        flink_hook.cancel(deployed.job_id)
        wait_for(lambda: flink_hook.job(deployed.job_id).state.ended)
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            deployments.mark_suspended(cursor, deployed.job_id, "it was not replaced", None)
            restored = deployments.open_attempt(
                cursor, deployed.deployment_id, deployed.configuration
            )
            deployments.mark_failed(cursor, restored.job_id, "no slots")

        finding = check("run-1")

        assert finding.breaches[0] == Breach("job_absent", "ABSENT", "RUNNING")
        assert rows(servers, "job_id", "healing") == [(deployed.job_id, ["training"])]

    def test_that_was_ended_with_its_deployment_goes_on_from_the_state_that_it_left(
        self, check, flink_hook, cut_off, tiny_job, servers
    ):
        flink_hook.run_python_job(cut_off.job_id, tiny_job)
        wait_for(lambda: flink_hook.checkpoints(cut_off.job_id).latest.completed)
        flink_hook.cancel(cut_off.job_id)
        wait_for(lambda: flink_hook.job(cut_off.job_id).state.ended)

        under_way = check("run-1", deploying=[Part.TRAINING])
        finding = check("run-2")
        submission = open_resumed(servers, flink_hook)

        assert under_way.verdict is Verdict.DEPLOYING
        assert finding.breaches[0] == Breach("job_absent", "ABSENT", "RUNNING")
        assert (finding.verdict, finding.healing) == (Verdict.HEALING, [Part.TRAINING])
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            healed, failed, _ = deployments.newest_attempts(cursor)
        assert healed.job_id == submission.job_id
        assert healed.deployment_id == failed.deployment_id == cut_off.deployment_id
        assert f"/{cut_off.job_id}/chk-" in submission.savepoint_path
        assert failed.status is AttemptStatus.FAILED
        assert failed.savepoint_path == submission.savepoint_path

    def test_that_was_ended_before_its_first_checkpoint_goes_on_from_what_it_replaced(
        self, check, flink_hook, cut_off, tiny_job, servers, tmp_path
    ):
        flink_hook.run_python_job(cut_off.job_id, tiny_job, ["--wait-for", str(tmp_path / "never")])
        flink_hook.cancel(cut_off.job_id)
        wait_for(lambda: flink_hook.job(cut_off.job_id).state.ended)

        assert check("run-1").healing == [Part.TRAINING]
        submission = open_resumed(servers, flink_hook)
        assert submission.job_id != cut_off.job_id
        assert submission.savepoint_path == cut_off.restored_from

    def test_that_restarts_again_and_again_is_found(self, check, flink_hook, deployed, tiny_job):
        flink_hook.run_python_job(deployed.job_id, tiny_job, BREAK_AT_ONCE)
        wait_for(lambda: len(flink_hook.exceptions(deployed.job_id).exception_history.entries) > 2)

        finding = check("run-1", settings=Settings(health_restarts=2))

        assert "restarts" in [breach.rule for breach in finding.breaches]
        assert (finding.verdict, finding.healing) == (Verdict.BREACHED, [])

    def test_whose_cluster_does_not_answer_names_the_reason(
        self, check, deployed, servers, monkeypatch
    ):
        nobody = {"conn_type": "http", "host": "127.0.0.1", "port": 1}
        monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(nobody))

        with FlinkRestHook("nobody") as hook:
            finding = check("run-1", flink=hook)

        [breach] = finding.breaches
        assert breach.rule == "cluster_unreachable"
        assert "ConnectError" in breach.value
        assert (finding.verdict, finding.steps) == (Verdict.BREACHED, {})


class TestReadingOfTheBrokers:
    def test_has_the_lag_of_what_the_job_has_committed(
        self, take, servers, deployed, commit, producer
    ):
        ends = end_offsets(servers.kafka, Topic.TELEMETRY)
        commit(ends)
        assert (take().lag_rows, take().lag_seconds) == (0, 0.0)

        send(producer, Topic.TELEMETRY, 3, age_seconds=200)

        reading = take()
        assert reading.lag_rows == 3
        assert 200 <= reading.lag_seconds < 230

    def test_has_the_rates_since_the_reading_before(
        self, check, servers, deployed, commit, producer
    ):
        ends = end_offsets(servers.kafka, Topic.TELEMETRY)
        commit(ends)
        check("run-1")
        send(producer, Topic.TELEMETRY, 30)
        send(producer, Topic.LOCAL_UPDATES, 4)
        send(producer, Topic.TELEMETRY_DLQ, 2)
        send(producer, Topic.FEEDBACK_DLQ, 1)
        commit({0: ends[0] + 30})

        check("run-2")

        (first, *nothing), (second, *rates) = rows(
            servers,
            "created_at",
            "rows_per_second",
            "updates_per_second",
            "dead_letters_per_minute",
        )
        assert nothing == [None, None, None]
        seconds = (second - first).total_seconds()
        assert rates == pytest.approx([30 / seconds, 4 / seconds, 60 * 3 / seconds])

    def test_that_do_not_answer_names_the_reason(self, servers, flink_hook, deployed, monkeypatch):
        monkeypatch.setattr("flead.messaging.reading.REQUEST_TIMEOUT_SECONDS", 1.0)
        away = Servers(servers.database_url, {"bootstrap.servers": "127.0.0.1:1"})

        finding = health.check(away, flink_hook, SETTINGS, dag_run_id="run-1", deploying=[])

        assert [breach.rule for breach in finding.breaches] == ["job_absent", "kafka_unreachable"]


class TestReadingOfTheStream:
    @pytest.fixture
    def stream(self, servers):
        configuration = StreamAnalysis(
            deployment_id="s", kafka={}, checkpoint_uri="", state_uri="", archive_uri=""
        )
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            stream_deployments.submit(cursor, configuration)
            stream_deployments.begin(cursor, configuration, "host", 1, "query")
            ends = end_offsets(servers.kafka, Topic.TELEMETRY)
            offsets.store_next_offsets(cursor, CONSUMER, Topic.TELEMETRY, ends)

    def test_whose_driver_holds_no_lock_is_lost_and_deployed_again(
        self, check, take, stream, producer
    ):
        send(producer, Topic.TELEMETRY, 2, age_seconds=60)

        reading, finding = take(), check("run-1")

        assert (reading.stream_state, reading.stream_lag_rows) == ("lost", 2)
        assert 60 <= reading.stream_lag_seconds < 90
        assert reading.deployment_id is None
        assert finding.message == "stream_lost: lost (limit: active); stream is deployed again"


class TestHealing:
    def test_of_a_job_that_flink_does_not_know_is_limited_and_then_asks_a_person(
        self, check, deployed, servers
    ):
        settings = Settings(healing_attempts_per_hour=2, healing_backoff_seconds=0)

        steps = [check(f"run-{number}", settings=settings) for number in range(3)]

        verdicts = [finding.verdict for finding in steps]
        assert verdicts == [Verdict.HEALING, Verdict.HEALING, Verdict.EXHAUSTED]
        assert "needs a person" in steps[-1].message
        assert steps[-1].healing == []

    def test_waits_between_two_attempts(self, check, deployed):
        check("run-1")

        finding = check("run-2")

        assert (finding.verdict, finding.healing) == (Verdict.BREACHED, [])
        assert finding.message.endswith("training is deployed again after a pause")

    def test_that_is_repeated_by_airflow_is_one_attempt(self, check, deployed, servers):
        assert check("run-1").healing == check("run-1").healing == [Part.TRAINING]
        assert rows(servers, "verdict") == [("healing",)]

    def test_waits_for_the_end_of_a_deployment(self, check, deployed):
        finding = check("run-1", deploying=[Part.TRAINING])

        assert (finding.verdict, finding.healing) == (Verdict.DEPLOYING, [])

    def test_does_not_wait_for_one_that_nothing_starts(self, check, deployed, servers):
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            now = database_time(cursor)
            for minutes in range(1, 63):
                reading = Reading(
                    created_at=now - timedelta(minutes=minutes), deploying=[Part.TRAINING]
                )
                replace_reading(cursor, f"run-{minutes}", reading, Verdict.DEPLOYING, [], [])

        finding = check("run-now", deploying=[Part.TRAINING])

        assert (finding.verdict, finding.healing) == (Verdict.HEALING, [Part.TRAINING])
        assert "under way for longer than 1:00:00" in finding.message
        assert rows(servers, "deploying", "verdict")[-1] == (["training"], "healing")


class TestDag:
    @pytest.fixture
    def run_dag(self, checkout, servers, flink_hook):
        db.initdb()
        DagBundlesManager().sync_bundles_to_db()
        for name in ("deploy_training", "deploy_stream_analysis"):
            bag = DagBag(str(checkout / "dags" / f"{name}.py"))
            sync_bag_to_db(bag, "dags-folder", None)
        pause(paused=False)

        def run(dag_id="monitor_training", **conf):
            path = checkout / "dags" / f"{dag_id}.py"
            return DagBag(str(path)).dags[dag_id].test(run_conf=conf)

        yield run
        forget_runs()

    def states(self, run):
        return {task.task_id: str(task.state) for task in run.get_task_instances()}

    def test_is_skipped_when_nothing_is_deployed(self, run_dag, servers):
        run = run_dag()

        assert set(self.states(run).values()) == {"skipped"}
        assert rows(servers, "verdict") == []

    def test_judges_a_job_that_runs_and_heals_nothing(
        self, run_dag, servers, flink_hook, deployed, commit, tiny_job
    ):
        commit(end_offsets(servers.kafka, Topic.TELEMETRY))
        flink_hook.run_python_job(deployed.job_id, tiny_job)
        wait_for(lambda: flink_hook.checkpoints(deployed.job_id).latest.completed)

        run = run_dag()

        assert run.state == "success"
        assert self.states(run) == {
            "read": "success",
            "judge": "success",
            "heal_training": "skipped",
            "take_back_training": "skipped",
            "heal_stream": "skipped",
            "take_back_stream": "skipped",
        }
        assert rows(servers, "verdict", "reasons") == [("healthy", [])]

    def test_of_a_job_that_is_gone_fails_tells_it_and_triggers_its_deployment_once(
        self, run_dag, servers, deployed, monkeypatch, tmp_path
    ):
        told = tmp_path / "told.json"
        monkeypatch.setenv("FLEAD_HEALTH_NOTIFIER", f"{__name__}.FileNotifier")
        monkeypatch.setenv("FLEAD_HEALTH_NOTIFIER_OPTIONS", json.dumps({"path": str(told)}))

        run = run_dag()

        assert run.state == "failed"
        assert self.states(run) == {
            "read": "success",
            "judge": "failed",
            "heal_training": "success",
            "take_back_training": "skipped",
            "heal_stream": "skipped",
            "take_back_stream": "skipped",
        }
        assert msgspec.json.decode(told.read_bytes()) == [
            "judge",
            "job_absent: ABSENT (limit: RUNNING); training is deployed again",
        ]
        with create_session() as session:
            [healing] = session.scalars(select(DagRun).where(DagRun.dag_id == "deploy_training"))
            assert healing.run_id == f"heal_training__{run.run_id}"
            assert healing.conf == {"resume": True}

        meanwhile = run_dag()

        assert set(self.states(meanwhile).values()) == {"success", "skipped"}
        assert self.states(meanwhile)["heal_training"] == "skipped"
        assert rows(servers, "verdict") == [("healing",), ("deploying",)]

    def test_of_a_job_whose_deployment_is_paused_says_so_and_heals_once_it_is_not(
        self, run_dag, servers, deployed, monkeypatch
    ):
        monkeypatch.setenv("FLEAD_HEALING_ATTEMPTS_PER_HOUR", "1")
        pause(paused=True)

        for _ in range(2):
            run = run_dag()
            assert self.states(run)["heal_training"] == "failed"
            assert self.states(run)["take_back_training"] == "success"
        with create_session() as session:
            assert not list(
                session.scalars(select(DagRun).where(DagRun.dag_id == "deploy_training"))
            )
        assert rows(servers, "verdict", "healing") == [("breached", [])] * 2

        pause(paused=False)

        assert self.states(run_dag())["heal_training"] == "success"
        assert rows(servers, "verdict", "healing")[-1] == ("healing", ["training"])

    def test_brings_a_job_that_has_failed_back_from_its_newest_checkpoint(
        self, run_dag, servers, flink_hook, tiny_job, monkeypatch, tmp_path
    ):
        script = tmp_path / "job.py"
        monkeypatch.setenv("FLEAD_TRAINING_SCRIPT", str(script))
        now = tmp_path / "now"
        script.write_text(RUN.format(tiny_job, ["--break-when", str(now), "--no-restart"]))
        assert run_dag("deploy_training").state == "success"
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            first = deployments.active(cursor)
        now.touch()
        wait_for(lambda: flink_hook.job(first.job_id).state.ended)
        script.write_text(RUN.format(tiny_job, []))

        assert run_dag().state == "failed"

        forget_runs()
        assert run_dag("deploy_training", resume=True).state == "success"
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            healed = deployments.active(cursor)
        assert healed.deployment_id == first.deployment_id
        assert f"/{first.job_id}/chk-" in healed.restored_from
        assert run_dag().state == "success"
        assert rows(servers, "job_id", "job_state", "verdict") == [
            (first.job_id, "FAILED", "healing"),
            (healed.job_id, "RUNNING", "healthy"),
        ]


RUN = """
import runpy, sys
script = {!r}
sys.argv = [script, *{!r}]
runpy.run_path(script, run_name="__main__")
"""


def pause(*, paused):
    """Pause what deploys, or let it run."""
    with create_session() as session:
        for dag in session.scalars(select(DagModel)):
            dag.is_paused = paused


def forget_runs():
    """Remove the runs that were triggered and that no scheduler starts."""
    with create_session() as session:
        for run in session.scalars(select(DagRun)):
            session.delete(run)


class FileNotifier(BaseNotifier):
    """Write which task has failed, and why, to a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def notify(self, context):
        said = [context["ti"].task_id, str(context["exception"])]
        Path(self.path).write_text(json.dumps(said), encoding="utf-8")


class TestNotifier:
    def test_logs_by_default(self):
        assert isinstance(health_notifier(SETTINGS), LogNotifier)

    def test_may_be_that_of_a_provider_with_arguments(self):
        settings = Settings(
            health_notifier="airflow.providers.smtp.notifications.smtp.SmtpNotifier",
            health_notifier_options={"to": "operators@example.org"},
        )

        assert health_notifier(settings).to == "operators@example.org"

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"health_notifier": "no.such.Notifier"}, "FLEAD_HEALTH_NOTIFIER=no.such.Notifier: No"),
            ({"health_notifier": "Notifier"}, "FLEAD_HEALTH_NOTIFIER=Notifier: "),
            ({"health_notifier": "json.JSONDecoder"}, "is no subclass of Airflow's BaseNotifier"),
            ({"health_notifier_options": {"to": "me"}}, "FLEAD_HEALTH_NOTIFIER_OPTIONS do not fit"),
        ],
    )
    def test_that_cannot_be_made_names_the_setting(self, settings, message):
        with pytest.raises(ValueError, match=message):
            health_notifier(Settings(**settings))
