"""Whether a candidate may take the place of its parent: both scored on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from scipy import stats

MIN_DEVICES_OF_A_TEST = 2

MAX_DIFFERENCE: Final = 10.0
"""Nats a row by which a device can speak for or against a model: sure at 22,000 to one, and wrong.

Without a bound one device that lies would decide: its difference swamps the mean, or the spread.
"""


class Verdict(StrEnum):
    """What becomes of a candidate."""

    PROMOTED = "promoted"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


class PairedLoss(NamedTuple):
    """Log losses of two models on one device, each a sum over its number of labelled rows."""

    device_id: str
    rows: int
    log_loss_sum: float
    reference_rows: int
    reference_log_loss_sum: float


class Limits(msgspec.Struct, frozen=True):
    """When a comparison decides.

    `min_rows` labelled rows of `min_devices` devices; a model is worse when its mean loss is higher
    by more than `margin` and by more than `relative_margin` of the reference's, and the paired test
    says so at `alpha`.
    """

    min_rows: Annotated[int, Meta(ge=1)]
    min_devices: Annotated[int, Meta(ge=1)]
    alpha: Annotated[float, Meta(gt=0, lt=1)]
    margin: Annotated[float, Meta(ge=0)] = 0.0
    relative_margin: Annotated[float, Meta(ge=0)] = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against its reference, paired by device.

    `mean_difference` is the mean over devices of loss minus reference loss, in nats a row;
    `p_value` that of the one-sided paired t-test against no difference, None below two devices.
    """

    devices: int
    rows: int
    mean_reference: float
    mean_difference: float
    p_value: float | None


def compare(pairs: Sequence[PairedLoss]) -> Comparison | None:
    """Compare mean log losses, one pair a device; None without a device.

    The paired t-test (Student 1908, "The probable error of a mean", Biometrika 6) takes the device
    as the unit: rows of a device are not independent. Without any spread the sign decides. A device
    counts for `MAX_DIFFERENCE` at most.
    """
    if not pairs:
        return None
    own = np.array([pair.log_loss_sum / pair.rows for pair in pairs])
    reference = np.array([pair.reference_log_loss_sum / pair.reference_rows for pair in pairs])
    difference = own - reference
    if np.isfinite(difference).all():
        difference = difference.clip(-MAX_DIFFERENCE, MAX_DIFFERENCE)
    return Comparison(
        devices=len(pairs),
        rows=sum(pair.rows for pair in pairs),
        mean_reference=float(reference.clip(max=MAX_DIFFERENCE).mean()),
        mean_difference=float(difference.mean()),
        p_value=_p_value(difference),
    )


def is_enough(comparison: Comparison | None, limits: Limits) -> bool:
    """Whether the comparison rests on as much as the limits ask for."""
    return (
        comparison is not None
        and comparison.rows >= limits.min_rows
        and comparison.devices >= limits.min_devices
    )


def is_worse(comparison: Comparison, limits: Limits) -> bool:
    """Whether the model is worse than its reference, beyond the margins and beyond chance.

    One device alone has no test: there its mean decides.
    """
    if not np.isfinite(comparison.mean_difference):
        return True
    least = max(limits.margin, limits.relative_margin * comparison.mean_reference)
    is_beyond_chance = comparison.p_value is None or comparison.p_value < limits.alpha
    return comparison.mean_difference > least and is_beyond_chance


def judge_candidate(comparison: Comparison | None, limits: Limits) -> Verdict:
    """Promote a candidate that is not worse than its parent.

    Non-inferiority and not superiority: a step of federated averaging is small, and a gate that
    asks each for a significant gain would stop at the first plateau.
    """
    if comparison is None or not is_enough(comparison, limits):
        return Verdict.UNDECIDED
    return Verdict.REJECTED if is_worse(comparison, limits) else Verdict.PROMOTED


def _p_value(difference: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
    if len(difference) < MIN_DEVICES_OF_A_TEST:
        return None
    if not np.isfinite(difference).all():
        return 0.0
    if np.ptp(difference) == 0.0:
        return 0.0 if difference[0] > 0.0 else 1.0
    return float(stats.ttest_1samp(difference, 0.0, alternative="greater").pvalue)
