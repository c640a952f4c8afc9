"""How accepted updates become the next global model."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from flead.contracts.messages import LocalUpdate
from flead.features.rows import Floats
from flead.federation.quality import quality_of
from flead.federation.robust import trimmed_mean
from flead.federation.updates import PositionedUpdate, change_of, in_order

ServerLearningRate = Annotated[float, Meta(gt=0, le=10)]
"""Scales what a round adds to the parent (Reddi et al. 2021, "Adaptive Federated Optimization",
ICLR, algorithm 1)."""


class Aggregate(NamedTuple):
    """Weights of a new model, the intercept last, and each update's share in it.

    `shares` sum to 1 and stand in the order of the updates' (partition, offset); a robust strategy
    gives 0 to an update that it left out in every weight.
    """

    weights: Floats
    shares: Floats


class Strategy(ABC):
    """One way to aggregate. Pure, and the same to the last bit for the same updates.

    Parameters
    ----------
    options
        Of the type that the strategy names, which checks them when they are decoded.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def options(self) -> msgspec.Struct:
        """What the strategy was made with, as it is stored with each model."""

    @abstractmethod
    def aggregate(
        self, parent: Floats, updates: Iterable[PositionedUpdate], bases: Mapping[int, Floats]
    ) -> Aggregate:
        """Move the parent by what the updates have learned, each since its own base.

        Parameters
        ----------
        parent
            Weights of the global model that is continued, the intercept last, of shape
            (inputs + 1,); zeros for the first of its feature schema.
        updates
            Accepted updates, in any order.
        bases
            Weights of the parent and of each version that an update is based on, by version, the
            intercept last; version 0, the zero model, need not be there, and none is above the
            parent.

        Raises
        ------
        ValueError
            When there is no update, or one that was not trained.
        KeyError
            When an update's base is not among `bases`.
        """


class FedAvgOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of federated averaging; the defaults are plain averaging.

    `staleness_discount` a multiplies an update's weight by (1 + s)^-a, s the version of the parent
    minus that of its base (Xie et al. 2019, "Asynchronous Federated Optimization", its polynomial
    weighting); 0 is no discount.

    `quality_weighting` multiplies it by `flead.federation.quality.quality_of`.
    """

    server_learning_rate: ServerLearningRate = 1.0
    staleness_discount: Annotated[float, Meta(ge=0, le=10)] = 0.0
    quality_weighting: bool = False


class FedAvg(Strategy):
    """Federated averaging: w = w_parent + Σ n_k (w_k - w_base_k) / Σ n_k, n_k rows trained on.

    With every base equal to the parent this is the weighted average of McMahan et al. 2017,
    "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS,
    algorithm 1. Options may multiply n_k by the quality of the device's data and by a discount of
    stale updates.
    """

    name = "fedavg"

    def __init__(self, options: FedAvgOptions | None = None) -> None:
        self._options = options or FedAvgOptions()

    @property
    def options(self) -> FedAvgOptions:
        """What the strategy was made with."""
        return self._options

    def aggregate(
        self, parent: Floats, updates: Iterable[PositionedUpdate], bases: Mapping[int, Floats]
    ) -> Aggregate:
        """Move the parent by the mean change, weighted by the rows trained on and the options."""
        ordered = _in_order(updates)
        weights = self._weights(ordered, parent_version=max(bases, default=0))
        shares = weights / weights.sum()
        moved = _mean_change(ordered, shares, bases, size=len(parent))
        return Aggregate(parent + self._options.server_learning_rate * moved, shares)

    def _weights(self, ordered: Sequence[LocalUpdate], parent_version: int) -> Floats:
        weights = np.array([update.samples_processed for update in ordered], np.float64)
        if self._options.quality_weighting:
            weights *= np.array([quality_of(update.moments) for update in ordered])
        if self._options.staleness_discount:
            staleness = np.array([parent_version - update.base_version for update in ordered])
            weights *= (1.0 + staleness) ** -self._options.staleness_discount
        return weights


class RobustOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options that robust strategies have in common, and all that the federated median has."""

    server_learning_rate: ServerLearningRate = 1.0


