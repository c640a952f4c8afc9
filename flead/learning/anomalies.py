"""Anomalous rows as messages."""

from collections.abc import Iterator, Sequence

import numpy as np

from flead.contracts.messages import Anomaly
from flead.contracts.schema import Z_THRESHOLD
from flead.features.rows import Floats, RowBatch
from flead.learning.zscore import z_scores


def describe_anomalies(
    rows: RowBatch,
    inputs: Floats,
    probability: Floats,
    features: Sequence[str],
    model_version: int,
) -> Iterator[Anomaly]:
    """Describe rows that the z-score rule calls anomalous, one message each, in their order.

    `inputs` is (rows, inputs), `probability` (rows,) the personalized model's; `model_version` is
    that of the global model.
    """
    magnitude = np.nan_to_num(np.abs(z_scores(inputs)))
    columns = zip(
        rows.device_index.tolist(),
        rows.event_time.tolist(),
        rows.partition.tolist(),
        rows.offset.tolist(),
        rows.values.tolist(),
        z_scores(inputs).tolist(),
        magnitude.argmax(axis=-1).tolist(),
        (magnitude > Z_THRESHOLD).tolist(),
        probability.tolist(),
        strict=True,
    )
    for device, time, partition, offset, values, scores, largest, beyond, sure in columns:
        yield Anomaly(
            device_id=rows.devices[device],
            event_time=time,
            partition=partition,
            offset=offset,
            feature=features[largest],
            value=values[largest],
            z_score=scores[largest],
            features={
                feature: score
                for feature, score, far in zip(features, scores, beyond, strict=True)
                if far
            },
            probability=sure,
            model_version=model_version,
        )
