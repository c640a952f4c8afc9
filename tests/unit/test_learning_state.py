"""The binary form of a trainer says what it is, and refuses what it is not."""

import pickle

import numpy as np
import pytest

from flead.contracts.messages import Hyperparameters, TrainingControl
from flead.features.rows import RowBatch
from flead.learning.fleet import FleetState
from flead.learning.state import STATE_VERSION
from flead.learning.trainer import LocalTrainer

FEATURES = ["power"]
FLEET = FleetState(None, None, TrainingControl(0, Hyperparameters()))


@pytest.fixture
def state():
    trainer = LocalTrainer(FEATURES)
    generator = np.random.default_rng(0)
    batch = RowBatch(
        ["a", "ü"], np.array([0, 1, 0] * 30, np.int32), np.zeros(90, np.int32), np.arange(90),
        np.arange(90), np.ones(90), generator.normal(size=(90, 1)),
    )  # fmt: skip
    trainer.process(batch, 0, FLEET)
    return trainer.to_bytes()


def test_it_opens_with_magic_and_version(state):
    assert state[:8] == b"FLEADLT" + bytes([STATE_VERSION])


def test_it_is_read_back_whole(state):
    assert LocalTrainer.from_bytes(state, FEATURES).to_bytes() == state


def test_a_trainer_without_devices_is_read_back():
    empty = LocalTrainer(FEATURES).to_bytes()

    assert LocalTrainer.from_bytes(empty, FEATURES).to_bytes() == empty


def test_another_version_is_refused_by_its_number(state):
    later = state[:7] + b"\x63" + state[8:]

    with pytest.raises(ValueError, match="version 99, this code reads version 1"):
        LocalTrainer.from_bytes(later, FEATURES)


def test_another_feature_list_is_refused_by_its_names(state):
    with pytest.raises(ValueError, match=r"\['power'\], not \['flow'\]"):
        LocalTrainer.from_bytes(state, ["flow"])


@pytest.mark.parametrize("cut", [0, 5, 11, 20, -1])
def test_a_part_of_a_state_is_refused(state, cut):
    with pytest.raises(ValueError, match=r"not the state|damaged"):
        LocalTrainer.from_bytes(state[:cut], FEATURES)


def test_a_pickle_is_refused_unopened():
    with pytest.raises(ValueError, match="not the state of a trainer"):
        LocalTrainer.from_bytes(pickle.dumps({"a": 1}), FEATURES)
