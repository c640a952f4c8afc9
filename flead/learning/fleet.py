"""What the fleet has sent to its devices."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from flead.contracts.messages import GlobalModel, TrainingControl
from flead.features.rows import Floats

MAX_VERSION_STEP: Final = 1_000_000
"""Versions by which a model may be ahead of the one in use: two years of a version a minute."""

MAX_FIRST_VERSION: Final = 1_000_000_000
"""Highest version that is believed where none is in use yet."""


class PublishedModel(NamedTuple):
    """A global model as arrays.

    `weights` (inputs + 1) with the intercept last, `prior` (3, inputs) the fleet's moments;
    `restored_version` is the one that it brings back, if any.
    """

    version: int
    feature_schema: str
    weights: Floats
    prior: Floats
    restored_version: int | None = None

    @classmethod
    def of(cls, model: GlobalModel) -> "PublishedModel":
        """Take over a message."""
        moments = model.standardizer
        return cls(
            model.version,
            model.feature_schema,
            np.array([*model.weights, model.intercept]),
            np.array([moments.count, moments.mean, moments.m2]),
            model.restored_version,
        )


@dataclass(frozen=True)
class FleetState:
    """Models as published, None where there is none, and the control message."""

    global_model: GlobalModel | None
    candidate: GlobalModel | None
    control: TrainingControl

    def current(self, schema: str) -> PublishedModel | None:
        """Return the promoted model when it is of this feature schema."""
        model = self._current
        return model if model is not None and model.feature_schema == schema else None

    def check_plausible(self, model: GlobalModel) -> None:
        """Refuse a version that no run of rounds could have come to.

        Versions only grow, so such a one would shut out every later one.

        Raises
        ------
        ValueError
            Names the version and the highest plausible one.
        """
        known = [each.version for each in (self.global_model, self.candidate) if each is not None]
        limit = max(known) + MAX_VERSION_STEP if known else MAX_FIRST_VERSION
        if model.version > limit:
            raise ValueError(
                f"version {model.version} is implausible: at most {limit} was expected here"
            )

    def challenger(self, schema: str) -> PublishedModel | None:
        """Return the candidate when it is of this schema and newer than the promoted one."""
        model, current = self._challenger, self.current(schema)
        if model is None or model.feature_schema != schema:
            return None
        return model if current is None or model.version > current.version else None

    @cached_property
    def _current(self) -> PublishedModel | None:
        return None if self.global_model is None else PublishedModel.of(self.global_model)

    @cached_property
    def _challenger(self) -> PublishedModel | None:
        return None if self.candidate is None else PublishedModel.of(self.candidate)
