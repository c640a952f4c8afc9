"""How accepted updates become the next global model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from flead.contracts.messages import LocalUpdate
from flead.features.rows import Floats
from flead.federation.quality import quality_of
from flead.federation.updates import PositionedUpdate, change_of, in_order


class Aggregate(NamedTuple):
    """Weights of a new model, the intercept last, and each update's share in it.

    `shares` sum to 1 and stand in the order of the updates' (partition, offset).
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

    `server_learning_rate` scales the averaged change (Reddi et al. 2021, "Adaptive Federated
    Optimization", ICLR, algorithm 1).

    `staleness_discount` a multiplies an update's weight by (1 + s)^-a, s the version of the parent
    minus that of its base (Xie et al. 2019, "Asynchronous Federated Optimization", its polynomial
    weighting); 0 is no discount.

    `quality_weighting` multiplies it by `flead.federation.quality.quality_of`.
    """

    server_learning_rate: Annotated[float, Meta(gt=0, le=10)] = 1.0
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
        ordered = [received.update for received in in_order(updates)]
        if not ordered:
            raise ValueError("a round without accepted updates makes no model")
        weights = self._weights(ordered, parent_version=max(bases, default=0))
        shares = weights / weights.sum()
        moved = np.zeros_like(parent)
        # One addition after the other: the order of numpy's own sums depends on the shape.
        for share, update in zip(shares.tolist(), ordered, strict=True):
            moved += share * change_of(update, bases)
        return Aggregate(parent + self._options.server_learning_rate * moved, shares)

    def _weights(self, ordered: Sequence[LocalUpdate], parent_version: int) -> Floats:
        weights = np.array([update.samples_processed for update in ordered], np.float64)
        if self._options.quality_weighting:
            weights *= np.array([quality_of(update.moments) for update in ordered])
        if self._options.staleness_discount:
            staleness = np.array([parent_version - update.base_version for update in ordered])
            weights *= (1.0 + staleness) ** -self._options.staleness_discount
        return weights


_OPTIONS: Final = {FedAvg.name: FedAvgOptions}


def make_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """Make the strategy of a name, as settings and stored models have it.

    Raises
    ------
    ValueError
        When there is no such strategy.
    msgspec.ValidationError
        Names the option that is unknown or out of range.
    """
    if name not in _OPTIONS:
        raise ValueError(f"there is no strategy {name!r}, only {', '.join(sorted(_OPTIONS))}")
    return FedAvg(msgspec.convert(dict(options or {}), FedAvgOptions))
