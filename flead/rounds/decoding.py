"""Messages of `local-model-updates` into updates; what does not validate into dead letters."""

from collections.abc import Iterable
from typing import Final

import msgspec

from flead.contracts.messages import DeadLetter, DeadLetterReason, LocalUpdate
from flead.features.decoding import dead_letter
from flead.messaging.reading import Record
from flead.storage.updates import ReadUpdate

_DECODER: Final = msgspec.json.Decoder(LocalUpdate)


class _InvalidError(Exception):
    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode_updates(records: Iterable[Record]) -> tuple[list[ReadUpdate], list[DeadLetter]]:
    """Decode each record; both lists are in the order of `records`."""
    updates: list[ReadUpdate] = []
    letters: list[DeadLetter] = []
    for record in records:
        position = (record.topic, record.partition, record.offset, record.timestamp)
        try:
            updates.append(ReadUpdate(*position, _decode(record)))
        except _InvalidError as error:
            letters.append(dead_letter(*position, error.reason, str(error), record.value))
    return updates, letters


def _decode(record: Record) -> LocalUpdate:
    if record.value is None:
        raise _InvalidError(DeadLetterReason.TOMBSTONE, "the message has no value")
    if not record.value:
        raise _InvalidError(DeadLetterReason.EMPTY, "the value has no bytes")
    try:
        update = _DECODER.decode(record.value)
    except msgspec.ValidationError as error:
        raise _InvalidError(DeadLetterReason.INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _InvalidError(DeadLetterReason.MALFORMED, str(error)) from error
    if record.key != update.device_id.encode():
        raise _InvalidError(
            DeadLetterReason.KEY_MISMATCH, f"the key is {record.key!r}, not {update.device_id!r}"
        )
    for name in ("device_id", "feature_schema", "trial"):
        if "\0" in (getattr(update, name) or ""):
            raise _InvalidError(
                DeadLetterReason.INVALID, f"{name} has a NUL character, which cannot be stored"
            )
    return update
