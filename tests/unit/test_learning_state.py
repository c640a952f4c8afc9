"""The binary form of a trainer says what it is, and refuses what it is not."""

import json
import math
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import GlobalModel, Hyperparameters, TrainingControl
from flead.features.rolling import RING_ROWS
from flead.features.rows import RowBatch
from flead.learning.decimals import pack, unpack
from flead.learning.fleet import FleetState
from flead.learning.state import STATE_VERSION
from flead.learning.trainer import LocalTrainer

FEATURES = ["power"]
FIXTURES = Path(__file__).parent / "fixtures"
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


@pytest.mark.parametrize(
    ("history", "decimals"),
    [
        ([21.37, -0.05, math.nan, 0.0], [2]),
        ([1.0, 2_147_483_647.0, -2_147_483_647.0], [0]),
        ([0.1 + 0.2], None),
        ([2_147_483_648.0], None),
        ([0.01, 30_000_000.0], None),
        ([-0.0, 1.5], None),
        ([1e300, 5e-324], None),
        ([math.nan], [0]),
    ],
)
def test_a_history_is_packed_where_whole_numbers_hold_it_to_the_last_bit(history, decimals):
    values = np.array(history).reshape(1, 1, -1)

    packed = pack(values)

    assert (packed and packed[0]) == decimals
    if packed is not None:
        unpacked = unpack(*packed)
        assert (unpacked.dtype, unpacked.tobytes()) == (values.dtype, values.tobytes())


def test_readings_with_few_decimals_take_half_the_bytes():
    def size(values):
        trainer, rows = LocalTrainer(FEATURES), len(values)
        offsets = np.arange(rows)
        batch = RowBatch(
            ["a"], np.zeros(rows, np.int32), np.zeros(rows, np.int32), offsets, offsets,
            np.ones(rows), values.reshape(-1, 1),
        )  # fmt: skip
        trainer.process(batch, 0, FLEET)
        state = trainer.to_bytes()
        assert LocalTrainer.from_bytes(state, FEATURES).to_bytes() == state
        return len(state)

    drawn = np.random.default_rng(1).normal(20.0, 3.0, 150)

    # The header says the decimals, in less than 8 bytes.
    assert size(drawn) - size(drawn.round(2)) == pytest.approx(4 * RING_ROWS, abs=8)


def test_another_version_is_refused_by_its_number(state):
    later = state[:7] + b"\x63" + state[8:]

    with pytest.raises(ValueError, match="version 99, this code reads versions 1 to 4"):
        LocalTrainer.from_bytes(later, FEATURES)


def test_another_feature_list_is_refused_by_its_names(state):
    with pytest.raises(ValueError, match=r"\['power'\], not \['flow'\]"):
        LocalTrainer.from_bytes(state, ["flow"])


# The third is the second as the code of that time read it and wrote it again.
@pytest.mark.parametrize(("version", "recording"), [(1, 1), (2, 2), (3, 2)])
def test_a_state_of_an_earlier_version_goes_on_as_the_code_that_wrote_it_did(version, recording):
    recorded = json.loads((FIXTURES / f"trainer_state_v{recording}.json").read_text())
    rows = recorded["rows"]
    names = sorted({row["device_id"] for row in rows})
    values = [[math.nan if v is None else v for v in row["values"]] for row in rows]
    labels = [math.nan if row["label"] is None else row["label"] for row in rows]
    batch = RowBatch(
        names, np.array([names.index(row["device_id"]) for row in rows], np.int32),
        np.zeros(len(rows), np.int32), np.array([row["offset"] for row in rows]),
        np.array([row["event_time"] for row in rows]), np.array(labels, float), np.array(values),
    )  # fmt: skip
    settings = msgspec.convert(recorded["hyperparameters"], Hyperparameters)
    model = recorded.get("model")
    current = None if model is None else msgspec.convert(model, GlobalModel)
    fleet = FleetState(current, None, TrainingControl(1, settings))
    state = (FIXTURES / f"trainer_state_v{version}.bin").read_bytes()

    trainer = LocalTrainer.from_bytes(state, recorded["features"], device_ttl_days=1)
    updates = trainer.process(batch, 0, fleet).updates + trainer.flush(0, fleet).updates

    def key(update):
        return update["device_id"], update["model_version"]

    made = sorted(msgspec.to_builtins(updates), key=key)
    assert len(made) == len(recorded["updates"]) >= 6
    for update, expected in zip(made, sorted(recorded["updates"], key=key), strict=True):
        for name in ("device_id", "model_version", "first_offset", "last_offset", "offset_sum"):
            assert update[name] == expected[name]
        assert update["weights"] == pytest.approx(expected["weights"], abs=1e-9)
        assert update["intercept"] == pytest.approx(expected["intercept"], abs=1e-9)
        assert update["moments"]["count"] == expected["count"]
        assert update["moments"]["mean"] == pytest.approx(expected["mean"], rel=1e-9)
        assert update["personalized_metrics"]["log_loss_sum"] == pytest.approx(
            expected["log_loss_sum"], abs=1e-9
        )


@pytest.mark.parametrize("cut", [0, 5, 11, 20, -1])
def test_a_part_of_a_state_is_refused(state, cut):
    with pytest.raises(ValueError, match=r"not the state|damaged"):
        LocalTrainer.from_bytes(state[:cut], FEATURES)


def test_a_pickle_is_refused_unopened():
    with pytest.raises(ValueError, match="not the state of a trainer"):
        LocalTrainer.from_bytes(pickle.dumps({"a": 1}), FEATURES)
