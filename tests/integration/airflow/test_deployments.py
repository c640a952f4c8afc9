"""What a deployment stops, starts and continues from, against a real database and cluster."""

import json
import os
import shutil
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import (
    GlobalModel,
    Hyperparameters,
    ModelStatus,
    Moments,
    TrainingControl,
)
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.storage import control, deployments, models, outbox
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead.storage.locks import Lock, is_held
from flead.storage.migrations import migrate
from flead.storage.models import StoredModel
from flead_airflow.connections import Servers
from flead_airflow.deployments import (
    check_params,
    failed_job,
    find_running_job,
    open_new,
    open_restored,
    open_resumed,
    outcome_of_failure,
    record_active,
    record_failure,
    submitting,
)
from flead_airflow.flink.errors import FlinkStateError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.flink.responses import JobStatus
from tests.integration.airflow.waiting import wait_for

pytestmark = pytest.mark.servers

PARAMS = {
    "features": ["temperature", "pressure"],
    "learning_rate": 0.25,
    "alpha": 0.001,
    "window_rows": 40,
    "window_seconds": 30,
    "local_epochs": 2,
    "ditto_pull": 0.5,
    "parallelism": 3,
    "checkpoint_interval_seconds": 2,
    "devices": None,
    "device_ttl_days": 7,
    "fresh": False,
    "restore_from": None,
    "resume": False,
}
CONFIGURATION = TrainingDeployment(
    features=["temperature", "pressure"],
    bootstrap_servers="broker:9092",
    hyperparameters=Hyperparameters(
        learning_rate=0.25,
        alpha=0.001,
        window_rows=40,
        window_seconds=30.0,
        local_epochs=2,
        ditto_pull=0.5,
    ),
    parallelism=3,
    checkpoint_interval_seconds=2.0,
    device_ttl_days=7.0,
    kafka={"security.protocol": "PLAINTEXT"},
)
SAVEPOINT = "file:/savepoints/savepoint-1"
EMPTY = dict.fromkeys(PARAMS) | {"fresh": False, "resume": False}


@pytest.fixture
def servers(database_url):
    migrate(database_url)
    return Servers(database_url, {"bootstrap.servers": "broker:9092"})


@pytest.fixture
def flink_hook(flink_connection, clean_flink, monkeypatch):
    name = f"AIRFLOW_CONN_{flink_connection.upper()}"
    connection = json.loads(os.environ[name])
    connection["extra"]["kafka"] = {"security.protocol": "PLAINTEXT"}
    monkeypatch.setenv(name, json.dumps(connection))
    with FlinkRestHook(flink_connection) as hook:
        yield hook


@pytest.fixture
def deploy(servers, flink_hook):
    """Open attempts whose ids no other test has used in the cluster that they share."""
    unused = uuid.uuid4().hex

    def open_attempt(name, stopped_job=None, savepoint=None, suffix=unused, **params):
        return open_new(
            servers,
            flink_hook,
            deployment_id=f"{name}-{suffix}",
            params=PARAMS | params,
            stopped_job=stopped_job,
            savepoint=savepoint,
        )

    return open_attempt


@pytest.fixture
def retain(flink_hook):
    """Lay out files as Flink does for a job whose checkpoints are retained."""

    def lay_out(job_id, number):
        directory = urlsplit(flink_hook.configuration()["execution.checkpointing.dir"]).path
        path = Path(directory) / job_id / f"chk-{number}"
        path.mkdir(parents=True)
        (path / "_metadata").touch()
        return path.as_uri()

    return lay_out


def configured(submission):
    return msgspec.json.decode(submission.arguments[1], type=TrainingDeployment)


def attempts(servers):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        return deployments.newest_attempts(cursor)


def queued_controls(servers):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        queued = [ready.message for ready in outbox.next_ready(cursor, 10)]
    assert {(message.topic, message.key) for message in queued} <= {("training-control", "control")}
    return [msgspec.json.decode(message.value, type=TrainingControl) for message in queued]


