"""What an evaluation says of a device's model, and what the device makes of it."""

import math
from typing import Final

import msgspec

from flead.contracts.messages import DeadLetter, DeadLetterReason, ModelFeedback
from flead.contracts.topics import Topic
from flead.features.decoding import DETAIL_CHARACTERS, Fault, dead_letter

COIN: Final = math.log(2.0)
"""Log loss, in nats, of a model that knows nothing."""

CLEARLY: Final = 2.0
"""Multiple of its own smoothed prequential loss that a device takes for clearly worse."""

CUT: Final = 0.5
"""Factor of a multiplier that is lowered: the bold driver's (Battiti 1989)."""

_decode: Final = msgspec.json.Decoder(ModelFeedback).decode


def decode_feedback(
    key: bytes | None, value: bytes | None, partition: int, offset: int, timestamp: int
) -> ModelFeedback | DeadLetter:
    """Decode a message of `model-feedback`, or say why it is none.

    Times are milliseconds since the epoch.
    """
    found = _read(key, value)
    if isinstance(found, ModelFeedback):
        return found
    return dead_letter(Topic.FEEDBACK, partition, offset, timestamp, *found, value)


def _read(key: bytes | None, value: bytes | None) -> ModelFeedback | Fault:
    if value is None:
        return DeadLetterReason.TOMBSTONE, "the message has no value"
    if not value:
        return DeadLetterReason.EMPTY, "the value has no bytes"
    try:
        message = _decode(value)
    except msgspec.ValidationError as error:
        return DeadLetterReason.INVALID, str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return DeadLetterReason.MALFORMED, str(error)
    if key != message.device_id.encode():
        shown = None if key is None else bytes(key[:DETAIL_CHARACTERS])
        return DeadLetterReason.KEY_MISMATCH, f"the key is {shown!r}, not the device"
    return message


def is_alarming(log_loss: float | None, own_loss: float) -> bool:
    """Whether a global model did so badly on a device that its steps must get smaller.

    Worse than a coin, and clearly worse than what the device's personalized model loses.

    Parameters
    ----------
    log_loss
        Mean log loss of the evaluated model on the device's labelled rows; None without any.
    own_loss
        Smoothed prequential loss of the personalized model, 0 before any labelled window.
    """
    return log_loss is not None and log_loss > max(COIN, CLEARLY * own_loss)
