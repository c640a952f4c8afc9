"""Inputs and scores of rows that were taken from the middle of their devices' histories."""

from collections.abc import Mapping, Sequence

import numpy as np

from flead.contracts.messages import Moments
from flead.features.rolling import empty_history, roll
from flead.features.rows import Floats, Integers, RowBatch
from flead.learning.fleet import PublishedModel
from flead.learning.scoring import score_rows


def inputs_of(rows: RowBatch) -> Floats:
    """Make the inputs of rows that begin with a warm-up: `ROLLING_ROWS` rows of each device.

    They equal those of the training job up to rounding, because inputs depend on no older row.
    Those of the warm-up itself are not to be used.

    Returns
    -------
    Inputs of shape (rows, inputs); see `flead.features.rolling.roll`.
    """
    history, shared = empty_history(len(rows.devices), rows.values.shape[1])
    seen = np.zeros(len(rows.devices), np.int64)
    return roll(history, shared, seen, rows.device_index.astype(np.int64), rows.values)


def moments_of(
    devices: Sequence[str], known: Mapping[str, Moments | Floats], inputs: int
) -> Floats:
    """Stack the moments of devices; a device that has none is left to the model's standardizer.

    Returns
    -------
    Moments of shape (devices, 3, inputs), all 0 where there are none.
    """
    stacked = np.zeros((len(devices), 3, inputs))
    for number, device in enumerate(devices):
        if (found := known.get(device)) is not None:
            stacked[number] = (
                (found.count, found.mean, found.m2) if isinstance(found, Moments) else found
            )
    return stacked


def log_odds_of(inputs: Floats, device: Integers, moments: Floats, model: PublishedModel) -> Floats:
    """Log-odds of rows by one global model, standardized as each device does.

    Parameters
    ----------
    inputs
        Of shape (rows, inputs), nan where missing.
    device
        Device of each row, an index in `moments`, of shape (rows,).
    moments
        Of the devices, of shape (devices, 3, inputs).

    Returns
    -------
    Log-odds of shape (rows,).
    """
    models = np.broadcast_to(model.weights, (len(moments), len(model.weights)))
    return score_rows(
        inputs, device.astype(np.int64), moments, model.prior, np.ascontiguousarray(models)
    )
