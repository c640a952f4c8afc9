"""What a trial has shown: outcomes of devices, compared between cohorts."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
from scipy.stats import mannwhitneyu, wilcoxon
from statsmodels.stats.multitest import multipletests

from flead.features.rows import Floats
from flead.storage.outcomes import DeviceLoss

CONTROL: Final = "control"


class ArmJudgement(msgspec.Struct, frozen=True):
    """A trial against the control cohort.

    `mean_difference` is the mean outcome of its devices minus that of the control's, in nats a row:
    negative is better. It is None, as are the p-values, without enough devices.
    """

    trial: str
    devices: int
    mean_difference: float | None = None
    p_value: float | None = None
    p_holm: float | None = None


class Judgement(msgspec.Struct, frozen=True):
    """All trials of a change; `winner` is the one that beat the control by most, if any did."""

    control_devices: int
    control_mean: float | None
    arms: list[ArmJudgement]
    winner: str | None

    @property
    def is_conclusive(self) -> bool:
        """Whether at least one trial could be compared."""
        return any(arm.p_holm is not None for arm in self.arms)

    def effect_of(self, trial: str) -> float | None:
        """Mean difference of a trial, None when it was not compared."""
        return next((arm.mean_difference for arm in self.arms if arm.trial == trial), None)


def outcomes(
    before: Iterable[DeviceLoss], during: Iterable[DeviceLoss], min_rows: int
) -> dict[str, float]:
    """Return how the mean log loss of each device has changed, in nats a row.

    The difference takes out what a device finds hard anyway. Devices with fewer than `min_rows`
    labelled rows in either period are left out.
    """
    known = {loss.device_id: loss for loss in before if loss.rows >= min_rows}
    return {
        loss.device_id: loss.log_loss_sum / loss.rows
        - known[loss.device_id].log_loss_sum / known[loss.device_id].rows
        for loss in during
        if loss.rows >= min_rows and loss.device_id in known
    }


def judge(
    control: Floats, trials: Mapping[str, Floats], *, alpha: float, min_devices: int
) -> Judgement:
    """Compare the outcomes of each trial's devices with those of the control's.

    The unit is the device. One-sided Mann-Whitney U test (Mann & Whitney 1947, "On a Test of
    Whether one of Two Random Variables is Stochastically Larger than the Other"), whose ranks leave
    a device that lies about its loss one vote; p-values of the trials that have enough devices
    are corrected by Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure". A winner
    has a corrected p-value below `alpha` and a mean below the control's.
    """
    enough = len(control) >= min_devices
    compared = [name for name, devices in trials.items() if enough and len(devices) >= min_devices]
    p_values = [
        float(mannwhitneyu(trials[name], control, alternative="less").pvalue) for name in compared
    ]
    corrected = multipletests(p_values, method="holm")[1].tolist() if compared else []
    judged = {
        name: ArmJudgement(
            name, len(trials[name]), float(trials[name].mean() - control.mean()), p_value, p_holm
        )
        for name, p_value, p_holm in zip(compared, p_values, corrected, strict=True)
    }
    arms = [judged.get(name) or ArmJudgement(name, len(trials[name])) for name in trials]
    return Judgement(
        control_devices=len(control),
        control_mean=float(control.mean()) if len(control) else None,
        arms=arms,
        winner=_winner(judged.values(), alpha),
    )


def _winner(arms: Iterable[ArmJudgement], alpha: float) -> str | None:
    better = [
        (arm.mean_difference, arm.trial)
        for arm in arms
        if arm.mean_difference is not None
        and arm.mean_difference < 0
        and arm.p_holm is not None
        and arm.p_holm < alpha
    ]
    return min(better)[1] if better else None


class Watched(msgspec.Struct, frozen=True):
    """The fleet after an adoption against before, paired by device; `p_value` None: too few."""

    devices: int
    mean_change: float | None
    p_value: float | None
    is_worse: bool


def watch(changes: Floats, *, alpha: float, min_devices: int) -> Watched:
    """Tell whether devices have become worse, by how the mean log loss of each has changed.

    One-sided signed-rank test (Wilcoxon 1945, "Individual Comparisons by Ranking Methods"). It has
    no control cohort, so a fleet that becomes harder for other reasons counts as worse too: going
    back to what was known is the safe side.
    """
    if len(changes) < min_devices:
        return Watched(len(changes), None, None, is_worse=False)
    # The test is not defined without a single change.
    p_value = float(wilcoxon(changes, alternative="greater").pvalue) if np.any(changes) else 1.0
    mean = float(changes.mean())
    return Watched(len(changes), mean, p_value, is_worse=p_value < alpha and mean > 0)
