"""Two models on the same rows: log losses by device, and whether they differ beyond chance."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from scipy import stats

from flead.federation.gate import MAX_DIFFERENCE, MIN_DEVICES_OF_A_TEST, PairedLoss

CONFIDENCE = 0.95


class LossDifference(msgspec.Struct, frozen=True):
    """The log loss of a model against that of a reference, in nats a row.

    `log_loss` and `reference_log_loss` are means over `rows`. The others are over devices, each
    with the mean difference of its rows, within ±`MAX_DIFFERENCE`: `mean_difference`, negative
    where the model is better, its 95 % confidence interval, and the p-value of the two-sided paired
    t-test (Student 1908). The last two are None below two devices, or without any spread.
    """

    devices: int
    rows: int
    log_loss: float
    reference_log_loss: float
    mean_difference: float
    confidence_interval: tuple[float, float] | None
    p_value: float | None


def pairs_of(found: pa.Table, version: int, reference: int) -> list[PairedLoss]:
    """Pair what two models have lost on each device that has labelled rows.

    Parameters
    ----------
    found
        Of `flead.analysis.evaluation.evaluate_devices`, which has scored both.
    """
    sums: dict[int, dict[str, tuple[int, float]]] = defaultdict(dict)
    for each in found.select(
        ["device_id", "model_version", "tp", "fp", "tn", "fn", "log_loss_sum"]
    ).to_pylist():
        labelled = sum(each[name] for name in ("tp", "fp", "tn", "fn"))
        if labelled:
            scored = (labelled, each["log_loss_sum"])
            sums[each["model_version"]][each["device_id"]] = scored
    return [
        PairedLoss(device, *sums[version][device], *sums[reference][device])
        for device in sorted(sums[version])
    ]


def added_up(pairs: Iterable[PairedLoss]) -> list[PairedLoss]:
    """Add up the pairs of each device, so that it counts once however many windows it had."""
    sums: dict[str, PairedLoss] = {}
    for pair in pairs:
        before = sums.get(pair.device_id, PairedLoss(pair.device_id, 0, 0.0, 0, 0.0))
        sums[pair.device_id] = PairedLoss(
            pair.device_id,
            before.rows + pair.rows,
            before.log_loss_sum + pair.log_loss_sum,
            before.reference_rows + pair.reference_rows,
            before.reference_log_loss_sum + pair.reference_log_loss_sum,
        )
    return [sums[device] for device in sorted(sums)]


def difference_of(pairs: Sequence[PairedLoss]) -> LossDifference:
    """Compare two models over devices, one pair each; the device is the unit, rows depend.

    Raises
    ------
    ValueError
        When there is no pair.
    """
    if not pairs:
        raise ValueError("no device has a labelled row: there is nothing to compare by")
    rows = sum(pair.rows for pair in pairs)
    by_device = np.array(
        [
            pair.log_loss_sum / pair.rows - pair.reference_log_loss_sum / pair.reference_rows
            for pair in pairs
        ]
    ).clip(-MAX_DIFFERENCE, MAX_DIFFERENCE)
    interval, p_value = None, None
    if len(pairs) >= MIN_DEVICES_OF_A_TEST and np.ptp(by_device) > 0.0:
        test = stats.ttest_1samp(by_device, 0.0)
        low, high = test.confidence_interval(CONFIDENCE)
        interval, p_value = (float(low), float(high)), float(test.pvalue)
    return LossDifference(
        devices=len(pairs),
        rows=rows,
        log_loss=sum(pair.log_loss_sum for pair in pairs) / rows,
        reference_log_loss=sum(pair.reference_log_loss_sum for pair in pairs) / rows,
        mean_difference=float(by_device.mean()),
        confidence_interval=interval,
        p_value=p_value,
    )
