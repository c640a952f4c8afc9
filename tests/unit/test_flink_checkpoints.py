"""Retained checkpoints that are found without a JobManager."""

import os

import pytest

from flead_airflow.flink.checkpoints import newest_retained_state

JOB = "00000000000000000000000000000001"


def checkpoint(folder, number, job=JOB, complete=True):
    path = folder / job / f"chk-{number}"
    path.mkdir(parents=True)
    if complete:
        (path / "_metadata").touch()
    return path


def test_the_newest_by_number_is_found(tmp_path):
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)

    assert newest_retained_state(tmp_path.as_uri(), None, JOB) == newest.as_uri()
    assert newest_retained_state(str(tmp_path), None, JOB) == newest.as_uri()


def test_one_without_metadata_was_never_completed(tmp_path):
    complete = checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 5, complete=False)

    assert newest_retained_state(tmp_path.as_uri(), None, JOB) == complete.as_uri()


def test_those_of_other_jobs_and_other_folders_do_not_count(tmp_path):
    checkpoint(tmp_path, 4, job="00000000000000000000000000000002")
    (tmp_path / JOB / "shared").mkdir(parents=True)

    assert newest_retained_state(tmp_path.as_uri(), None, JOB) is None


@pytest.mark.parametrize(("taken_at", "newest"), [(1_000, "chk-3"), (3_000, "savepoint-000000-a")])
def test_a_savepoint_counts_when_it_is_newer_than_the_checkpoints(tmp_path, taken_at, newest):
    retained = checkpoint(tmp_path / "checkpoints", 3)
    savepoint = tmp_path / "savepoints" / "savepoint-000000-a"
    savepoint.mkdir(parents=True)
    (savepoint / "_metadata").touch()
    os.utime(retained / "_metadata", (2_000, 2_000))
    os.utime(savepoint / "_metadata", (taken_at, taken_at))
    (tmp_path / "savepoints" / "savepoint-000000-b").mkdir()

    directories = (str(tmp_path / "checkpoints"), str(tmp_path / "savepoints"))
    assert newest_retained_state(*directories, JOB).endswith(f"/{newest}")


def test_a_folder_with_blanks_in_its_name_is_read(tmp_path):
    folder = tmp_path / "check points"
    path = checkpoint(folder, 1)

    assert newest_retained_state(folder.as_uri(), None, JOB) == path.as_uri()


def test_another_file_system_is_refused_by_name():
    with pytest.raises(ValueError, match="s3://bucket/checkpoints"):
        newest_retained_state("s3://bucket/checkpoints", None, JOB)
