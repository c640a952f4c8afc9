"""Anomalous rows as messages."""

from collections.abc import Iterator, Sequence

import numpy as np

from flead.contracts.messages import Anomaly
from flead.contracts.schema import Z_THRESHOLD
from flead.features.rows import Floats, RowBatch
from flead.learning.pending import Indices
from flead.learning.zscore import z_scores


def describe_anomalies(
    rows: RowBatch,
    found: Indices,
    inputs: Floats,
    probability: Floats,
    features: Sequence[str],
    model_version: int,
) -> Iterator[Anomaly]:
    """Describe rows that the z-score rule calls anomalous, one message each, in their order.

    Parameters
    ----------
    rows
        The batch that they are in.
    found
        Their numbers in it, of shape (anomalies,).
    inputs, probability
        Inputs of each, of shape (anomalies, inputs), and the personalized model's probability.
    features
        The feature list.
    model_version
        That of the global model.
    """
    scores = z_scores(inputs)
    magnitude = np.abs(scores)
    beyond: list[dict[str, float]] = [{} for _ in range(len(found))]
    number, feature = np.nonzero(magnitude > Z_THRESHOLD)
    for row, column, score in zip(
        number.tolist(), feature.tolist(), scores[number, feature].tolist(), strict=True
    ):
        beyond[row][features[column]] = score
    largest = np.where(np.isnan(magnitude), -1.0, magnitude).argmax(axis=-1)
    every = np.arange(len(found))
    columns = zip(
        rows.device_index[found].tolist(),
        rows.event_time[found].tolist(),
        rows.partition[found].tolist(),
        rows.offset[found].tolist(),
        largest.tolist(),
        rows.values[found, largest].tolist(),
        scores[every, largest].tolist(),
        beyond,
        probability.tolist(),
        strict=True,
    )
    for device, time, partition, offset, column, value, score, far, sure in columns:
        yield Anomaly(
            device_id=rows.devices[device],
            event_time=time,
            partition=partition,
            offset=offset,
            feature=features[column],
            value=value,
            z_score=score,
            features=far,
            probability=sure,
            model_version=model_version,
        )
