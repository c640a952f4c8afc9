"""Retained checkpoints that are found without a JobManager."""

import os

import pytest

from flead_airflow.flink.checkpoints import (
    StateDirectories,
    is_same_state,
    newest_retained_state,
)
from flead_airflow.flink.errors import FlinkStateError

JOB = "00000000000000000000000000000001"


def newest(checkpoints, savepoints="/nowhere"):
    return newest_retained_state(StateDirectories(str(checkpoints), str(savepoints)), JOB)


def checkpoint(folder, number, job=JOB, complete=True):
    path = folder / job / f"chk-{number}"
    path.mkdir(parents=True)
    if complete:
        (path / "_metadata").touch()
    return path


def test_the_newest_by_number_is_found(tmp_path):
    checkpoint(tmp_path, 9)
    tenth = checkpoint(tmp_path, 10)

    assert newest(tmp_path.as_uri()) == tenth.as_uri()
    assert newest(tmp_path) == tenth.as_uri()


def test_one_without_metadata_was_never_completed(tmp_path):
    complete = checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 5, complete=False)

    assert newest(tmp_path) == complete.as_uri()


def test_those_of_other_jobs_and_other_folders_do_not_count(tmp_path):
    checkpoint(tmp_path, 4, job="00000000000000000000000000000002")
    (tmp_path / JOB / "shared").mkdir(parents=True)

    assert newest(tmp_path) is None


@pytest.mark.parametrize(
    ("taken_at", "expected"), [(1_000, "chk-3"), (3_000, "savepoint-000000-a")]
)
def test_a_savepoint_counts_when_it_is_newer_than_the_checkpoints(tmp_path, taken_at, expected):
    retained = checkpoint(tmp_path / "checkpoints", 3)
    savepoint = tmp_path / "savepoints" / "savepoint-000000-a"
    savepoint.mkdir(parents=True)
    (savepoint / "_metadata").touch()
    os.utime(retained / "_metadata", (2_000, 2_000))
    os.utime(savepoint / "_metadata", (taken_at, taken_at))
    (tmp_path / "savepoints" / "savepoint-000000-b").mkdir()

    found = newest(tmp_path / "checkpoints", tmp_path / "savepoints")
    assert found.endswith(f"/{expected}")


def test_a_folder_with_blanks_in_its_name_is_read(tmp_path):
    folder = tmp_path / "check points"
    path = checkpoint(folder, 1)

    assert newest(folder.as_uri()) == path.as_uri()


@pytest.mark.parametrize(
    ("directories", "setting"),
    [
        (("s3://bucket/c", "/nowhere"), r"checkpointing\.dir` is s3://bucket/c"),
        (("/nowhere", "hdfs:///s"), r"checkpointing\.savepoint-dir` is hdfs:///s"),
    ],
)
def test_another_file_system_is_refused_by_the_name_of_the_setting(directories, setting):
    with pytest.raises(FlinkStateError, match=setting):
        newest(*directories)


@pytest.mark.parametrize("mounted", ["nothing", "a file"])
def test_checkpoints_that_this_machine_cannot_read_are_not_taken_for_none(tmp_path, mounted):
    folder = tmp_path / "checkpoints"
    if mounted == "a file":
        folder.touch()

    with pytest.raises(FlinkStateError, match=rf"{folder.as_uri()}, cannot be read.*: mount it"):
        newest(folder.as_uri())


def test_checkpoints_of_a_job_that_may_not_be_read_are_not_taken_for_none(tmp_path):
    (tmp_path / JOB).touch()

    with pytest.raises(FlinkStateError, match=f"Not a directory: {tmp_path / JOB}"):
        newest(tmp_path)


def test_savepoints_that_may_not_be_read_are_not_taken_for_none(tmp_path):
    (tmp_path / "savepoints").touch()

    with pytest.raises(FlinkStateError, match=r"`execution\.checkpointing\.savepoint-dir`"):
        newest(tmp_path, tmp_path / "savepoints")


def test_there_may_be_no_folder_of_savepoints_before_the_first(tmp_path):
    path = checkpoint(tmp_path / "checkpoints", 1)

    assert newest(tmp_path / "checkpoints", tmp_path / "savepoints") == path.as_uri()


@pytest.mark.parametrize(
    ("path", "is_held"),
    [
        (f"file:/c/{JOB}/chk-7", True),
        (f"file:///c/{JOB}/chk-7", True),
        (f"/c/{JOB}/chk-7/", True),
        ("file:/s/savepoint-000000-0123456789ab", True),
        (f"file:/backup/{JOB}/chk-7", False),
        ("file:/c/00000000000000000000000000000002/chk-7", False),
        (f"file:/c/{JOB}/shared", False),
        ("file:/s/savepoint-000001-0123456789ab", False),
        ("file:/backup/savepoint-000000-0123456789ab", False),
        (f"s3://c/{JOB}/chk-7", False),
    ],
)
def test_the_state_of_a_job_is_known_by_its_name_and_place(path, is_held):
    directories = StateDirectories("file:///c", "file:///s/")

    assert directories.hold_state_of(JOB, path) is is_held


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("file:/a/chk-3", "file:/a/chk-3", True),
        ("file:/a/chk-3", "file:///a/chk-3", True),
        ("file:/a/chk-3", "/a/chk-3/", True),
        ("file:/a/chk-3", "/a/chk-3/_metadata", True),
        ("s3://bucket/a%20b/chk-3", "s3://bucket/a b/chk-3", True),
        ("s3://bucket/chk-3", "s3://other/chk-3", False),
        ("hdfs://namenode:8020/a/chk-3", "hdfs:///a/chk-3", True),
        ("file:/a/chk-3", "file:/a/chk-30", False),
        ("file:/a/chk-3", None, False),
        (None, None, True),
    ],
)
def test_the_same_state_is_known_however_it_is_written(one, other, are_same):
    assert is_same_state(one, other) is are_same
    assert is_same_state(other, one) is are_same


def test_directories_are_read_under_their_names_of_today_and_of_before():
    assert StateDirectories.of(
        {"execution.checkpointing.dir": "s3://c", "state.savepoints.dir": "s3://s"}
    ) == StateDirectories("s3://c", "s3://s")


@pytest.mark.parametrize(
    ("configuration", "missing"),
    [
        ({}, r"`execution\.checkpointing\.dir`"),
        ({"execution.checkpointing.dir": "/c"}, r"`execution\.checkpointing\.savepoint-dir`"),
    ],
)
def test_a_directory_that_is_not_set_is_named(configuration, missing):
    with pytest.raises(FlinkStateError, match=missing):
        StateDirectories.of(configuration)