def insert_promoted(servers, version, features):
    """Store a model that is the head of its features, as a round does."""
    inputs = [0.5] * len(input_names(features))
    model = GlobalModel(
        version=version,
        parent_version=0,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=version,
        feature_schema=feature_schema(features),
        feature_names=features,
        weights=inputs,
        intercept=-1.0,
        standardizer=Moments(inputs, inputs, inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=50,
        global_accuracy=None,
        global_loss=None,
        timestamp=1_764_000_000_000,
    )
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aggregation_rounds (round, version, state, start_offsets, end_offsets,"
            " updates, dead_letters, opened_at, attempted_at, completed_at)"
            " VALUES (%s, %s, 'aggregated', '{}', '{}', 1, 0, now(), now(), now())",
            (version, version),
        )
        models.insert_model(
            cursor, StoredModel(model, {}, {}, 0, f"model-{version}.json", "0" * 64)
        )
        models.advance_head(cursor, model.feature_schema, None, version)
    return model


def cancel(flink_hook, job_id):
    flink_hook.cancel(job_id)
    wait_for(lambda: flink_hook.job(job_id).state.ended)


def savepoint_of_tiny_job(flink_hook, tiny_job):
    """Run a job until it has a state, and return the savepoint that it is stopped with."""
    job_id, request_id = uuid.uuid4().hex, uuid.uuid4().hex
    flink_hook.run_python_job(job_id, tiny_job)
    wait_for(lambda: flink_hook.checkpoints(job_id).latest.completed)
    flink_hook.stop_with_savepoint(job_id, request_id)
    wait_for(lambda: flink_hook.find_savepoint(job_id, request_id).operation)
    return flink_hook.find_savepoint(job_id, request_id).operation.location


def suspend(servers, job_id, savepoint):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        deployments.mark_suspended(cursor, job_id, "down", savepoint)


@pytest.fixture(scope="class")
def running_deployment(flink_connection, make_database, tiny_job):
    """Run the job of a deployment `a-SUFFIX`, with a completed checkpoint; return the suffix.

    The job's id follows from the deployment's, so that each test can record it in its own
    database.
    """
    suffix, database_url = uuid.uuid4().hex, make_database()
    migrate(database_url)
    with connect(database_url) as connection, connection.cursor() as cursor:
        job_id = deployments.open_attempt(cursor, f"a-{suffix}", CONFIGURATION).job_id
    with FlinkRestHook(flink_connection) as hook:
        hook.run_python_job(job_id, tiny_job)
        wait_for(lambda: hook.checkpoints(job_id).latest.completed)
        yield suffix
        hook.cancel(job_id)


class TestNewDeployment:
    def test_stores_the_attempt_before_anything_is_posted(self, servers, flink_hook, deploy):
        submission = deploy("a")

        [attempt] = attempts(servers)
        assert attempt.status is AttemptStatus.SUBMITTING
        assert attempt.job_id == submission.job_id
        assert attempt.configuration == CONFIGURATION
        assert flink_hook.find_job(submission.job_id) is None

    def test_passes_its_configuration_as_one_argument(self, deploy):
        submission = deploy("a")

        name, value = submission.arguments
        assert name == "--training-config"
        assert msgspec.json.decode(value, type=TrainingDeployment) == CONFIGURATION
        assert (submission.parallelism, submission.savepoint_path) == (3, None)

    @pytest.mark.parametrize(("devices", "seconds"), [(None, 5.0), (240_700, 60.0)])
    def test_without_an_interval_it_is_chosen_for_the_fleet(self, deploy, devices, seconds):
        submission = deploy("a", checkpoint_interval_seconds=None, devices=devices)

        assert configured(submission).checkpoint_interval_seconds == seconds

    def test_the_first_with_empty_params_has_the_defaults(self, deploy):
        configuration = configured(deploy("a", **EMPTY))

        assert configuration.features == list(FEATURES)
        assert configuration.hyperparameters == Hyperparameters()
        assert (configuration.parallelism, configuration.device_ttl_days) == (2, 30.0)

    def test_with_empty_params_changes_nothing_but_what_is_given(self, servers, deploy):
        first = deploy("a")
        tuned = msgspec.structs.replace(CONFIGURATION.hyperparameters, learning_rate=0.75)
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            revision = control.queue_hyperparameters(cursor, tuned).revision

        given = EMPTY | {"parallelism": 4}
        second = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, **given)

        assert configured(second) == msgspec.structs.replace(
            CONFIGURATION, hyperparameters=tuned, parallelism=4, checkpoint_interval_seconds=5.0
        )
        assert second.savepoint_path == SAVEPOINT
        # Devices that have trained with these hyperparameters keep their own rates.
        assert queued_controls(servers)[-1] == TrainingControl(
            revision + 1, tuned, fleet_revision=revision
        )

    def test_with_empty_params_follows_what_ran_not_what_failed(self, servers, flink_hook, deploy):
        first = deploy("a")
        failed = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, device_ttl_days=1)
        record_failure(servers.database_url, flink_hook, failed.job_id, "too late")

        assert configured(deploy("c", **EMPTY)).device_ttl_days == 7

    def test_with_empty_params_and_other_features_has_the_defaults(self, servers, deploy):
        first = deploy("a")

        other = EMPTY | {"features": ["pressure"]}
        second = configured(deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, **other))

        assert (second.features, second.hyperparameters) == (["pressure"], Hyperparameters())
        assert (second.parallelism, second.device_ttl_days) == (2, 30.0)

    def test_opened_twice_is_one_attempt(self, servers, deploy):
        assert deploy("a") == deploy("a")
        assert len(attempts(servers)) == 1

    def test_continues_from_the_savepoint_of_the_job_that_it_replaces(self, servers, deploy):
        first = deploy("a")
        record_active(servers.database_url, first.job_id)

        second = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, learning_rate=0.5)

        assert second.savepoint_path == SAVEPOINT
        assert [attempt.status for attempt in attempts(servers)] == [
            AttemptStatus.SUBMITTING,
            AttemptStatus.STOPPED,
        ]

    def test_continues_from_the_newest_retained_checkpoint_of_a_job_without_a_savepoint(
        self, servers, deploy, retain
    ):
        first = deploy("a")
        record_active(servers.database_url, first.job_id)
        retain(first.job_id, 7)
        newest = retain(first.job_id, 12)

        assert deploy("b", stopped_job=first.job_id).savepoint_path == newest

    def test_continues_from_where_a_job_began_that_completed_no_checkpoint(self, servers, deploy):
        first = deploy("a")
        deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT)

        assert deploy("c").savepoint_path == SAVEPOINT

    def test_passes_over_a_failed_attempt_that_got_nowhere(self, servers, flink_hook, deploy):
        first = deploy("a")
        failed = deploy(
            "b", stopped_job=first.job_id, savepoint=SAVEPOINT, features=["no such feature"]
        )
        record_failure(servers.database_url, flink_hook, failed.job_id, "the script raised")

        assert deploy("c").savepoint_path == SAVEPOINT

    def test_continues_from_a_failed_attempt_that_completed_a_checkpoint(
        self, servers, flink_hook, deploy, retain
    ):
        first = deploy("a")
        failed = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT)
        checkpoint = retain(failed.job_id, 3)
        record_failure(servers.database_url, flink_hook, failed.job_id, "too late")

        assert deploy("c").savepoint_path == checkpoint

    def test_of_another_feature_list_starts_from_nothing(self, deploy):
        first = deploy("a")

        second = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, features=["pressure"])

        assert second.savepoint_path is None

    def test_that_is_fresh_starts_from_nothing(self, deploy):
        first = deploy("a")

        second = deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, fresh=True)

        assert second.savepoint_path is None

    def test_refuses_a_param_that_is_out_of_range_by_name(self, deploy):
        with pytest.raises(msgspec.ValidationError, match="learning_rate"):
            deploy("a", learning_rate=-1)

    def test_queues_its_hyperparameters_under_the_next_revision_with_the_attempt(
        self, servers, deploy
    ):
        first = deploy("a")
        deploy("a")
        assert queued_controls(servers) == [TrainingControl(1, CONFIGURATION.hyperparameters)]
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            tuned = control.queue_hyperparameters(cursor, Hyperparameters(learning_rate=0.75))

        deploy("b", stopped_job=first.job_id, savepoint=SAVEPOINT, learning_rate=0.5)

        assert queued_controls(servers)[1:] == [
            tuned,
            TrainingControl(
                3, msgspec.structs.replace(CONFIGURATION.hyperparameters, learning_rate=0.5)
            ),
        ]

    def test_queues_the_newest_model_of_its_features_when_the_devices_could_not_find_it(
        self, servers, deploy
    ):
        pressure = insert_promoted(servers, 7, ["pressure"])
        insert_promoted(servers, 8, PARAMS["features"])

        deploy("a", features=["pressure"])
        deploy("a", features=["pressure"])

        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            queued = [ready.message for ready in outbox.next_ready(cursor, 10)]
        assert [message.topic for message in queued] == ["global-model-updates", "training-control"]
        assert queued[0].key == "global"
        assert msgspec.json.decode(queued[0].value, type=GlobalModel) == pressure


