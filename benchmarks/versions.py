"""Versions of a global model of the simulated fleet; what they say of a row does not matter."""

import numpy as np

from flead.contracts.messages import GlobalModel, ModelStatus, Moments
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.simulation import FEATURES
from flead.storage import models
from flead.storage.connection import connect
from flead.storage.models import StoredModel


def promote(database_url: str, versions: range, input_offsets: dict[int, int]) -> None:
    """Store versions, each with the one before it as its parent; the last becomes the head.

    Parameters
    ----------
    input_offsets
        By partition, the last offset that each of them counts as trained on.
    """
    schema = feature_schema(FEATURES)
    with connect(database_url) as connection, connection.cursor() as cursor:
        head = models.head(cursor, schema)
        for version in versions:
            stored = StoredModel(model_of(version), {}, input_offsets, 0, "", "0" * 64)
            models.insert_model(cursor, stored)
        models.advance_head(cursor, schema, head, versions[-1])


def model_of(version: int) -> GlobalModel:
    """Return a version; its standardizer has a mean of 0 and a deviation of 1."""
    inputs = len(input_names(FEATURES))
    weights = np.random.default_rng(version).normal(scale=0.1, size=inputs)
    return GlobalModel(
        version=version,
        parent_version=version - 1,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=None,
        feature_schema=feature_schema(FEATURES),
        feature_names=list(FEATURES),
        weights=weights.tolist(),
        intercept=-1.0,
        standardizer=Moments([1000.0] * inputs, [0.0] * inputs, [1000.0] * inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=1,
        global_accuracy=None,
        global_loss=None,
        timestamp=0,
    )
