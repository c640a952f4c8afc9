"""Feature lists, the inputs made of them, and their fingerprint."""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

INPUT_KINDS: Final = ("value", "z_score", "rolling_mean", "rolling_std")
"""What is computed of each feature, in input order: all inputs of the first feature come first."""

ROLLING_ROWS: Final = 100
"""Rows of a device's history that the rolling statistics cover."""

MIN_ROLLING_ROWS: Final = 30
"""Rows of history below which a z-score is 0."""

Z_CLIP: Final = 10.0
"""Bound of z-scores and of standardized inputs, both signs."""

Z_THRESHOLD: Final = 2.5
"""|z| beyond which the z-score rule calls a row anomalous."""


def input_names(features: Sequence[str]) -> list[str]:
    """Names of the inputs of a model over `features`, in input order (4 for each feature)."""
    return [f"{feature}.{kind}" for feature in features for kind in INPUT_KINDS]


def feature_schema(features: Sequence[str]) -> str:
    """SHA-256 (hex) of an ordered feature list: models of different lists never mix.

    Raises
    ------
    ValueError
        When the list is empty or names a feature twice.
    """
    if not features:
        raise ValueError("a feature list needs at least one feature")
    if len(set(features)) != len(features):
        raise ValueError(f"a feature is listed twice: {list(features)}")
    return hashlib.sha256(msgspec.json.encode(list(features))).hexdigest()