class TestParams:
    @pytest.mark.parametrize("name", ["fresh", "resume"])
    def test_that_a_named_state_contradicts_are_refused(self, name):
        with pytest.raises(ValueError, match=f"`{name}` does not go with `restore_from`"):
            check_params(PARAMS | {name: True, "restore_from": SAVEPOINT})

    @pytest.mark.parametrize("name", ["fresh", "resume"])
    @pytest.mark.parametrize("named", [None, "", " "])
    def test_without_a_named_state_are_not(self, name, named):
        assert check_params(PARAMS | {name: True, "restore_from": named}) is None


class TestCheckBeforeTheStop:
    @pytest.fixture
    def running(self, servers, flink_hook, deploy, running_deployment):
        job_id = deploy("a", suffix=running_deployment).job_id
        assert flink_hook.job(job_id).state is JobStatus.RUNNING
        record_active(servers.database_url, job_id)
        return job_id

    @pytest.fixture
    def configure(self, flink_hook, monkeypatch):
        """Let the cluster report other settings than it has."""
        real = flink_hook.configuration()

        def report(changes):
            settings = {name: value for name, value in (real | changes).items() if value}
            monkeypatch.setattr(flink_hook, "configuration", lambda: settings)

        return report

    def test_finds_the_job_to_replace(self, servers, flink_hook, running):
        assert find_running_job(servers, flink_hook, PARAMS) == running

    def test_names_the_setting_that_the_cluster_lacks(
        self, servers, flink_hook, running, configure
    ):
        configure({"execution.checkpointing.dir": None})
        for fresh in (False, True):
            with pytest.raises(FlinkStateError, match=r"`execution\.checkpointing\.dir`"):
                find_running_job(servers, flink_hook, PARAMS | {"fresh": fresh})

    def test_refuses_a_bad_param_by_name(self, servers, flink_hook, running):
        with pytest.raises(msgspec.ValidationError, match="learning_rate"):
            find_running_job(servers, flink_hook, PARAMS | {"learning_rate": -1})

    def test_refuses_to_guess_about_a_job_that_flink_has_forgotten(
        self, servers, flink_hook, configure, deploy
    ):
        record_active(servers.database_url, deploy("a").job_id)
        configure({"execution.checkpointing.dir": "s3://bucket/checkpoints"})

        with pytest.raises(FlinkStateError, match=r"s3://bucket/checkpoints.*fresh"):
            find_running_job(servers, flink_hook, PARAMS)
        assert find_running_job(servers, flink_hook, PARAMS | {"fresh": True}) is None

    def test_goes_on_from_where_an_attempt_was_to_begin_that_was_never_posted(
        self, servers, flink_hook, configure, deploy
    ):
        configure({"execution.checkpointing.dir": "s3://bucket/checkpoints"})
        stopped = deploy("o").job_id
        record_active(servers.database_url, stopped)
        cut_short = deploy("b", stopped_job=stopped, savepoint=SAVEPOINT)

        assert open_resumed(servers, flink_hook) == cut_short
        with submitting(servers.database_url, cut_short.job_id):
            pass  # its POST may have come to nothing: that is not known
        with pytest.raises(FlinkStateError, match="s3://bucket/checkpoints"):
            open_resumed(servers, flink_hook)

    def test_passes_over_a_failed_attempt_that_flink_never_knew(
        self, servers, flink_hook, running, configure, deploy
    ):
        configure({"execution.checkpointing.dir": "s3://bucket/checkpoints"})
        failed = deploy("b", stopped_job=running, savepoint=SAVEPOINT)
        record_failure(servers.database_url, flink_hook, failed.job_id, "the script raised")

        assert deploy("c").savepoint_path == SAVEPOINT

    def test_cleared_after_another_job_was_restored_opens_none_beside_it(
        self, servers, flink_hook, deploy, running_deployment
    ):
        stopped = deploy("o")
        failed = deploy("b", stopped_job=stopped.job_id, savepoint=SAVEPOINT)
        record_failure(servers.database_url, flink_hook, failed.job_id, "too slow")
        restored = deploy("a", suffix=running_deployment).job_id
        record_active(servers.database_url, restored)
        before = attempts(servers)

        with pytest.raises(AirflowFailException, match=f"job {restored} .* runs: trigger a new"):
            deploy("b", stopped_job=stopped.job_id, savepoint=SAVEPOINT)

        assert attempts(servers) == before

    def test_cleared_without_its_stop_opens_none_beside_its_own_job(
        self, servers, deploy, running, running_deployment
    ):
        with pytest.raises(AirflowFailException, match=f"job {running} .* runs: trigger a new"):
            deploy("a", suffix=running_deployment)

        assert [attempt.job_id for attempt in attempts(servers)] == [running]

    def test_cleared_while_its_job_starts_opens_none_beside_it(
        self, servers, deploy, running_deployment
    ):
        posted = deploy("a", suffix=running_deployment)

        assert deploy("a", suffix=running_deployment, learning_rate=0.5) == posted

        assert [attempt.job_id for attempt in attempts(servers)] == [posted.job_id]
        assert len(queued_controls(servers)) == 1

    # The last, because it ends the job that the others share.
    def test_starts_from_what_a_person_names_though_the_state_of_the_last_job_cannot_be_found(
        self, servers, flink_hook, deploy, configure
    ):
        record_active(servers.database_url, deploy("a").job_id)
        configure({"execution.checkpointing.dir": "s3://bucket/checkpoints"})
        with pytest.raises(FlinkStateError, match="deploy with `restore_from`"):
            find_running_job(servers, flink_hook, PARAMS)
        named = {"restore_from": " s3://bucket/checkpoints/7b2b/chk-7 "}

        assert find_running_job(servers, flink_hook, PARAMS | named) is None
        assert deploy("b", **named).savepoint_path == "s3://bucket/checkpoints/7b2b/chk-7"

    def test_needs_no_files_of_a_job_that_flink_knows(
        self, servers, flink_hook, running, configure, deploy
    ):
        configure({"execution.checkpointing.dir": "s3://bucket/checkpoints"})
        assert find_running_job(servers, flink_hook, PARAMS) == running
        flink_hook.cancel(running)

        second = deploy("b", stopped_job=running)

        assert f"/{running}/chk-" in second.savepoint_path
        assert attempts(servers)[1].savepoint_path == second.savepoint_path


