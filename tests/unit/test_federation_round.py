"""A round judges, aggregates and describes; an artifact has one spelling."""

from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import (
    ClosedBy,
    GlobalModel,
    LabelSource,
    LocalUpdate,
    Metrics,
    ModelStatus,
    Moments,
    UpdateStatus,
)
from flead.federation.admission import AdmissionContext, RejectReason
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.round import describe_model, run_round
from flead.federation.strategy import FedAvg


@dataclass(frozen=True)
class Received:
    partition: int
    offset: int
    update: LocalUpdate


def received(offset, device="a", weight=1.0, rows=4, base=1, hits=2, **fields):
    update = LocalUpdate(
        device_id=device, model_version=2, base_version=base, feature_schema="s", trained=True,
        status=UpdateStatus.TRAINING, samples_processed=rows, weights=[weight], intercept=-weight,
        moments=Moments([4.0], [0.0], [1.0]),
        global_metrics=Metrics(base, rows, 0.5 * rows, hits, rows - hits, 0, 0),
        candidate_metrics=None, personalized_metrics=None, accuracy=None, rows=rows,
        rows_labelled=rows, rows_pseudo_labelled=0, label_source=LabelSource.LABEL,
        input_partition=0, first_offset=0, last_offset=rows - 1,
        offset_sum=rows * (rows - 1) // 2, window_start=0, window_end=1,
        closed_by=ClosedBy.COUNT, learning_rate=0.1, hyperparameters_revision=0, trial=None,
        timestamp=0,
    )  # fmt: skip
    return Received(0, offset, msgspec.structs.replace(update, **fields))


CONTEXT = AdmissionContext("s", 1, 2, {1: np.zeros(2), 2: np.array([0.5, 0.5])}, 5, 100.0)


def test_rejected_updates_keep_their_reason_and_accepted_ones_their_share():
    updates = [
        received(3, weight=3.0, rows=12),
        received(1, feature_schema="other"),
        received(0, weight=1.0, rows=4),
        received(2, trial="hot"),
    ]

    result = run_round(updates, CONTEXT, FedAvg())

    assert [(each.received.offset, each.reason, each.share) for each in result.judged] == [
        (0, None, 0.25),
        (1, RejectReason.UNKNOWN_SCHEMA, None),
        (2, RejectReason.TRIAL, None),
        (3, None, 0.75),
    ]
    # 0.5 + (4 * 1 + 12 * 3) / 16 and 0.5 - the same.
    assert result.weights.tolist() == [3.0, -2.0]
    assert result.accepted == [updates[2], updates[0]]


def test_a_round_of_rejected_updates_has_no_weights():
    result = run_round([received(0, trial="hot")], CONTEXT, FedAvg())

    assert result.weights is None
    assert result.accepted == []


def describe(accepted):
    return describe_model(
        np.array([1.5, -0.5]), accepted, Moments([8.0], [0.0], [2.0]), FedAvg(), version=3,
        parent_version=2, aggregation_round=7, feature_schema="s", features=["power"],
        status=ModelStatus.PROMOTED, timestamp=99,
    )  # fmt: skip


def test_the_model_tells_how_its_parent_was_measured_by_those_that_scored_it():
    accepted = [
        received(0, "a", base=2, rows=4, hits=3),
        received(1, "b", base=2, rows=6, hits=3),
        received(2, "b", base=1, rows=5, hits=0),
    ]

    model = describe(accepted)

    assert (model.weights, model.intercept) == ([1.5], -0.5)
    assert (model.num_devices, model.num_updates, model.total_samples) == (2, 3, 15)
    assert model.global_accuracy == pytest.approx(6 / 10)
    assert model.global_loss == pytest.approx(0.5)


def test_a_parent_that_nobody_scored_is_not_measured():
    model = describe([received(0, base=1)])

    assert (model.global_accuracy, model.global_loss) == (None, None)


def test_an_artifact_is_sorted_json_that_its_hash_names():
    model = describe([received(0, base=2)])

    artifact = artifact_bytes(model)

    assert artifact.startswith(b'{"aggregation_round":7,"feature_names":["power"],')
    assert b": " not in artifact
    assert artifact_sha256(artifact) == sha256(artifact).hexdigest()
    assert msgspec.json.decode(artifact, type=GlobalModel) == model
    assert list(msgspec.json.decode(artifact)) == sorted(GlobalModel.__struct_fields__)
