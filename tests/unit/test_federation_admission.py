"""An update counts only when everything it says can be true."""

import math

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import (
    ClosedBy,
    LabelSource,
    LocalUpdate,
    Metrics,
    Moments,
    UpdateStatus,
)
from flead.federation.admission import AdmissionContext, RejectReason, judge

GOOD = LocalUpdate(
    device_id="a", model_version=3, base_version=8, feature_schema="s", trained=True,
    status=UpdateStatus.TRAINING, samples_processed=5, weights=[1.0, 2.0], intercept=0.5,
    moments=Moments([5.0, 5.0], [0.0, 1.0], [1.0, 2.0]),
    global_metrics=Metrics(8, 3, 1.5, 1, 0, 1, 1), candidate_metrics=None,
    personalized_metrics=Metrics(2, 3, 1.5, 1, 0, 1, 1), accuracy=2 / 3, rows=5, rows_labelled=3,
    rows_pseudo_labelled=2, label_source=LabelSource.MIXED, input_partition=0, first_offset=10,
    last_offset=16, offset_sum=10 + 12 + 13 + 15 + 16, window_start=0, window_end=9,
    closed_by=ClosedBy.COUNT, learning_rate=0.1, hyperparameters_revision=0, trial=None,
    timestamp=0,
)  # fmt: skip
CONTEXT = AdmissionContext(
    feature_schema="s", dimension=2, parent_version=9,
    bases={version: np.zeros(3) for version in (5, 6, 8, 9)}, max_staleness=2,
    max_update_norm=10.0, rolled_back=frozenset({7}),
)  # fmt: skip
UNTRAINED = {"trained": False, "weights": None, "intercept": None, "samples_processed": 0}


def changed(**fields):
    return msgspec.structs.replace(GOOD, **fields)


def test_an_update_that_agrees_with_itself_is_accepted():
    assert judge(GOOD, CONTEXT) is None


