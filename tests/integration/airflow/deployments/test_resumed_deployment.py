"""What `up` and the health gate take up again."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.storage import deployments
from flead.storage.connection import connect
from flead_airflow.connections import Servers
from flead_airflow.deployments import open_resumed, record_active, record_failure
from flead_airflow.flink.errors import FlinkStateError
from tests.integration.airflow.deployments.attempts import (
    CONFIGURATION,
    SAVEPOINT,
    queued_controls,
    suspend,
)

pytestmark = pytest.mark.servers


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
