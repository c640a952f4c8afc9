"""What is posted, and what is written down of a job that started or did not."""

import pytest
from airflow.sdk.exceptions import AirflowFailException

from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.deployments import AttemptStatus
from flead.storage.locks import Lock, is_held
from flead_airflow.deployments import (
    failed_job,
    open_resumed,
    outcome_of_failure,
    record_active,
    record_failure,
    submitting,
)
from tests.integration.airflow.deployments.attempts import SAVEPOINT, attempts, cancel

pytestmark = pytest.mark.servers


class TestSubmitting:
    def test_is_allowed_while_the_attempt_is_open(self, servers, flink_hook, deploy):
        submission = deploy("a")

        with (
            submitting(servers.database_url, flink_hook, submission.job_id),
            connect(servers.database_url) as connection,
            connection.cursor() as cursor,
        ):
            assert is_held(cursor, Lock.SUBMISSIONS)

    def test_is_allowed_again_for_a_job_that_left_nothing(self, servers, flink_hook, deploy):
        posted = deploy("a").job_id

        for _ in range(2):
            with submitting(servers.database_url, flink_hook, posted):
                pass  # the post gets lost

        assert attempts(servers)[0].status is AttemptStatus.SUBMITTING

    def test_is_refused_once_another_deployment_has_taken_its_place(
        self, servers, flink_hook, deploy
    ):
        first = deploy("a")
        record_active(servers.database_url, deploy("b").job_id)

        with (
            pytest.raises(AirflowFailException, match="is failed in training_deployments"),
            submitting(servers.database_url, flink_hook, first.job_id),
        ):
            pytest.fail("the job would be posted")

    @pytest.mark.parametrize("known_by", ["its row", "its checkpoint"])
    def test_is_refused_for_a_job_that_had_started_and_is_lost(
        self, servers, flink_hook, deploy, retain, known_by
    ):
        started = deploy("a").job_id
        if known_by == "its row":
            record_active(servers.database_url, started)
        else:
            with submitting(servers.database_url, flink_hook, started):
                retain(started, 3)

        with (
            pytest.raises(AirflowFailException, match=f"{started} had started.* a new run"),
            submitting(servers.database_url, flink_hook, started),
        ):
            pytest.fail("the job would start again where it began")


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
        with submitting(servers.database_url, flink_hook, started):
            pass  # it is taken up as it is

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
        with submitting(servers.database_url, flink_hook, posted.job_id):
            cancel(flink_hook, posted.job_id)

        open_resumed(servers, flink_hook)

        opened, ended = attempts(servers)
        assert (ended.job_id, ended.status) == (posted.job_id, AttemptStatus.FAILED)
        assert f"/{posted.job_id}/chk-" in ended.savepoint_path
        assert opened.restored_from == ended.savepoint_path
