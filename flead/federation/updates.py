"""Local updates as the federation sees them: a message and where it stood in the topic."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from flead.contracts.messages import LocalUpdate
from flead.features.rows import Floats


class PositionedUpdate(Protocol):
    """A local update with its position in `local-model-updates`."""

    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def update(self) -> LocalUpdate: ...  # noqa: D102


Update = TypeVar("Update", bound=PositionedUpdate)


def in_order(updates: Iterable[Update]) -> list[Update]:
    """Sort updates by (partition, offset): the order of every sum, so that rounds replay."""
    return sorted(updates, key=lambda received: (received.partition, received.offset))


def model_vector(weights: Sequence[float], intercept: float) -> Floats:
    """Join a model's weights and its intercept, which comes last."""
    return np.array([*weights, intercept], dtype=np.float64)


def change_of(update: LocalUpdate, bases: Mapping[int, Floats]) -> Floats:
    """Take what a trained update learned: its weights minus those of its base, intercept last.

    `bases` maps versions to vectors; version 0 is the zero model and need not be there.

    Raises
    ------
    KeyError
        When the base is not among `bases`.
    ValueError
        When the update was not trained.
    """
    if update.weights is None or update.intercept is None:
        raise ValueError(
            f"an update of {update.device_id!r} was not trained: judge updates before they are used"
        )
    learned = model_vector(update.weights, update.intercept)
    return learned if update.base_version == 0 else learned - bases[update.base_version]
