"""The parts of rounds that need no server."""

import pytest

from flead.contracts.messages import Metrics
from flead.rounds.aggregation import sums_by_version
from flead.rounds.artifacts import artifact_path, write_artifact
from flead.rounds.lineage import highest_offsets


class Read:
    """An accepted update of which only the metrics matter."""

    def __init__(self, global_metrics, candidate_metrics=None):
        self.update = self
        self.global_metrics = global_metrics
        self.candidate_metrics = candidate_metrics


def test_sums_are_kept_apart_by_the_version_that_was_scored():
    accepted = [
        Read(Metrics(3, 10, 0.1, tp=1, fp=2, tn=3, fn=4)),
        Read(None),
        Read(Metrics(2, 5, 1.5, tp=5, fp=0, tn=0, fn=0)),
        Read(Metrics(3, 2, 0.2, tp=1, fp=0, tn=0, fn=1), Metrics(4, 2, 0.5, 2, 0, 0, 0)),
    ]
    assert sums_by_version(accepted) == [
        Metrics(2, 5, 1.5, tp=5, fp=0, tn=0, fn=0),
        Metrics(3, 12, 0.30000000000000004, tp=2, fp=2, tn=3, fn=5),
        Metrics(4, 2, 0.5, 2, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("before", "trained", "highest"),
    [
        ({}, [], {}),
        ({}, [(1, 0)], {1: 0}),
        ({0: 9, 2: 4}, [(2, 3), (1, 7), (2, 5), (1, 6)], {0: 9, 1: 7, 2: 5}),
    ],
)
def test_the_highest_offset_of_each_partition_stays(before, trained, highest):
    assert highest_offsets(before, trained) == highest


def test_an_artifact_is_named_by_its_version_in_an_absolute_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert artifact_path("models", 12) == tmp_path / "models" / "global-model-00000012.json"


def test_an_artifact_replaces_the_one_of_a_crashed_attempt(tmp_path):
    path = tmp_path / "deep" / "model.json"
    write_artifact(path, b"first")
    write_artifact(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_artifact_and_nothing_else(tmp_path):
    path = tmp_path / "model.json"
    write_artifact(path, b"first")
    with pytest.raises(TypeError):
        write_artifact(path, "text")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