class TestResumedDeployment:
    def test_is_none_when_nothing_was_deployed_or_it_was_stopped_for_good(
        self, servers, flink_hook, deploy
    ):
        assert open_resumed(servers, flink_hook) is None
        first = deploy("a")
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            deployments.mark_stopped(cursor, first.job_id, "by a person", SAVEPOINT)
        assert open_resumed(servers, flink_hook) is None

    def test_continues_the_stored_configuration_from_the_savepoint_of_down(
        self, servers, flink_hook, deploy
    ):
        first = deploy("a")
        record_active(servers.database_url, first.job_id)
        suspend(servers, first.job_id, SAVEPOINT)

        resumed = open_resumed(servers, flink_hook)

        assert resumed.savepoint_path == SAVEPOINT
        assert resumed.arguments == first.arguments
        assert resumed.job_id != first.job_id
        assert open_resumed(servers, flink_hook) == resumed
        assert [control.revision for control in queued_controls(servers)] == [1]

    def test_continues_a_job_that_was_killed_from_its_newest_checkpoint_under_a_new_id(
        self, servers, flink_hook, deploy, retain
    ):
        first = deploy("a")
        record_active(servers.database_url, first.job_id)
        checkpoint = retain(first.job_id, 5)

        resumed = open_resumed(servers, flink_hook)

        assert (resumed.savepoint_path, resumed.job_id == first.job_id) == (checkpoint, False)
        assert open_resumed(servers, flink_hook) == resumed

    def test_is_refused_when_the_checkpoint_that_its_job_has_completed_is_not_there(
        self, servers, flink_hook, deploy
    ):
        record_active(servers.database_url, deploy("a").job_id)

        with pytest.raises(FlinkStateError, match="has completed a checkpoint, and none is"):
            open_resumed(servers, flink_hook)

    def test_uses_the_addresses_of_today(self, servers, flink_hook, deploy):
        suspend(servers, deploy("a").job_id, SAVEPOINT)
        moved = Servers(servers.database_url, {"bootstrap.servers": "new:9092"})

        _, argument = open_resumed(moved, flink_hook).arguments

        configuration = msgspec.json.decode(argument, type=TrainingDeployment)
        assert configuration.bootstrap_servers == "new:9092"
        assert configuration.hyperparameters == CONFIGURATION.hyperparameters

    def test_remembers_the_state_of_a_lost_job_while_it_is_tried(
        self, servers, flink_hook, deploy, retain
    ):
        lost = deploy("a")
        record_active(servers.database_url, lost.job_id)
        newest = retain(lost.job_id, 7)

        failed = open_resumed(servers, flink_hook)
        shutil.rmtree(Path(urlsplit(newest).path).parent)
        record_failure(servers.database_url, flink_hook, failed.job_id, "too few slots")

        assert failed.savepoint_path == newest
        assert open_resumed(servers, flink_hook).savepoint_path == newest

    def test_takes_up_a_job_that_still_runs_as_it_is(self, servers, flink_hook, deploy, tiny_job):
        first = deploy("a")
        flink_hook.run_python_job(first.job_id, tiny_job)

        assert open_resumed(servers, flink_hook) == first

    def test_can_be_tried_again_after_it_failed(self, servers, flink_hook, deploy):
        first = deploy("a")
        suspend(servers, first.job_id, SAVEPOINT)
        failed = open_resumed(servers, flink_hook)
        record_failure(servers.database_url, flink_hook, failed.job_id, "too few slots")

        again = open_resumed(servers, flink_hook)

        assert again.savepoint_path == SAVEPOINT
        assert again.job_id not in {first.job_id, failed.job_id}


