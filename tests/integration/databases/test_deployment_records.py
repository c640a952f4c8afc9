"""Attempts of the training job as they are stored, on plain PostgreSQL and on TimescaleDB."""

import msgspec
import psycopg2
import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.contracts.schema import feature_schema
from flead.storage import deployments
from flead.storage.deployments import AttemptStateError, AttemptStatus

pytestmark = pytest.mark.servers

CONFIGURATION = TrainingDeployment(features=["x", "y"], bootstrap_servers="127.0.0.1:1")


def test_an_attempt_is_stored_before_its_job_runs_and_taken_up_again(cursor):
    opened = deployments.open_attempt(cursor, "d", CONFIGURATION)
    # sha256("d/1"), by coreutils
    assert opened.job_id == "7b2bc40aabb9ae205e31503f2e2742db"
    assert opened.status is AttemptStatus.SUBMITTING
    assert opened.configuration == CONFIGURATION
    assert deployments.open_attempt(cursor, "d", CONFIGURATION) == opened
    assert deployments.current_features(cursor) == ["x", "y"]


def test_an_attempt_is_posted_once_and_an_active_one_was(cursor):
    first = deployments.open_attempt(cursor, "d", CONFIGURATION)
    assert first.posted_at is None
    deployments.mark_posted(cursor, first.job_id)
    posted_at = deployments.attempt_of(cursor, first.job_id).posted_at
    assert posted_at is not None
    assert deployments.mark_active(cursor, first.job_id).posted_at == posted_at
    second = deployments.open_attempt(cursor, "e", CONFIGURATION)
    assert deployments.mark_active(cursor, second.job_id).posted_at is not None


def test_a_failed_attempt_is_followed_by_another_job(cursor):
    first = deployments.open_attempt(cursor, "d", CONFIGURATION)
    failed = deployments.mark_failed(cursor, first.job_id, "no slots", "file:///chk-1")
    assert (failed.status, failed.reason) == (AttemptStatus.FAILED, "no slots")
    assert failed.savepoint_path == "file:///chk-1"
    second = deployments.open_attempt(cursor, "d", CONFIGURATION, "file:///savepoint")
    assert (second.attempt, second.restored_from) == (2, "file:///savepoint")
    assert second.job_id != first.job_id
    assert deployments.newest_attempts(cursor) == [second, failed]


def test_the_active_job_supersedes_the_one_before(cursor):
    first = deployments.open_attempt(cursor, "d", CONFIGURATION)
    deployments.mark_active(cursor, first.job_id)
    other = msgspec.structs.replace(CONFIGURATION, features=["z"])
    second = deployments.open_attempt(cursor, "e", other)
    assert deployments.current_features(cursor) == ["x", "y"]
    active = deployments.mark_active(cursor, second.job_id)
    assert deployments.mark_active(cursor, second.job_id) == active
    assert deployments.active(cursor) == active
    assert deployments.current_features(cursor) == ["z"]
    with pytest.raises(AttemptStateError, match="is superseded"):
        deployments.mark_active(cursor, first.job_id)


def test_the_features_in_training_are_those_of_a_suspended_job_until_another_starts(cursor):
    job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
    deployments.mark_active(cursor, job)
    deployments.mark_suspended(cursor, job, "flead down", "file:///s1")
    assert deployments.current_features(cursor) == ["x", "y"]
    other = msgspec.structs.replace(CONFIGURATION, features=["z"])
    starting = deployments.open_attempt(cursor, "e", other)
    assert deployments.current_features(cursor) == ["z"]
    deployments.mark_failed(cursor, starting.job_id, "no slots")
    assert deployments.current_features(cursor) == ["x", "y"]
    deployments.mark_stopped(cursor, job, "by hand", "file:///s2")
    assert deployments.current_features(cursor) is None


def test_a_suspended_job_is_resumed_and_a_stopped_one_is_not(cursor):
    job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
    active = deployments.mark_active(cursor, job)
    assert deployments.resumable(cursor) == active
    suspended = deployments.mark_suspended(cursor, job, "flead down", "file:///s1")
    assert deployments.active(cursor) is None
    assert deployments.resumable(cursor) == suspended
    retry = deployments.open_attempt(cursor, "d", CONFIGURATION, "file:///s1")
    deployments.mark_failed(cursor, retry.job_id, "no slots")
    assert deployments.resumable(cursor) == suspended
    deployments.mark_stopped(cursor, job, "by hand", "file:///s2")
    assert deployments.resumable(cursor) is None


def test_a_stop_and_its_savepoint_are_each_recorded_once_as_an_event_of_its_own(cursor):
    job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
    for _ in range(2):
        deployments.mark_stopped(cursor, job, "redeployed", "file:///s1")
    cursor.execute(
        "SELECT kind, status, savepoint_path, reason FROM training_deployments ORDER BY id"
    )
    assert cursor.fetchall() == [
        ("submit", "stopped", "file:///s1", "redeployed"),
        ("savepoint", "completed", "file:///s1", "redeployed"),
        ("stop", "completed", "file:///s1", "redeployed"),
    ]


