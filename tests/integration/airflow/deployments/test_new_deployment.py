"""What a new deployment opens, and the state that it continues from."""

import msgspec
import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import GlobalModel, Hyperparameters, TrainingControl
from flead.contracts.simulation import FEATURES
from flead.storage import control, outbox
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead_airflow.deployments import check_params, record_active, record_failure
from tests.integration.airflow.deployments.attempts import (
    CONFIGURATION,
    EMPTY,
    PARAMS,
    SAVEPOINT,
    attempts,
    configured,
    insert_promoted,
    queued_controls,
)

pytestmark = pytest.mark.servers


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