class TestRestoredDeployment:
    @pytest.fixture
    def first(self, servers, deploy):
        submission = deploy("a", learning_rate=0.25)
        record_active(servers.database_url, submission.job_id)
        return submission

    @pytest.fixture
    def restore(self, servers, flink_hook):
        def open_attempt(failed, stopped=None, savepoint=None):
            with connect(servers.database_url) as connection, connection.cursor() as cursor:
                deployment_id = deployments.attempt_of(cursor, failed.job_id).deployment_id
            return open_restored(
                servers,
                flink_hook,
                deployment_id=deployment_id,
                stopped_job=stopped,
                savepoint=savepoint,
            )

        return open_attempt

    def fail(self, servers, flink_hook, submission):
        record_failure(servers.database_url, flink_hook, submission.job_id, "too slow")

    def test_continues_its_own_parameters_from_the_savepoint_of_the_stop(
        self, servers, flink_hook, deploy, first, restore
    ):
        failed = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5, parallelism=1)
        self.fail(servers, flink_hook, failed)

        restored = restore(failed)

        assert restored.savepoint_path == SAVEPOINT
        assert (restored.arguments, restored.parallelism) == (first.arguments, 3)
        assert restored.job_id not in {first.job_id, failed.job_id}
        assert restore(failed) == restored
        rates = [control.hyperparameters.learning_rate for control in queued_controls(servers)]
        assert rates == [0.25, 0.5, 0.25]

    @pytest.mark.parametrize(
        "mistake", [{"fresh": True}, {"features": ["pressure"]}, {"restore_from": "/old/chk-1"}]
    )
    def test_is_not_of_one_that_was_cut_off_before_it_had_started(
        self, servers, flink_hook, deploy, first, restore, mistake
    ):
        cut_off = deploy("b", first.job_id, SAVEPOINT, **mistake)
        with submitting(servers.database_url, cut_off.job_id):
            pass  # the post gets lost

        corrected = deploy("c", features=None)

        assert corrected.savepoint_path == SAVEPOINT
        assert configured(corrected).features == CONFIGURATION.features
        assert [each.status for each in attempts(servers)] == [
            AttemptStatus.SUBMITTING,
            AttemptStatus.FAILED,
            AttemptStatus.STOPPED,
        ]

        self.fail(servers, flink_hook, corrected)
        restored = restore(corrected)

        assert restored.savepoint_path == SAVEPOINT
        assert restored.arguments == first.arguments

    def test_continues_from_the_newest_checkpoint_of_the_job_that_came_too_late(
        self, servers, flink_hook, deploy, first, restore, retain
    ):
        failed = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5)
        retain(failed.job_id, 1)
        newest = retain(failed.job_id, 2)
        self.fail(servers, flink_hook, failed)

        assert restore(failed).savepoint_path == newest
        assert attempts(servers)[0].configuration == CONFIGURATION

    @pytest.mark.parametrize("noticed", ["at its failure", "by the next try"])
    def test_continues_from_its_savepoint_when_the_job_that_failed_left_only_what_it_started_from(
        self, servers, flink_hook, deploy, first, restore, tiny_job, tmp_path, noticed
    ):
        old = urlsplit(savepoint_of_tiny_job(flink_hook, tiny_job)).path
        of_it = {"stopped_job": first.job_id, "savepoint": SAVEPOINT, "restore_from": old}
        failed = deploy("b", **of_it)
        assert failed.savepoint_path == old
        never = ["--wait-for", str(tmp_path / "never")]
        flink_hook.run_python_job(failed.job_id, tiny_job, never, savepoint_path=old)
        wait_for(lambda: flink_hook.checkpoints(failed.job_id).latest.restored)
        cancel(flink_hook, failed.job_id)
        if noticed == "by the next try":
            failed = deploy("b", **of_it)
        self.fail(servers, flink_hook, failed)

        assert restore(failed).savepoint_path == SAVEPOINT
        assert {each.savepoint_path for each in attempts(servers)} == {None, SAVEPOINT}

    def test_continues_from_its_savepoint_when_the_job_that_failed_has_other_features(
        self, servers, flink_hook, deploy, first, restore, retain
    ):
        failed = deploy("b", first.job_id, SAVEPOINT, features=["pressure"])
        retain(failed.job_id, 1)
        self.fail(servers, flink_hook, failed)

        assert restore(failed).savepoint_path == SAVEPOINT

    def test_sends_the_hyperparameters_that_the_fleet_had_been_tuned_to_and_since_when(
        self, servers, flink_hook, deploy, first, restore
    ):
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            control.queue_hyperparameters(cursor, Hyperparameters(learning_rate=0.75))
        failed = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5)
        self.fail(servers, flink_hook, failed)

        restore(failed)

        assert queued_controls(servers)[-1] == TrainingControl(
            4, Hyperparameters(learning_rate=0.75), fleet_revision=2
        )

    def test_comes_back_when_the_run_that_stopped_it_was_cut_short_and_another_fails_as_well(
        self, servers, flink_hook, deploy, first
    ):
        posted = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5)
        resumed = open_resumed(servers, flink_hook)
        assert resumed == posted
        self.fail(servers, flink_hook, resumed)

        restored = open_restored(
            servers, flink_hook, deployment_id="heal", failed_job=resumed.job_id,
            stopped_job=None, savepoint=None,
        )  # fmt: skip

        assert (restored.savepoint_path, restored.arguments) == (SAVEPOINT, first.arguments)

    def test_is_none_for_a_deployment_that_had_started_and_is_resumed_in_vain(
        self, servers, flink_hook, deploy, first
    ):
        second = deploy("b", first.job_id, SAVEPOINT)
        record_active(servers.database_url, second.job_id)
        suspend(servers, second.job_id, SAVEPOINT)
        resumed = open_resumed(servers, flink_hook)
        self.fail(servers, flink_hook, resumed)

        restored = open_restored(
            servers, flink_hook, deployment_id="heal", failed_job=resumed.job_id,
            stopped_job=None, savepoint=None,
        )  # fmt: skip

        assert restored is None
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            assert deployments.expected(cursor).job_id == second.job_id

    def test_is_of_what_was_stopped_although_nobody_came_to_record_it(
        self, servers, flink_hook, deploy, first
    ):
        restored = open_restored(
            servers, flink_hook, deployment_id="b", stopped_job=first.job_id, savepoint=SAVEPOINT
        )

        assert (restored.savepoint_path, restored.arguments) == (SAVEPOINT, first.arguments)
        assert [attempt.status for attempt in attempts(servers)] == [
            AttemptStatus.SUBMITTING,
            AttemptStatus.SUSPENDED,
        ]

    def test_is_none_when_nothing_was_stopped(self, servers, flink_hook, deploy, restore):
        failed = deploy("a")
        self.fail(servers, flink_hook, failed)

        assert restore(failed) is None
        assert outcome_of_failure(servers.database_url, flink_hook, "a", "too slow") == (
            "a has failed, and no training job runs now, for none ran before it."
            " Why it failed: too slow"
        )

    def test_leaves_what_was_deployed_since_alone(
        self, servers, flink_hook, deploy, first, restore
    ):
        failed = deploy("b", first.job_id, SAVEPOINT)
        self.fail(servers, flink_hook, failed)
        third = deploy("c")

        assert restore(failed) == third


