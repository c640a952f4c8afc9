"""Each shipped DAG run from its first task to its last, against real servers."""

import base64
import time

import msgspec
import pytest
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models import DagRun
from airflow.models.asset import AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy import select

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import (
    ClosedBy,
    DeadLetter,
    GlobalModel,
    Hyperparameters,
    LabelSource,
    LocalUpdate,
    ModelStatus,
    Moments,
    TrainingControl,
    UpdateStatus,
)
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets, read_committed
from flead.messaging.topics import create_topics
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead.storage.migrations import migrate
from flead.storage.promotions import EVALUATION
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.pages import tuning
from tests.integration import tuned_fleet
from tests.integration.airflow import evaluated_run
from tests.integration.airflow.approvals import answered, by_a_person, by_the_scheduler

pytestmark = [
    pytest.mark.servers,
    pytest.mark.usefixtures("database_connection", "kafka_connection"),
    pytest.mark.timeout(600),
]

INPUTS = 4 * len(FEATURES)
TRAINING = TrainingDeployment(features=list(FEATURES), bootstrap_servers="broker:9092")


@pytest.fixture
def flink_hook(flink_connection, clean_flink):
    with FlinkRestHook(flink_connection) as hook:
        yield hook


def states(run):
    return {task.task_id: task.state for task in run.get_task_instances()}


def attempts(database_url):
    with connect(database_url) as connection, connection.cursor() as cursor:
        return deployments.newest_attempts(cursor)


def newest_message(kafka, topic, kind):
    records = read_committed({"bootstrap.servers": kafka}, topic, {}, 10_000).records
    return msgspec.json.decode(records[-1].value, type=kind)


def update(device_id, *, samples, weight, **changes):
    """Key and value from a device that started at version 0, the zero model, and has labels."""
    moments = Moments([float(samples)] * INPUTS, [0.0] * INPUTS, [1.0] * INPUTS)
    value = LocalUpdate(
        device_id=device_id,
        model_version=1,
        base_version=0,
        feature_schema=feature_schema(FEATURES),
        trained=True,
        status=UpdateStatus.TRAINING,
        samples_processed=samples,
        weights=[weight] * INPUTS,
        intercept=0.0,
        moments=moments,
        global_metrics=None,
        candidate_metrics=None,
        personalized_metrics=None,
        accuracy=None,
        rows=samples,
        rows_labelled=samples,
        rows_pseudo_labelled=0,
        label_source=LabelSource.LABEL,
        input_partition=0,
        first_offset=0,
        last_offset=samples - 1,
        offset_sum=samples * (samples - 1) // 2,
        window_start=0,
        window_end=1,
        closed_by=ClosedBy.COUNT,
        learning_rate=0.1,
        hyperparameters_revision=0,
        trial=None,
        timestamp=2,
    )
    value = msgspec.structs.replace(value, **changes)
    return device_id.encode(), msgspec.json.encode(value)


class TestDeployTraining:
    def test_starts_the_job_replaces_it_from_its_savepoint_and_resumes_it_from_its_checkpoint(
        self, run_dag, flink_hook, database_url, kafka
    ):
        first_run = run_dag("deploy_training", checkpoint_interval_seconds=0.5)

        assert (first_run.state, states(first_run)["tell"]) == ("success", "skipped")
        [first] = attempts(database_url)
        assert (first.status, first.restored_from) == (AttemptStatus.ACTIVE, None)
        assert flink_hook.job(first.job_id).runs_every_vertex
        assert newest_message(kafka, Topic.CONTROL, TrainingControl).revision == 1

        second_run = run_dag("deploy_training", learning_rate=0.25)

        assert second_run.state == "success"
        second, first = attempts(database_url)
        assert (second.status, first.status) == (AttemptStatus.ACTIVE, AttemptStatus.STOPPED)
        assert second.restored_from == first.savepoint_path is not None
        restored = flink_hook.checkpoints(second.job_id).latest.restored
        assert restored.external_path == first.savepoint_path
        control = newest_message(kafka, Topic.CONTROL, TrainingControl)
        assert (control.revision, control.hyperparameters.learning_rate) == (2, 0.25)
        running = [job.jid for job in flink_hook.jobs() if not job.state.ended]
        assert running == [second.job_id]

        flink_hook.cancel(second.job_id)
        while not flink_hook.job(second.job_id).state.ended:
            time.sleep(0.2)
        resuming_run = run_dag("deploy_training", resume=True)

        assert resuming_run.state == "success"
        resumed = attempts(database_url)[0]
        assert resumed.status is AttemptStatus.ACTIVE
        assert resumed.deployment_id == second.deployment_id
        assert resumed.configuration == second.configuration
        assert f"/{second.job_id}/chk-" in resumed.restored_from

    def test_that_resumes_skips_when_nothing_was_deployed(self, run_dag, flink_hook):
        run = run_dag("deploy_training", resume=True)

        assert (run.state, states(run)["open_attempt"]) == ("success", "skipped")

    def test_of_a_job_whose_script_raises_records_the_traceback_and_tells_it(
        self, run_dag, flink_hook, database_url, tmp_path, monkeypatch
    ):
        script = tmp_path / "raises.py"
        script.write_text("raise ValueError('the set is empty')\n")
        told = []

        def listen(dag):
            dag.get_task("tell").on_failure_callback = [
                lambda context: told.append(str(context["exception"]))
            ]

        monkeypatch.setenv("FLEAD_TRAINING_SCRIPT", str(script))

        run = run_dag("deploy_training", listen)

        assert run.state == "failed"
        assert states(run)["record_failure"] == "success"
        assert (states(run)["restore"], states(run)["tell"]) == ("skipped", "failed")
        [message] = told
        assert "no training job runs now, for none ran before it" in message
        assert message.endswith("ValueError: the set is empty")
        [attempt] = attempts(database_url)
        assert attempt.status is AttemptStatus.FAILED
        assert attempt.reason.endswith("ValueError: the set is empty")


