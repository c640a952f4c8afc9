"""Two versions of a global model, weight by weight."""

import msgspec
import numpy as np

from flead.contracts.messages import GlobalModel
from flead.contracts.schema import input_names
from flead.federation.updates import model_vector


class ChangedWeight(msgspec.Struct, frozen=True):
    """A weight in two versions."""

    input: str
    before: float
    after: float
    change: float


class WeightDifference(msgspec.Struct, frozen=True):
    """All weights of two versions, the largest change first; the intercept is one of them.

    `distance` is the Euclidean one; `cosine` is None when one of the models is zero.
    """

    distance: float
    cosine: float | None
    weights: list[ChangedWeight]


def compare_weights(before: GlobalModel, after: GlobalModel) -> WeightDifference:
    """Compare two versions.

    Raises
    ------
    ValueError
        When they are of different feature lists.
    """
    if before.feature_schema != after.feature_schema:
        raise ValueError(
            f"versions {before.version} and {after.version} are of different feature lists"
        )
    old, new = (model_vector(model.weights, model.intercept) for model in (before, after))
    names = [*input_names(before.feature_names), "intercept"]
    change = new - old
    norms = float(np.linalg.norm(old)) * float(np.linalg.norm(new))
    order = np.argsort(-np.abs(change), kind="stable").tolist()
    return WeightDifference(
        distance=float(np.linalg.norm(change)),
        cosine=float(old @ new) / norms if norms else None,
        weights=[
            ChangedWeight(names[place], float(old[place]), float(new[place]), float(change[place]))
            for place in order
        ],
    )