class TestSubmitting:
    def test_is_allowed_while_the_attempt_is_open(self, servers, deploy):
        submission = deploy("a")

        with (
            submitting(servers.database_url, submission.job_id),
            connect(servers.database_url) as connection,
            connection.cursor() as cursor,
        ):
            assert is_held(cursor, Lock.SUBMISSIONS)

    def test_is_refused_once_another_deployment_has_taken_its_place(self, servers, deploy):
        first = deploy("a")
        record_active(servers.database_url, deploy("b").job_id)

        with (
            pytest.raises(AirflowFailException, match="is failed in training_deployments"),
            submitting(servers.database_url, first.job_id),
        ):
            pytest.fail("the job would be posted")


class TestFailedJob:
    def test_is_that_of_an_attempt_that_has_not_started(self, servers, flink_hook, deploy):
        job_id = deploy("a").job_id

        assert failed_job(servers.database_url, flink_hook, job_id) == job_id

    def test_is_none_when_no_attempt_was_opened(self, servers, flink_hook):
        assert failed_job(servers.database_url, flink_hook, None) == ""

    def test_is_not_the_job_that_an_earlier_try_of_the_run_has_started(
        self, servers, flink_hook, deploy
    ):
        started = deploy("a").job_id
        record_active(servers.database_url, started)
        failed = deploy("b", stopped_job=started, savepoint=SAVEPOINT).job_id
        record_failure(servers.database_url, flink_hook, failed, "too slow")
        restored = deploy("a").job_id
        record_active(servers.database_url, restored)

        for job_id in (started, failed, restored):
            assert failed_job(servers.database_url, flink_hook, job_id) == ""