class TestHyperparameterTuning:
    @pytest.fixture(autouse=True)
    def settings(self, no_updates_to_read, monkeypatch):
        monkeypatch.setenv("FLEAD_TUNING_HORIZON_SECONDS", "1")
        monkeypatch.setenv("FLEAD_MAX_WAIT_SECONDS", "1")

    @pytest.fixture
    def fleet(self, database_url):
        made = tuned_fleet.Fleet(database_url)
        made.deploy()
        made.promote(1)
        return made

    @pytest.fixture
    def asks(self, fleet):
        """Return a fleet of which decision 2 awaits an approval: a trial has won by far."""
        fleet.ask_for(Hyperparameters(learning_rate=0.4))
        return fleet

    @pytest.fixture
    def page(self, database_url):
        """Return the function that reads what the page of the tuning shows."""

        def read():
            with connect(database_url) as connection, connection.cursor() as cursor:
                return tuning.gather(cursor)

        return read

    def test_ends_as_skipped_when_there_is_nothing_to_decide(self, run_dag, fleet):
        run = run_dag("hyperparameter_tuning")

        assert set(states(run).values()) == {"skipped"}
        assert fleet.decisions() == []

    def test_that_is_forced_tries_others_and_ends_the_trials(self, run_dag, fleet, kafka):
        run = run_dag("hyperparameter_tuning", force=True)

        assert run.state == "success"
        assert states(run)["judge"] == states(run)["settle"] == "success"
        assert states(run)["approve"] == states(run)["approved"] == "skipped"
        [decision] = fleet.decisions()
        # No device has sent anything meanwhile.
        assert decision.status == "expired"
        sent = newest_message(kafka, Topic.CONTROL, TrainingControl)
        assert (sent.revision, sent.trials) == (3, [])

    @pytest.mark.parametrize(
        ("option", "status", "rate"), [("Approve", "adopted", 0.4), ("Reject", "rejected", 0.05)]
    )
    def test_waits_for_a_person_and_records_the_answer(
        self, run_dag, asks, page, kafka, option, status, rate
    ):
        with answered(by_a_person(option), page) as seen:
            run = run_dag("hyperparameter_tuning")

        assert run.state == "success"
        [shown] = seen
        [waiting] = shown["decisions"]
        assert waiting["status"] == "awaiting_approval"
        assert waiting["changes"] == [("learning_rate", 0.05, 0.4)]
        assert shown["approval"] == (
            f"/dags/hyperparameter_tuning/runs/{run.run_id}/tasks/approve/required_actions"
        )
        [decision] = asks.decisions()
        assert (decision.status, decision.decided_by) == (status, "ada")
        assert decision.settled_at is not None
        sent = newest_message(kafka, Topic.CONTROL, TrainingControl)
        assert sent.hyperparameters.learning_rate == rate

    def test_without_an_answer_in_time_changes_nothing(self, run_dag, asks, monkeypatch, kafka):
        monkeypatch.setenv("FLEAD_TUNING_APPROVAL_SECONDS", "1")

        with answered(by_the_scheduler, asks.decisions) as seen:
            run = run_dag("hyperparameter_tuning")

        assert run.state == "success"
        assert [each.status for [each] in seen] == ["awaiting_approval"]
        [decision] = asks.decisions()
        assert (decision.status, decision.decided_by) == ("rejected", "timeout")
        sent = newest_message(kafka, Topic.CONTROL, TrainingControl)
        assert sent.hyperparameters == Hyperparameters()


