"""What an experiment found."""

import msgspec

from flead.contracts.messages import Hyperparameters
from flead.offline.figures import Figures
from flead.offline.playing import Order


class Evaluation(msgspec.Struct, frozen=True, rename={"global_model": "global"}):
    """Figures of each model on the same rows.

    `global` is the federation's model and `local` each device's personalized one. The others are
    what they must beat: `local_only` is `local` without any federation, `centralised` scikit-learn
    on the pooled data, `majority` the more frequent class, `zscore` the z-score rule.
    """

    global_model: Figures
    local: Figures
    local_only: Figures
    centralised: Figures
    majority: Figures
    zscore: Figures


class PartResult(Evaluation, frozen=True, rename={"global_model": "global"}):
    """An evaluation of the whole fleet, and that of each device."""

    devices: dict[str, Evaluation]


class DataSummary(msgspec.Struct, frozen=True):
    """What was read; `unreadable` counts the rows left out for each reason."""

    name: str
    rows: int
    rows_labelled: int
    anomaly_rate: float | None
    devices: int
    features: list[str]
    unreadable: dict[str, int]


class ExperimentResult(msgspec.Struct, frozen=True):
    """Settings and figures: `prequential` of all rows, `holdout` of each device's last ones."""

    data: DataSummary
    split: str
    order: Order
    strategy: str
    strategy_options: dict[str, object]
    seed: int
    hyperparameters: Hyperparameters
    round_updates: int
    versions: int
    updates_rejected: dict[str, int]
    prequential: PartResult
    holdout: PartResult
