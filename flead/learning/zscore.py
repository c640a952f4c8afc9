"""The z-score rule: a row is anomalous when one of its values lies far from those before it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from flead.compiling import compiled
from flead.contracts.schema import INPUT_KINDS, Z_THRESHOLD
from flead.features.rows import Floats

_FIRST: Final = INPUT_KINDS.index("z_score")
_STEP: Final = len(INPUT_KINDS)


def z_scores(inputs: Floats) -> Floats:
    """Z-score of each feature, nan where missing, as a view.

    Takes inputs of shape (..., inputs); the result has the shape (..., features).
    """
    return inputs[..., _FIRST::_STEP]


def is_anomalous(inputs: Floats) -> NDArray[np.bool_]:
    """Whether any |z| of each row exceeds `Z_THRESHOLD`; from (rows, inputs) to (rows,)."""
    found = np.zeros(len(inputs), np.bool_)
    _find(inputs, found)
    return found


@compiled
def is_far(inputs: Floats) -> bool:
    """Whether any |z| of a row (inputs,) exceeds `Z_THRESHOLD`."""
    for column in range(_FIRST, len(inputs), _STEP):  # noqa: SIM110 - numba compiles no any()
        if abs(inputs[column]) > Z_THRESHOLD:
            return True
    return False


@compiled
def _find(inputs: Floats, found: NDArray[np.bool_]) -> None:
    for row in range(len(inputs)):
        found[row] = is_far(inputs[row])