class TestAggregationRound:
    @pytest.fixture(autouse=True)
    def settings(self, no_updates_to_read, monkeypatch, tmp_path):
        monkeypatch.setenv("FLEAD_ROUND_MIN_UPDATES", "2")
        monkeypatch.setenv("FLEAD_ROUND_SECONDS", "0")
        monkeypatch.setenv("FLEAD_MAX_WAIT_SECONDS", "3")
        monkeypatch.setenv("GLOBAL_MODELS_DIR", str(tmp_path))

    def test_makes_a_version_publishes_it_and_tells_who_waits_for_one(
        self, run_dag, database_url, kafka, send_updates, tmp_path
    ):
        with connect(database_url) as connection, connection.cursor() as cursor:
            deployments.open_attempt(cursor, "a", TRAINING)
        send_updates(update("a", samples=30, weight=1.0), update("b", samples=10, weight=-1.0))

        run = run_dag("aggregation_round")

        assert run.state == "success"
        model = newest_message(kafka, Topic.GLOBAL_UPDATES, GlobalModel)
        assert (model.version, model.num_updates, model.total_samples) == (1, 2, 40)
        # 30/40 of 1 and 10/40 of -1: McMahan et al. 2017, algorithm 1
        assert model.weights == [0.5] * INPUTS
        assert len(list(tmp_path.iterdir())) == 1
        with create_session() as session:
            [event] = session.scalars(select(AssetEvent))
        assert event.extra == {"version": 1}

    def test_of_updates_that_do_not_add_up_names_the_rule_and_averages_nothing(
        self, run_dag, database_url, send_updates, tmp_path
    ):
        with connect(database_url) as connection, connection.cursor() as cursor:
            deployments.open_attempt(cursor, "a", TRAINING)
        send_updates(*[update(name, samples=30, weight=1.0, rows_labelled=7) for name in "ab"])

        run = run_dag("aggregation_round")

        assert (run.state, states(run)["aggregate"]) == ("failed", "failed")
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT rule, state FROM data_quality_results CROSS JOIN aggregation_rounds"
                " WHERE NOT success AND severity = 'critical'"
            )
            assert cursor.fetchall() == [("rows_add_up", "open")]
        assert list(tmp_path.iterdir()) == []

    def test_of_nothing_but_bad_messages_publishes_their_dead_letters_and_no_version(
        self, run_dag, database_url, kafka, send_updates
    ):
        with connect(database_url) as connection, connection.cursor() as cursor:
            deployments.open_attempt(cursor, "a", TRAINING)
        send_updates(*[(b"a", b"{no json")] * 2)

        run = run_dag("aggregation_round")

        assert run.state == "success"
        assert states(run)["publish"] == "skipped"
        letter = newest_message(kafka, Topic.LOCAL_UPDATES_DLQ, DeadLetter)
        assert letter.value_prefix == base64.b64encode(b"{no json").decode()

    def test_makes_a_candidate_of_what_follows_and_tells_nobody_before_it_is_promoted(
        self, run_dag, database_url, kafka, send_updates
    ):
        with connect(database_url) as connection, connection.cursor() as cursor:
            deployments.open_attempt(cursor, "a", TRAINING)
        send_updates(update("a", samples=30, weight=1.0), update("b", samples=10, weight=-1.0))
        run_dag("aggregation_round")
        send_updates(*[update(name, samples=30, weight=2.0) for name in "ab"])

        run = run_dag("aggregation_round")

        assert states(run)["publish"] == "skipped"
        model = newest_message(kafka, Topic.GLOBAL_UPDATES, GlobalModel)
        assert (model.version, model.status) == (2, ModelStatus.CANDIDATE)

    def test_ends_as_skipped_when_no_update_comes(self, run_dag):
        run = run_dag("aggregation_round")

        assert states(run) == {
            "wait_for_updates": "skipped",
            "open_round": "skipped",
            "aggregate": "skipped",
            "publish": "skipped",
        }


