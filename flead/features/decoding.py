"""Telemetry messages into rows; what does not validate into dead letters."""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np

from flead.contracts.messages import DeadLetter, DeadLetterReason, Telemetry
from flead.contracts.topics import Topic
from flead.features.rows import Floats, Integers, RowBatch, ShortIntegers

PREFIX_BYTES: Final = 1024
DETAIL_CHARACTERS: Final = 300

MAX_MAGNITUDE: Final = 1e100
"""Largest absolute value of a feature: sums of squares of larger ones would not be finite."""

ENVELOPE_BYTES: Final = 4096
"""Bytes of a message beside its features: 256 escaped characters of a name take 3,072."""

READING_BYTES: Final = 64
"""Bytes of a reading beside its name: a number of full precision, indented."""

ESCAPED_BYTES: Final = 12
"""Bytes of one character of a name at most: an escaped surrogate pair."""

_UNRENAMEABLE: Final = re.compile(r'[\\"\x00-\x1f]')
"""Characters of a feature name for which msgspec makes no attribute."""

MAX_KNOWN_KEYS: Final = 1_000_000
"""Devices whose key is remembered; beyond, the memory starts anew."""

Fault = tuple[DeadLetterReason, str]


def largest_message(features: Sequence[str]) -> int:
    """Return how many bytes a message over these features may have; beyond, it is not decoded.

    What reads messages in batches needs a bound, and no row that a device sends comes near it.
    """
    names = sum(map(len, features))
    return ENVELOPE_BYTES + READING_BYTES * len(features) + ESCAPED_BYTES * names


class TelemetryDecoder:
    """Decodes messages of `edge-iiot-stream`, each on its own so that none can merge with another.

    Keys that have been checked are remembered, which is all that a decoder remembers.

    Parameters
    ----------
    features
        The deployment's feature list: the columns of the rows' `values`.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self._features = list(features)
        self._largest = largest_message(self._features)
        self._as_structure = not any(map(_UNRENAMEABLE.search, self._features))
        message: type = Telemetry
        self._readings: Callable[[Any], Any] = self._of_dictionary
        if self._as_structure:
            message, attributes = _message_type(self._features)
            self._readings = attrgetter(*attributes)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(message).decode
        self._name_of_key: dict[bytes | None, str] = {}

    def decode(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        partitions: ShortIntegers,
        offsets: Integers,
        timestamps: Integers,
    ) -> tuple[RowBatch, list[DeadLetter]]:
        """Decode messages.

        Parameters
        ----------
        keys, values
            Kafka key and value of each message.
        partitions, offsets, timestamps
            Position and Kafka timestamp (milliseconds since the epoch) of each message.

        Returns
        -------
        tuple
            The valid rows and a dead letter for each other message, both in the messages' order.
        """
        faults: dict[int, Fault] = {}
        rows = self._decode_values(values, faults)
        at = [index for index in range(len(values)) if index not in faults] if faults else None
        kept_keys = keys if at is None else [keys[index] for index in at]
        names = [row.device_id for row in rows]
        matrix = self._matrix(rows)
        found = self._faults_of_rows(names, kept_keys, matrix)
        if not self._as_structure:
            found |= self._undeclared(rows)
        index = np.arange(len(values)) if at is None else np.array(at, dtype=np.intp)
        if found:
            faults.update({int(index[row]): fault for row, fault in found.items()})
            kept = np.setdiff1d(np.arange(len(rows)), list(found))
            rows = [rows[row] for row in kept.tolist()]
            names = [names[row] for row in kept.tolist()]
            index, matrix = index[kept], matrix[kept]
        batch = _batch(rows, names, matrix, partitions[index], offsets[index])
        letters = [
            dead_letter(
                Topic.TELEMETRY,
                int(partitions[message]),
                int(offsets[message]),
                int(timestamps[message]),
                *faults[message],
                values[message],
            )
            for message in sorted(faults)
        ]
        return batch, letters

    def _decode_values(self, values: Sequence[bytes | None], faults: dict[int, Fault]) -> list[Any]:
        """Decode all messages at once; one by one only when there is a bad one among them."""
        decode = self._decode
        try:
            if max(map(len, values), default=0) <= self._largest:  # type: ignore[arg-type]
                return list(map(decode, values))  # type: ignore[arg-type]
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
            pass
        rows: list[Any] = []
        for index, value in enumerate(values):
            if not value:
                faults[index] = (
                    (DeadLetterReason.TOMBSTONE, "the message has no value")
                    if value is None
                    else (DeadLetterReason.EMPTY, "the value has no bytes")
                )
                continue
            if len(value) > self._largest:
                detail = f"the value has {len(value)} bytes, more than {self._largest}"
                faults[index] = (DeadLetterReason.TOO_LARGE, detail)
                continue
            try:
                rows.append(decode(value))
            except msgspec.ValidationError as error:
                faults[index] = (_reason_of(str(error)), str(error))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                faults[index] = (DeadLetterReason.MALFORMED, str(error))
        return rows

    def _matrix(self, rows: list[Any]) -> Floats:
        """Return the values of the declared features, of shape (rows, features), nan if missing."""
        readings = map(self._readings, map(attrgetter("features"), rows))
        values = readings if len(self._features) == 1 else chain.from_iterable(readings)
        # numpy makes nan of None in lists.
        return np.array(list(values), np.float64).reshape(len(rows), len(self._features))

    def _of_dictionary(self, given: dict[str, float | None]) -> Any:
        if len(self._features) == 1:
            return given.get(self._features[0])
        return map(given.get, self._features)

    def _undeclared(self, rows: list[Any]) -> dict[int, Fault]:
        """Find rows with other features, which the decoder refuses only in a structure."""
        return {
            index: (DeadLetterReason.UNDECLARED_FEATURE, f"not declared: {sorted(extra)}")
            for index, row in enumerate(rows)
            if (extra := row.features.keys() - self._features)
        }

    def _faults_of_rows(
        self, names: list[str], keys: Sequence[bytes | None], matrix: Floats
    ) -> dict[int, Fault]:
        """Find what is wrong with messages that decoded, by their index in `names`."""
        faults: dict[int, Fault] = {}
        if list(map(self._name_of_key.get, keys)) != names:
            for index, (key, name) in enumerate(zip(keys, names, strict=True)):
                fault = self._fault_of_key(key, name)
                if fault is not None:
                    faults[index] = fault
        for index, feature in np.argwhere(np.abs(matrix) > MAX_MAGNITUDE).tolist():
            detail = f"{self._features[feature]!r} is beyond ±{MAX_MAGNITUDE:g}"
            faults.setdefault(index, (DeadLetterReason.NOT_FINITE, detail))
        return faults

    def _fault_of_key(self, key: bytes | None, name: str) -> Fault | None:
        """Say what is wrong with a key or a device's name; remember the key when nothing is."""
        if self._name_of_key.get(key) == name:
            return None
        if key != name.encode():
            shown = None if key is None else bytes(key[:DETAIL_CHARACTERS])
            detail = f"the key is {shown!r}, not the device"
            return DeadLetterReason.KEY_MISMATCH, detail
        if "\0" in name:
            detail = "the device's name holds a NUL character, which PostgreSQL cannot store"
            return DeadLetterReason.INVALID, detail
        if len(self._name_of_key) >= MAX_KNOWN_KEYS:
            self._name_of_key.clear()
        self._name_of_key[key] = name
        return None


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
    reason: DeadLetterReason,
    detail: str,
    value: bytes | None,
) -> DeadLetter:
    """Describe a message that did not validate; `detail` says what was wrong in words."""
    content = b"" if value is None else bytes(value)
    return DeadLetter(
        topic=str(topic),
        partition=partition,
        offset=offset,
        timestamp=timestamp,
        reason=reason,
        detail=detail[:DETAIL_CHARACTERS],
        value_bytes=-1 if value is None else len(content),
        value_sha256=hashlib.sha256(content).hexdigest(),
        value_prefix=base64.b64encode(content[:PREFIX_BYTES]).decode("ascii"),
    )


