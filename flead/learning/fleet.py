"""What the fleet has sent to its devices."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from flead.contracts.messages import GlobalModel, TrainingControl
from flead.features.rows import Floats


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
