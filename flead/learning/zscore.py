"""The z-score rule: a row is anomalous when one of its values lies far from those before it."""

import numpy as np
from numpy.typing import NDArray

from flead.contracts.schema import INPUT_KINDS, Z_THRESHOLD
from flead.features.rows import Floats


def z_scores(inputs: Floats) -> Floats:
    """Z-score of each feature, nan where missing, as a view.

    Takes inputs of shape (..., inputs); the result has the shape (..., features).
    """
    return inputs[..., INPUT_KINDS.index("z_score") :: len(INPUT_KINDS)]


def is_anomalous(inputs: Floats) -> NDArray[np.bool_]:
    """Whether any |z| exceeds `Z_THRESHOLD`, of shape (...)."""
    return np.asarray((np.abs(z_scores(inputs)) > Z_THRESHOLD).any(axis=-1))
