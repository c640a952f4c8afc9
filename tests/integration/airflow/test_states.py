"""Old savepoints and checkpoints of the training job are deleted by a real cluster."""

import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flead.contracts.deployment import TrainingDeployment
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead_airflow.flink.checkpoints import StateDirectories
from flead_airflow.flink.errors import FlinkStateError
from flead_airflow.flink.hook import FlinkRestHook
from flead_airflow.states import StatesNotDeletedError, delete_old_states

pytestmark = pytest.mark.servers

CONFIGURATION = TrainingDeployment(features=["pressure"], bootstrap_servers="broker:9092")


@pytest.fixture
def hook(flink_connection, clean_flink):
    with FlinkRestHook(flink_connection) as made:
        yield made


@pytest.fixture(scope="module")
def template(flink_connection, tiny_job):
    """Return the folder of a real checkpoint, of a job that was cancelled."""
    job_id = uuid.uuid4().hex
    with FlinkRestHook(flink_connection) as made:
        made.run_python_job(job_id, tiny_job)
        while not (newest := made.checkpoints(job_id).latest.completed):
            pass
        made.cancel(job_id)
        while not made.job(job_id).state.ended:
            pass
        newest = made.settled_checkpoints(job_id).latest.completed
    return folder_of(newest.external_path)


def folder_of(uri):
    return Path(urlsplit(uri).path)


@pytest.fixture
def states(hook, template):
    """Lay out states of jobs as Flink does; return their folders."""
    directories = StateDirectories.of(hook.configuration())

    def copy(folder):
        folder.mkdir(parents=True)
        for file in template.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    class States:
        def checkpoint(self, job, number):
            return copy(folder_of(directories.checkpoints) / job / f"chk-{number}")

        def savepoint(self, job):
            return copy(folder_of(directories.savepoints) / f"savepoint-{job[:6]}-0123456789ab")

    return States()


@pytest.fixture
def attempts(database_url):
    """Store three attempts that were active one after the other; return their jobs."""
    migrate(database_url)
    suffix = uuid.uuid4().hex
    with connect(database_url) as connection, connection.cursor() as cursor:
        jobs = [
            deployments.open_attempt(cursor, f"{name}-{suffix}", CONFIGURATION).job_id
            for name in "abc"
        ]
        for job in jobs[1:]:
            deployments.mark_posted(cursor, job)
        # Makes the others superseded
        deployments.mark_posted(cursor, jobs[0])
        deployments.mark_active(cursor, jobs[2])
    return jobs


def record_savepoint(database_url, job, path):
    with connect(database_url) as connection, connection.cursor() as cursor:
        deployments.mark_stopped(cursor, job, "replaced", path)


class TestHook:
    def test_deletes_a_checkpoint_and_says_of_one_that_is_gone_that_it_was(self, hook, states):
        checkpoint = states.checkpoint(uuid.uuid4().hex, 3)

        assert hook.delete_state(checkpoint.as_uri()) is True
        assert not checkpoint.exists()
        assert hook.delete_state(checkpoint.as_uri()) is False

    def test_says_what_it_could_not_delete(self, hook, states):
        checkpoint = states.checkpoint(uuid.uuid4().hex, 3)
        (checkpoint / "_metadata").write_text("no metadata")

        with pytest.raises(FlinkStateError, match=rf"Could not dispose savepoint.*{checkpoint}"):
            hook.delete_state(checkpoint.as_uri())


class TestOldStates:
    def test_of_the_jobs_before_the_newest_go_and_no_others(
        self, hook, states, attempts, database_url
    ):
        old, previous, active = attempts
        doomed = [states.checkpoint(old, 3), states.checkpoint(old, 4), states.savepoint(old)]
        kept = [states.savepoint(previous), states.checkpoint(active, 1)]
        # Flink writes its paths so
        record_savepoint(database_url, old, f"file:{doomed[2]}")

        assert delete_old_states(database_url, hook, kept=2) == 3

        assert [folder.exists() for folder in doomed] == [False] * 3
        assert [(folder / "_metadata").exists() for folder in kept] == [True] * 2
        assert delete_old_states(database_url, hook, kept=2) == 0

    def test_a_savepoint_that_lies_elsewhere_is_a_persons_own(
        self, hook, states, attempts, database_url, tmp_path
    ):
        savepoint = states.savepoint(attempts[0])
        own = tmp_path / savepoint.name
        savepoint.rename(own)
        record_savepoint(database_url, attempts[0], own.as_uri())

        assert delete_old_states(database_url, hook, kept=2) == 0

        assert (own / "_metadata").exists()

    def test_one_that_is_gone_does_not_keep_the_others(self, hook, states, attempts, database_url):
        checkpoint = states.checkpoint(attempts[0], 3)
        savepoint = states.savepoint(attempts[0])
        record_savepoint(database_url, attempts[0], savepoint.as_uri())
        assert hook.delete_state(savepoint.as_uri())

        assert delete_old_states(database_url, hook, kept=2) == 1

        assert not checkpoint.exists()

    def test_one_that_cannot_be_deleted_is_reported_and_tried_again(
        self, hook, states, attempts, database_url
    ):
        broken = states.checkpoint(attempts[0], 3)
        whole = (broken / "_metadata").read_bytes()
        (broken / "_metadata").write_text("no metadata")
        other = states.checkpoint(attempts[1], 5)

        with pytest.raises(StatesNotDeletedError, match=rf"job {attempts[0]}: .*Could not dispose"):
            delete_old_states(database_url, hook, kept=1)
        assert not other.exists()

        (broken / "_metadata").write_bytes(whole)
        assert delete_old_states(database_url, hook, kept=1) == 1
        assert not broken.exists()

    def test_of_a_job_that_still_runs_stay(self, hook, attempts, database_url, tiny_job):
        hook.run_python_job(attempts[0], tiny_job)

        with pytest.raises(StatesNotDeletedError, match="though other attempts have followed it"):
            delete_old_states(database_url, hook, kept=2)

        assert not hook.job(attempts[0]).state.ended

    def test_are_none_without_a_cluster_to_ask(self, database_url, attempts, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", "http://127.0.0.1:9")

        assert delete_old_states(database_url, FlinkRestHook("nowhere"), kept=20) == 0