def test_a_window_of_one_row_is_accepted():
    one = changed(
        rows=1, samples_processed=1, rows_labelled=0, rows_pseudo_labelled=1, first_offset=4,
        last_offset=4, offset_sum=4, label_source=LabelSource.ZSCORE, global_metrics=None,
        personalized_metrics=None,
    )  # fmt: skip

    assert judge(one, CONTEXT) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"feature_schema": "other"}, RejectReason.UNKNOWN_SCHEMA),
        (UNTRAINED, RejectReason.NOT_TRAINED),
        (UNTRAINED | {"samples_processed": 5}, RejectReason.IMPLAUSIBLE),
        (
            UNTRAINED | {"candidate_metrics": Metrics(10, 4, 1.5, 1, 1, 1, 1)},
            RejectReason.IMPLAUSIBLE,
        ),
        ({"trial": "hot"}, RejectReason.TRIAL),
        ({"weights": [1.0]}, RejectReason.DIMENSION),
        ({"weights": [1.0, 2.0, 3.0]}, RejectReason.DIMENSION),
        ({"moments": Moments([5.0], [0.0, 1.0], [1.0, 2.0])}, RejectReason.DIMENSION),
        ({"weights": [1.0, math.nan]}, RejectReason.NOT_FINITE),
        ({"intercept": math.inf}, RejectReason.NOT_FINITE),
        ({"moments": Moments([5.0, 5.0], [0.0, math.inf], [1.0, 2.0])}, RejectReason.NOT_FINITE),
        ({"weights": None}, RejectReason.IMPLAUSIBLE),
        ({"moments": Moments([-5.0, 5.0], [0.0, 1.0], [1.0, 2.0])}, RejectReason.IMPLAUSIBLE),
        ({"moments": Moments([5.0, 5.0], [0.0, 1.0], [1.0, -2.0])}, RejectReason.IMPLAUSIBLE),
        ({"samples_processed": 6}, RejectReason.IMPLAUSIBLE),
        ({"samples_processed": 0, "rows": 0}, RejectReason.IMPLAUSIBLE),
        ({"samples_processed": -5, "rows": -5}, RejectReason.IMPLAUSIBLE),
        ({"rows_labelled": 6, "rows_pseudo_labelled": -1}, RejectReason.IMPLAUSIBLE),
        ({"rows_pseudo_labelled": 3}, RejectReason.IMPLAUSIBLE),
        ({"label_source": LabelSource.LABEL}, RejectReason.IMPLAUSIBLE),
        ({"first_offset": 17}, RejectReason.IMPLAUSIBLE),
        ({"last_offset": 13}, RejectReason.IMPLAUSIBLE),
        ({"offset_sum": 10 + 11 + 12 + 13 + 16 - 1}, RejectReason.IMPLAUSIBLE),
        ({"offset_sum": 10 + 13 + 14 + 15 + 16 + 1}, RejectReason.IMPLAUSIBLE),
        ({"window_end": -1}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(9, 3, 1.5, 1, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 3, 1.5, 2, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 3, 1.5, 3, -1, 1, 0)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 2, 1.5, 1, 0, 1, 0)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 3, -1.5, 1, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 3, math.nan, 1, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"global_metrics": Metrics(8, 3, 3.1e6, 1, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        (
            {
                "rows_labelled": 0,
                "rows_pseudo_labelled": 5,
                "personalized_metrics": None,
                "label_source": LabelSource.ZSCORE,
                "global_metrics": Metrics(8, 0, 0.0, 0, 0, 0, 0),
            },
            RejectReason.IMPLAUSIBLE,
        ),
        (
            {
                "rows": 10_001,
                "samples_processed": 10_001,
                "rows_pseudo_labelled": 9_998,
                "first_offset": 0,
                "last_offset": 10_000,
                "offset_sum": 50_005_000,
            },
            RejectReason.IMPLAUSIBLE,
        ),
        ({"candidate_metrics": Metrics(10, 4, 1.5, 1, 1, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"personalized_metrics": Metrics(3, 3, 1.5, 1, 0, 1, 1)}, RejectReason.IMPLAUSIBLE),
        ({"base_version": 7, "global_metrics": None}, RejectReason.ROLLED_BACK_BASE),
        ({"base_version": 10, "global_metrics": None}, RejectReason.UNKNOWN_BASE),
        ({"base_version": -1, "global_metrics": None}, RejectReason.UNKNOWN_BASE),
        ({"base_version": 5, "global_metrics": None}, RejectReason.STALE_BASE),
        ({"base_version": 2, "global_metrics": None}, RejectReason.STALE_BASE),
        ({"base_version": 0, "global_metrics": None}, RejectReason.STALE_BASE),
        ({"weights": [9.0, 9.0]}, RejectReason.NORM),
    ],
)
def test_an_update_is_rejected_with_its_reason(fields, reason):
    assert judge(changed(**fields), CONTEXT) is reason


def test_a_base_that_was_never_promoted_is_unknown():
    without_eight = AdmissionContext("s", 2, 9, {6: np.zeros(3), 9: np.zeros(3)}, 2, 10.0)

    assert judge(GOOD, without_eight) is RejectReason.UNKNOWN_BASE


def test_staleness_counts_versions_of_the_lineage_not_numbers():
    context = AdmissionContext("s", 2, 90, {8: np.zeros(3), 90: np.zeros(3)}, 1, 10.0)

    assert judge(GOOD, context) is None


def test_the_first_model_of_a_schema_has_the_zero_model_as_its_base():
    context = AdmissionContext("s", 2, 0, {}, 10, 10.0)

    assert judge(changed(base_version=0, global_metrics=None), context) is None


def test_the_norm_is_that_of_the_change_not_of_the_weights():
    bases = {8: np.array([100.0, 100.0, 100.0]), 9: np.zeros(3)}
    near = changed(weights=[101.0, 102.0], intercept=102.0)

    judgement = judge(near, AdmissionContext("s", 2, 9, bases, 2, max_update_norm=3.0))
    farther = judge(near, AdmissionContext("s", 2, 9, bases, 2, max_update_norm=2.999))

    assert (judgement, farther) == (None, RejectReason.NORM)