class TestRollbackModel:
    def test_publishes_the_weights_of_the_parent_as_the_newest_version(
        self, run_dag, database_url, kafka, no_updates_to_read, send_updates, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("FLEAD_ROUND_MIN_UPDATES", "1")
        monkeypatch.setenv("FLEAD_ROUND_SECONDS", "0")
        monkeypatch.setenv("FLEAD_GATE_MIN_ROWS", "0")
        monkeypatch.setenv("GLOBAL_MODELS_DIR", str(tmp_path))
        with connect(database_url) as connection, connection.cursor() as cursor:
            deployments.open_attempt(cursor, "a", TRAINING)
        for weight in (1.0, 5.0):
            send_updates(update("a", samples=30, weight=weight))
            run_dag("aggregation_round")

        run = run_dag("rollback_model", reason="a test")

        assert run.state == "success"
        model = newest_message(kafka, Topic.GLOBAL_UPDATES, GlobalModel)
        assert (model.version, model.restored_version) == (3, 1)
        assert model.weights == [1.0] * INPUTS
        with create_session() as session:
            newest = session.scalars(select(AssetEvent).order_by(AssetEvent.id.desc())).first()
        assert newest.extra == {"version": 3}


class TestEvaluationQuality:
    @pytest.fixture(autouse=True)
    def evaluation(self, database_url, kafka, tmp_path, monkeypatch):
        monkeypatch.setenv("FLEAD_DATA_DOCS_DIR", str(tmp_path))
        migrate(database_url)
        create_topics({"bootstrap.servers": kafka})
        evaluated_run.fill(database_url)

    @pytest.fixture
    def known_rollback(self, checkout, run_dag):
        """Let Airflow know the DAG that is triggered; forget the runs that no scheduler starts."""
        bag = DagBag(str(checkout / "dags" / "rollback_model.py"))
        sync_bag_to_db(bag, "dags-folder", None)
        yield
        with create_session() as session:
            for run in session.scalars(select(DagRun).where(DagRun.dag_id == "rollback_model")):
                session.delete(run)

    def test_takes_back_a_head_that_an_evaluation_has_shown_to_be_worse_than_its_parent(
        self, run_dag, known_rollback, database_url, kafka, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("GLOBAL_MODELS_DIR", str(tmp_path))
        # The evaluated run has a handful.
        monkeypatch.setenv("FLEAD_GATE_MIN_ROWS", "1")
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO model_head (feature_schema, version)"
                " SELECT feature_schema, version FROM federated_models WHERE version = 3"
            )
            # Its parent loses .02 nats a row, the head .167: the margin is .1.
            cursor.execute(
                "UPDATE model_evaluations SET log_loss = 0.12 * log_loss,"
                " log_loss_sum = 0.12 * log_loss_sum WHERE model_version = 1"
            )

        run = run_dag("evaluation_quality")

        assert (run.state, states(run)["roll_back"]) == ("success", "success")
        with create_session() as session:
            [triggered] = session.scalars(
                select(DagRun).where(DagRun.run_id == f"evaluation_quality__{run.run_id}")
            )
        assert f"{triggered.dag_id}/{triggered.run_id}".startswith(EVALUATION)
        reason = "evaluated log loss 0.1667 against 0.0200 of its parent"
        assert triggered.conf == {"version": 1, "head": 3, "reason": reason}

        assert run_dag("rollback_model", **triggered.conf).state == "success"

        model = newest_message(kafka, Topic.GLOBAL_UPDATES, GlobalModel)
        assert (model.version, model.restored_version) == (4, 1)
        again = run_dag("rollback_model", **triggered.conf)
        assert states(again) == {"roll_back": "skipped", "publish": "skipped"}
        unmoved = run_dag("evaluation_quality", evaluation_run_id=evaluated_run.RUN)
        assert (unmoved.state, states(unmoved)["roll_back"]) == ("success", "skipped")

    def test_quarantines_an_evaluation_and_releases_it_once_it_is_repaired(
        self, run_dag, database_url, kafka, tmp_path
    ):
        properties = {"bootstrap.servers": kafka}
        before = end_offsets(properties, Topic.FEEDBACK)
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE model_evaluations SET accuracy = 1.7 WHERE device_id = 'a'")

        run = run_dag("evaluation_quality")

        assert run.state == "failed"
        assert states(run) == {
            "find": "success",
            "check": "success",
            "release": "skipped",
            "tell": "failed",
            "judge_head": "success",
            "roll_back": "skipped",
        }
        assert end_offsets(properties, Topic.FEEDBACK) == before

        nothing_new = run_dag("evaluation_quality")

        assert states(nothing_new)["find"] == "skipped"

        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE model_evaluations SET accuracy = 0.9 WHERE device_id = 'a'")
        again = run_dag("evaluation_quality", evaluation_run_id=evaluated_run.RUN)

        assert again.state == "success"
        sent = read_committed(properties, Topic.FEEDBACK, before, 100).records
        assert {record.key for record in sent} == {b"a", b"b"}
        assert (tmp_path / evaluated_run.RUN / "index.html").is_file()
        [check] = [each for each in again.get_task_instances() if each.task_id == "check"]
        assert f"/flead/data-docs/{evaluated_run.RUN}/" in check.xcom_pull(
            task_ids="check", key="_link_DataDocsLink"
        )
        with create_session() as session:
            [event] = session.scalars(
                select(AssetEvent)
                .join(AssetEvent.asset)
                .where(AssetModel.name == "feedback", AssetEvent.source_run_id == again.run_id)
            )
        assert event.extra["evaluation_run_id"] == evaluated_run.RUN
