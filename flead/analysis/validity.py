"""Which messages of `edge-iiot-stream` are rows: those that are valid for some feature list."""

from typing import Final

import msgspec

from flead.contracts.messages import Telemetry
from flead.features.decoding import MAX_MAGNITUDE

_DECODE: Final = msgspec.json.Decoder(Telemetry).decode


def valid_row(key: bytes | None, value: bytes | None) -> Telemetry | None:
    """Return the row of a message, None for one that is a dead letter of the training job."""
    try:
        row = _DECODE(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    name = row.device_id
    if key != name.encode() or "\0" in name:
        return None
    readings = row.features.values()
    return row if all(each is None or abs(each) <= MAX_MAGNITUDE for each in readings) else None
