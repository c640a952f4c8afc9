"""What runs again after a deployment has failed."""

from urllib.parse import urlsplit

import pytest

from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.storage import control, deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead_airflow.deployments import (
    open_restored,
    open_resumed,
    outcome_of_failure,
    record_active,
    record_failure,
    submitting,
)
from flead_airflow.flink.errors import FlinkStateError
from tests.integration.airflow.deployments.attempts import (
    AS_BEFORE,
    CONFIGURATION,
    SAVEPOINT,
    attempts,
    cancel,
    configured,
    queued_controls,
    savepoint_of_tiny_job,
    suspend,
)
from tests.integration.airflow.waiting import wait_for

pytestmark = pytest.mark.servers


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
        cut_off = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5, **mistake)
        with submitting(servers.database_url, flink_hook, cut_off.job_id):
            pass  # the post gets lost

        corrected = deploy("c", **AS_BEFORE)

        assert corrected.savepoint_path == SAVEPOINT
        assert configured(corrected) == CONFIGURATION
        # Devices that have not come to train with others keep their own rates.
        assert queued_controls(servers)[-1] == TrainingControl(
            4, CONFIGURATION.hyperparameters, fleet_revision=1
        )
        assert [each.status for each in attempts(servers)] == [
            AttemptStatus.SUBMITTING,
            AttemptStatus.FAILED,
            AttemptStatus.STOPPED,
        ]

        self.fail(servers, flink_hook, corrected)
        restored = restore(corrected)

        assert restored.savepoint_path == SAVEPOINT
        assert restored.arguments == first.arguments

    def test_should_run_from_the_failure_on_though_nobody_comes_to_open_it(
        self, servers, flink_hook, deploy, first
    ):
        failed = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5)

        for _ in range(2):
            self.fail(servers, flink_hook, failed)

        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            assert deployments.expected(cursor).job_id == first.job_id
        rates = [control.hyperparameters.learning_rate for control in queued_controls(servers)]
        assert rates == [0.25, 0.5, 0.25]
        healed = open_resumed(servers, flink_hook)
        assert (healed.savepoint_path, healed.arguments) == (SAVEPOINT, first.arguments)

    @pytest.mark.parametrize("down", ["suspended", "lost"])
    def test_is_of_what_was_down_when_it_was_deployed(
        self, servers, flink_hook, deploy, first, restore, retain, down
    ):
        if down == "suspended":
            suspend(servers, first.job_id, SAVEPOINT)
        newest = SAVEPOINT if down == "suspended" else retain(first.job_id, 7)
        cut_off = deploy("b", learning_rate=0.5, features=["pressure"])
        corrected = deploy("c", **AS_BEFORE)
        assert configured(corrected) == CONFIGURATION
        self.fail(servers, flink_hook, corrected)

        restored = restore(corrected)

        assert cut_off.savepoint_path is None
        assert (restored.savepoint_path, restored.arguments) == (newest, first.arguments)
        rates = [control.hyperparameters.learning_rate for control in queued_controls(servers)]
        assert rates == [0.25, 0.5, 0.25, 0.25, 0.25]

    def test_is_of_an_earlier_attempt_of_a_run_that_was_cleared_and_cut_off(
        self, servers, flink_hook, deploy, first, restore
    ):
        deploy("a", first.job_id, SAVEPOINT, learning_rate=0.5)
        corrected = deploy("c", **AS_BEFORE)
        self.fail(servers, flink_hook, corrected)

        restored = restore(corrected)

        assert configured(corrected) == CONFIGURATION
        assert (restored.savepoint_path, restored.arguments) == (SAVEPOINT, first.arguments)

    def test_has_what_the_fleet_trained_with_before_all_tries_of_a_run(
        self, servers, flink_hook, deploy, first, restore
    ):
        deploy("b", first.job_id, SAVEPOINT, learning_rate=0.5)
        failed = deploy("b", first.job_id, SAVEPOINT, learning_rate=0.75)
        self.fail(servers, flink_hook, failed)

        restore(failed)

        rates = [control.hyperparameters.learning_rate for control in queued_controls(servers)]
        assert rates == [0.25, 0.5, 0.75, 0.25]

    @pytest.mark.parametrize(
        ("is_stopped", "params"),
        [(False, {"restore_from": "s3://bucket/checkpoints/7b2b/chk-7"}), (True, {"fresh": True})],
    )
    def test_is_not_of_a_lost_job_whose_state_cannot_be_looked_for(
        self, servers, flink_hook, deploy, first, restore, monkeypatch, is_stopped, params
    ):
        out_of_reach = flink_hook.configuration() | {
            "execution.checkpointing.dir": "s3://bucket/checkpoints"
        }
        monkeypatch.setattr(flink_hook, "configuration", lambda: out_of_reach)
        failed = deploy("b", first.job_id if is_stopped else None, **params)
        self.fail(servers, flink_hook, failed)

        assert restore(failed) is None
        with connect(servers.database_url) as connection, connection.cursor() as cursor:
            assert deployments.expected(cursor).status is AttemptStatus.ACTIVE
        with pytest.raises(FlinkStateError, match=f"forgotten job {first.job_id}"):
            open_resumed(servers, flink_hook)

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

        assert restore(failed) is None
        newest = attempts(servers)[0]
        assert (newest.job_id, newest.status) == (third.job_id, AttemptStatus.SUBMITTING)