def _message_type(features: list[str]) -> tuple[type[msgspec.Struct], list[str]]:
    """Make the type of a message with these features only, and name its attributes for them.

    Like `Telemetry`, with a structure in place of the dictionary: it is decoded faster, and the
    decoder itself refuses undeclared names.
    """
    attributes = [f"feature_{number}" for number in range(len(features))]
    readings = msgspec.defstruct(
        "Features",
        [(attribute, float | None, math.nan) for attribute in attributes],
        rename=dict(zip(attributes, features, strict=True)),
        frozen=True,
        gc=False,
        forbid_unknown_fields=True,
    )
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(Telemetry):
        kind = readings if field.name == "features" else field.type
        fields.append((field.name, kind) if field.required else (field.name, kind, field.default))
    message = msgspec.defstruct(
        "TelemetryOfFeatures", fields, frozen=True, gc=False, forbid_unknown_fields=True
    )
    return message, attributes


def _reason_of(error: str) -> DeadLetterReason:
    if error.startswith("Number out of range"):
        return DeadLetterReason.NOT_FINITE
    if error.endswith("`$.schema_version`"):
        return DeadLetterReason.UNKNOWN_SCHEMA
    if error.startswith("Object contains unknown field") and error.endswith("`$.features`"):
        return DeadLetterReason.UNDECLARED_FEATURE
    return DeadLetterReason.INVALID


def _batch(
    rows: list[Any],
    names: list[str],
    matrix: Floats,
    partition: ShortIntegers,
    offset: Integers,
) -> RowBatch:
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return RowBatch(
        devices=list(number),
        device_index=np.fromiter(map(number.__getitem__, names), np.int32, len(names)),
        partition=partition,
        offset=offset,
        event_time=np.fromiter(map(attrgetter("event_time"), rows), np.int64, len(rows)),
        label=np.array([row.label for row in rows], np.float64),
        values=matrix,
    )