class RobustStrategy(Strategy):
    """One vote a device: each weight moves by a trimmed mean over the devices' changes.

    A device changes by the mean of its updates of the round, weighted by rows. Devices count alike
    whatever number of rows or updates they claim, so neither gives influence. A device's share is
    that of the weights in whose mean it was counted, and is divided among its updates by rows.
    """

    @property
    @abstractmethod
    def options(self) -> RobustOptions:
        """What the strategy was made with."""

    def aggregate(
        self, parent: Floats, updates: Iterable[PositionedUpdate], bases: Mapping[int, Floats]
    ) -> Aggregate:
        """Move the parent by the trimmed mean over devices of what their updates have learned."""
        ordered = _in_order(updates)
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, update in enumerate(ordered):
            places[update.device_id].append(place)
        changes = np.empty((len(places), len(parent)))
        shares = np.empty(len(ordered))
        for device, own in enumerate(places.values()):
            rows = np.array([ordered[place].samples_processed for place in own], np.float64)
            shares[own] = rows / rows.sum()
            mine = [ordered[place] for place in own]
            changes[device] = _mean_change(mine, shares[own], bases, size=len(parent))
        trimmed = trimmed_mean(changes, self._cut(len(places)))
        for share, own in zip(trimmed.shares.tolist(), places.values(), strict=True):
            shares[own] *= share
        return Aggregate(parent + self.options.server_learning_rate * trimmed.mean, shares)

    @abstractmethod
    def _cut(self, devices: int) -> int:
        """How many of so many devices to leave out at each end of each weight."""


class FedMedian(RobustStrategy):
    """Federated median: each weight moves by the median over devices of its change.

    Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    ICML, definition 1. Of an even number of devices it is the mean of the two in the middle.
    """

    name = "fedmedian"

    def __init__(self, options: RobustOptions | None = None) -> None:
        self._options = options or RobustOptions()

    @property
    def options(self) -> RobustOptions:
        """What the strategy was made with."""
        return self._options

    def _cut(self, devices: int) -> int:
        return (devices - 1) // 2


class FedTrimmedAvgOptions(RobustOptions, frozen=True, forbid_unknown_fields=True):
    """Options of the federated trimmed mean.

    `beta` is the share of devices that is left out at each end, rounded down to whole devices:
    below 1 / `beta` devices it is their plain mean.
    """

    beta: Annotated[float, Meta(ge=0, lt=0.5)] = 0.2


class FedTrimmedAvg(RobustStrategy):
    """Federated trimmed mean: each weight moves by the mean change without the extreme devices.

    Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
    ICML, definition 2.
    """

    name = "fedtrimmedavg"

    def __init__(self, options: FedTrimmedAvgOptions | None = None) -> None:
        self._options = options or FedTrimmedAvgOptions()

    @property
    def options(self) -> FedTrimmedAvgOptions:
        """What the strategy was made with."""
        return self._options

    def _cut(self, devices: int) -> int:
        return int(self._options.beta * devices)


def _in_order(updates: Iterable[PositionedUpdate]) -> list[LocalUpdate]:
    ordered = [received.update for received in in_order(updates)]
    if not ordered:
        raise ValueError("a round without accepted updates makes no model")
    return ordered


def _mean_change(
    updates: Sequence[LocalUpdate], shares: Floats, bases: Mapping[int, Floats], size: int
) -> Floats:
    moved = np.zeros(size)
    # One addition after the other: the order of numpy's own sums depends on the shape.
    for share, update in zip(shares.tolist(), updates, strict=True):
        moved += share * change_of(update, bases)
    return moved


_MAKERS: Final[Mapping[str, Callable[[dict[str, Any]], Strategy]]] = {
    FedAvg.name: lambda options: FedAvg(msgspec.convert(options, FedAvgOptions)),
    FedMedian.name: lambda options: FedMedian(msgspec.convert(options, RobustOptions)),
    FedTrimmedAvg.name: lambda options: FedTrimmedAvg(
        msgspec.convert(options, FedTrimmedAvgOptions)
    ),
}

STRATEGIES: Final = tuple(sorted(_MAKERS))
"""Names of the strategies."""


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Make the strategy of a name, as settings and stored models have it.

    Raises
    ------
    msgspec.ValidationError
        Names the strategy or the option that is unknown, or the option that is out of range.
    """
    if name not in _MAKERS:
        raise msgspec.ValidationError(
            f"there is no strategy {name!r}, only {', '.join(STRATEGIES)}"
        )
    try:
        return _MAKERS[name](dict(options or {}))
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"options of the strategy {name}: {error}") from error