@pytest.mark.parametrize("left", [None, "file:///checkpoints/7b2b/chk-12"])
def test_a_stop_without_a_savepoint_records_none(cursor, left):
    job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id

    deployments.mark_suspended(cursor, job, "cancelled", left)

    cursor.execute("SELECT kind, savepoint_path FROM training_deployments ORDER BY id")
    assert cursor.fetchall() == [("submit", left), ("stop", left)]


def test_two_attempts_cannot_be_active(cursor):
    for name in ("d", "e"):
        deployments.open_attempt(cursor, name, CONFIGURATION)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("UPDATE training_deployments SET status = 'active'")


def test_an_unknown_job_is_an_error(cursor):
    with pytest.raises(AttemptStateError, match="never opened"):
        deployments.mark_active(cursor, "0" * 32)


class TestManyFailures:
    """Of more attempts than anybody lists."""

    SCHEMA = feature_schema(CONFIGURATION.features)

    @pytest.fixture
    def stopped(self, cursor):
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        deployments.mark_active(cursor, job)
        return deployments.mark_suspended(cursor, job, "lost", "file:///s1")

    def fail(self, cursor, times, savepoint=None, **changes):
        for _ in range(times):
            configuration = msgspec.structs.replace(CONFIGURATION, **changes)
            attempt = deployments.open_attempt(cursor, "d", configuration)
            deployments.mark_failed(cursor, attempt.job_id, "no such module", savepoint)

    def test_hide_neither_the_last_that_got_anywhere_nor_the_one_to_resume(self, cursor, stopped):
        self.fail(cursor, 101)

        assert deployments.last_with_progress(cursor, self.SCHEMA, 64) == stopped
        assert deployments.expected(cursor) == stopped

    def test_do_not_hide_one_of_them_that_left_state_of_the_same_kind(self, cursor, stopped):
        self.fail(cursor, 1, "file:///chk-7")
        self.fail(cursor, 1, "file:///chk-8", features=["z"])
        self.fail(cursor, 1, "file:///chk-9", buckets=32)
        self.fail(cursor, 2)

        found = deployments.last_with_progress(cursor, self.SCHEMA, 64)
        assert (found.status, found.savepoint_path) == (AttemptStatus.FAILED, "file:///chk-7")
        others = feature_schema(["z"])
        assert deployments.last_with_progress(cursor, others, 64).savepoint_path == "file:///chk-8"

    def test_do_not_hide_a_job_that_runs(self, cursor):
        job = deployments.open_attempt(cursor, "a", CONFIGURATION).job_id
        active = deployments.mark_active(cursor, job)
        self.fail(cursor, 101)

        assert deployments.unfinished_attempts(cursor) == [active]


