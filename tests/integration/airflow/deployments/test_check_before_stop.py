"""What would refuse a deployment is found while the job that it is to replace still runs."""

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException

from flead_airflow.deployments import (
    find_running_job,
    open_resumed,
    record_active,
    record_failure,
    submitting,
)
from flead_airflow.flink.errors import FlinkStateError
from flead_airflow.flink.responses import JobStatus
from tests.integration.airflow.deployments.attempts import (
    PARAMS,
    SAVEPOINT,
    attempts,
    queued_controls,
)

pytestmark = pytest.mark.servers


def test_without_a_running_job_there_is_none_to_replace(servers, flink_hook, deploy):
    deploy("a")

    assert find_running_job(servers, flink_hook, PARAMS) is None


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
        with submitting(servers.database_url, flink_hook, cut_short.job_id):
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