class TestRecord:
    def test_of_a_failure_keeps_the_reason(self, servers, flink_hook, deploy):
        job_id = deploy("a").job_id
        record_failure(servers.database_url, flink_hook, job_id, "ValueError: no such feature")

        [attempt] = attempts(servers)
        assert (attempt.status, attempt.reason) == (
            AttemptStatus.FAILED,
            "ValueError: no such feature",
        )

    def test_of_a_failure_leaves_a_job_that_had_started_before_to_be_resumed(
        self, servers, flink_hook, deploy
    ):
        job_id = deploy("a").job_id
        record_active(servers.database_url, job_id)

        record_failure(servers.database_url, flink_hook, job_id, "it restarts and restarts")

        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            expected = deployments.expected(cursor)
        assert (expected.job_id, expected.status) == (job_id, AttemptStatus.ACTIVE)
        assert outcome_of_failure(servers.database_url, flink_hook, "b", "it restarts").startswith(
            f"b has failed, and deployment {expected.deployment_id} should run and does not;"
        )


class TestFailureOfAJobThatHadStarted:
    @pytest.fixture
    def started(self, servers, deploy, running_deployment):
        job_id = deploy("a", suffix=running_deployment).job_id
        record_active(servers.database_url, job_id)
        return job_id

    def test_leaves_it_alone_while_it_runs(self, servers, flink_hook, started):
        assert failed_job(servers.database_url, flink_hook, started) == ""

        record_failure(servers.database_url, flink_hook, started, "a person marked it as failed")

        [attempt] = attempts(servers)
        assert (attempt.status, attempt.reason) == (AttemptStatus.ACTIVE, None)

    # From here on the job that they share has ended.
    def test_opens_another_attempt_once_it_was_ended_from_its_newest_checkpoint(
        self, servers, flink_hook, started
    ):
        cancel(flink_hook, started)
        assert failed_job(servers.database_url, flink_hook, started) == started

        for _ in range(2):
            record_failure(servers.database_url, flink_hook, started, "it restarts and restarts")

        following, ended = attempts(servers)
        assert (ended.status, ended.reason) == (
            AttemptStatus.SUSPENDED,
            "it restarts and restarts",
        )
        assert f"/{started}/chk-" in ended.savepoint_path
        assert following.restored_from == ended.savepoint_path
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            assert deployments.expected(cursor) == following
        assert open_resumed(servers, flink_hook).job_id == following.job_id

    def test_before_it_was_recorded_as_active_is_one_of_its_attempt_with_the_state_that_it_left(
        self, servers, flink_hook, deploy, running_deployment
    ):
        posted = deploy("a", suffix=running_deployment)
        with submitting(servers.database_url, posted.job_id):
            cancel(flink_hook, posted.job_id)

        open_resumed(servers, flink_hook)

        opened, ended = attempts(servers)
        assert (ended.job_id, ended.status) == (posted.job_id, AttemptStatus.FAILED)
        assert f"/{posted.job_id}/chk-" in ended.savepoint_path
        assert opened.restored_from == ended.savepoint_path


def test_without_a_running_job_there_is_none_to_replace(servers, flink_hook, deploy):
    deploy("a")

    assert find_running_job(servers, flink_hook, PARAMS) is None