class TestReplacement:
    CONTROL = TrainingControl(7, Hyperparameters(learning_rate=0.5), fleet_revision=4)

    @pytest.fixture
    def stopped(self, cursor):
        """Stop an active job for the deployment `e`."""
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        deployments.mark_active(cursor, job)
        return deployments.mark_replaced(cursor, job, "e", "file:///s1", self.CONTROL)

    @pytest.fixture
    def failed(self, cursor, stopped):
        job = deployments.open_attempt(cursor, "e", CONFIGURATION, stopped.savepoint_path).job_id
        return deployments.mark_failed(cursor, job, "no slots", "file:///chk-1")

    def test_names_the_job_that_was_stopped_for_a_deployment(self, cursor, stopped):
        assert (stopped.status, stopped.reason) == (
            AttemptStatus.STOPPED,
            "replaced by deployment e",
        )
        assert deployments.replaced_by(cursor, "e") == stopped
        assert deployments.replaced_by(cursor, "d") is None

    def test_that_failed_lets_what_it_replaced_be_resumed_once(self, cursor, stopped, failed):
        assert deployments.expected(cursor) is None

        assert deployments.reinstate(cursor, stopped.job_id, "e has not started")

        resumable = deployments.resumable(cursor)
        assert (resumable.job_id, resumable.status) == (stopped.job_id, AttemptStatus.SUSPENDED)
        assert (resumable.reason, resumable.savepoint_path) == ("e has not started", "file:///s1")
        assert deployments.expected(cursor) == resumable
        assert not deployments.reinstate(cursor, stopped.job_id, "again")
        assert deployments.resumable(cursor) == resumable

    def test_of_what_is_down_is_no_other_stop(self, cursor, stopped, failed):
        deployments.reinstate(cursor, stopped.job_id, "e has not started")
        deployments.mark_replaced(cursor, stopped.job_id, "f", "file:///s1", self.CONTROL)

        assert deployments.replaced_by(cursor, "f").status is AttemptStatus.STOPPED
        cursor.execute("SELECT kind FROM training_deployments WHERE status = 'completed'")
        assert sorted(kind for (kind,) in cursor.fetchall()) == ["savepoint", "stop"]

    def test_keeps_what_the_fleet_trained_with_when_the_job_was_stopped(self, cursor, stopped):
        assert deployments.trained_with(cursor, stopped) == (self.CONTROL.hyperparameters, 4)

    def test_by_one_that_was_cut_off_is_by_the_one_after_it(self, cursor, stopped):
        cut_off = deployments.open_attempt(cursor, "e", CONFIGURATION, stopped.savepoint_path)

        given_back = deployments.give_up(cursor, cut_off, "f", None)

        assert given_back == deployments.replaced_by(cursor, "f") == stopped
        assert deployments.newest_attempts(cursor)[0].status is AttemptStatus.FAILED

    def test_stays_with_one_that_was_cut_off_after_something_had_started_since(
        self, cursor, stopped, failed
    ):
        restored = deployments.open_attempt(cursor, "d", CONFIGURATION, "file:///chk-1")
        deployments.mark_active(cursor, restored.job_id)
        cut_off = deployments.open_attempt(cursor, "e", CONFIGURATION)

        assert deployments.give_up(cursor, cut_off, "f", None) is None
        assert deployments.replaced_by(cursor, "f") is None

    def test_of_a_fleet_that_was_told_nothing_is_brought_back_with_its_own_hyperparameters(
        self, cursor
    ):
        job = deployments.open_attempt(cursor, "d", CONFIGURATION).job_id
        replaced = deployments.mark_replaced(cursor, job, "e", None, None)

        assert deployments.trained_with(cursor, replaced) == (CONFIGURATION.hyperparameters, None)

    def test_is_not_brought_back_over_what_was_opened_since(self, cursor, stopped, failed):
        newer = deployments.open_attempt(cursor, "f", CONFIGURATION)

        assert not deployments.reinstate(cursor, stopped.job_id, "too late")
        assert deployments.resumable(cursor) == newer

    def test_that_is_restored_keeps_the_reason(self, cursor, stopped, failed):
        deployments.reinstate(cursor, stopped.job_id, "e has not started")
        restored = deployments.open_attempt(
            cursor, "d", CONFIGURATION, "file:///chk-1", "e has not started"
        )

        active = deployments.mark_active(cursor, restored.job_id)

        assert (active.attempt, active.reason) == (2, "e has not started")
        assert deployments.attempt_of(cursor, stopped.job_id).status is AttemptStatus.SUPERSEDED


class TestOldStates:
    """Six jobs, one after the other, of which each was restored from the savepoint before."""

    @pytest.fixture
    def jobs(self, cursor):
        jobs, state = [], None
        for name in "abcdef":
            job = deployments.open_attempt(cursor, name, CONFIGURATION, state).job_id
            deployments.mark_active(cursor, job)
            state = f"file:/savepoints/savepoint-{job[:6]}-0"
            deployments.mark_stopped(cursor, job, "replaced", state)
            jobs.append(job)
        return jobs

    def test_are_those_of_jobs_before_the_newest_and_what_they_were_restored_from(
        self, cursor, jobs
    ):
        # the fifth was restored from the fourth
        assert deployments.jobs_with_old_states(cursor, kept=2) == jobs[:3]
        assert deployments.jobs_with_old_states(cursor, kept=20) == []

    def test_are_none_of_a_job_whose_checkpoint_a_kept_one_was_restored_from(self, cursor, jobs):
        restored_from = f"s3://bucket/checkpoints/{jobs[1]}/chk-7"
        deployments.open_attempt(cursor, "g", CONFIGURATION, restored_from)

        # the sixth is what comes back when this one does not start, and was restored from the fifth
        assert deployments.jobs_with_old_states(cursor, kept=1) == [jobs[0], *jobs[2:4]]

    def test_are_none_of_what_may_still_be_resumed_however_many_failed_since(self, cursor, jobs):
        for name in "ghijk":
            failed = deployments.open_attempt(cursor, name, CONFIGURATION)
            deployments.mark_posted(cursor, failed.job_id)
            deployments.mark_failed(cursor, failed.job_id, "no slots")

        assert deployments.jobs_with_old_states(cursor, kept=1) == jobs[:4]

    def test_are_none_of_a_job_that_was_never_posted_or_whose_states_were_deleted(
        self, cursor, jobs
    ):
        deployments.mark_states_deleted(cursor, jobs[0])
        cursor.execute(
            "UPDATE training_deployments SET posted_at = NULL WHERE job_id = %s", (jobs[1],)
        )

        assert deployments.jobs_with_old_states(cursor, kept=2) == [jobs[2]]

    def test_are_named_by_what_left_them_and_by_what_was_restored_from_them(self, cursor, jobs):
        checkpoint = f"s3://bucket/checkpoints/{jobs[1]}/chk-7"
        deployments.open_attempt(cursor, "g", CONFIGURATION, checkpoint)

        assert set(deployments.named_states(cursor)) == {
            checkpoint,
            *(f"file:/savepoints/savepoint-{job[:6]}-0" for job in jobs),
        }
