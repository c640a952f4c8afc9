"""Telemetry messages into rows; what does not validate into dead letters."""

import base64
import hashlib
from collections.abc import Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flead.contracts.messages import DeadLetter, DeadLetterReason, Telemetry
from flead.contracts.topics import Topic
from flead.features.rows import Floats, Integers, RowBatch, ShortIntegers

PREFIX_BYTES: Final = 1024
DETAIL_CHARACTERS: Final = 300

MAX_MAGNITUDE: Final = 1e100
"""Largest absolute value of a feature: sums of squares of larger ones would not be finite."""

_DECODER: Final = msgspec.json.Decoder(Telemetry)

Fault = tuple[DeadLetterReason, str]


def decode_telemetry(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    partitions: ShortIntegers,
    offsets: Integers,
    timestamps: Integers,
    features: Sequence[str],
) -> tuple[RowBatch, list[DeadLetter]]:
    """Decode messages of `edge-iiot-stream`, each on its own so that none can merge with another.

    Parameters
    ----------
    keys, values
        Kafka key and value of each message.
    partitions, offsets, timestamps
        Position and Kafka timestamp (milliseconds since the epoch) of each message.
    features
        The deployment's feature list: the columns of the rows' `values`.

    Returns
    -------
    tuple
        The valid rows and a dead letter for each other message, both in the messages' order.
    """
    faults: dict[int, Fault] = {}
    rows = _decode(values, faults)
    at = [index for index in range(len(values)) if index not in faults] if faults else None
    kept_keys = keys if at is None else [keys[index] for index in at]
    matrix = _matrix(rows, features)
    found = _faults_of_rows(rows, kept_keys, matrix, features)
    index = np.arange(len(values)) if at is None else np.array(at, dtype=np.intp)
    if found:
        faults.update({int(index[row]): fault for row, fault in found.items()})
        kept = np.setdiff1d(np.arange(len(rows)), list(found))
        rows = [rows[row] for row in kept.tolist()]
        index, matrix = index[kept], matrix[kept]
    batch = _batch(rows, matrix, partitions[index], offsets[index])
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


def _decode(values: Sequence[bytes | None], faults: dict[int, Fault]) -> list[Telemetry]:
    """Decode all messages at once; one by one only when there is a bad one among them."""
    decode = _DECODER.decode
    try:
        return list(map(decode, values))  # type: ignore[arg-type]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        pass
    rows: list[Telemetry] = []
    for index, value in enumerate(values):
        if not value:
            faults[index] = (
                (DeadLetterReason.TOMBSTONE, "the message has no value")
                if value is None
                else (DeadLetterReason.EMPTY, "the value has no bytes")
            )
            continue
        try:
            rows.append(decode(value))
        except msgspec.ValidationError as error:
            faults[index] = (_reason_of(str(error)), str(error))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            faults[index] = (DeadLetterReason.MALFORMED, str(error))
    return rows


def _reason_of(error: str) -> DeadLetterReason:
    if error.startswith("Number out of range"):
        return DeadLetterReason.NOT_FINITE
    if error.endswith("`$.schema_version`"):
        return DeadLetterReason.UNKNOWN_SCHEMA
    return DeadLetterReason.INVALID


def _matrix(rows: list[Telemetry], features: Sequence[str]) -> Floats:
    """Return the values of the declared features, of shape (rows, features), nan where missing."""
    readings = [row.features for row in rows]
    shape = (len(rows), len(features))
    pick = itemgetter(*features) if len(features) > 1 else None
    try:
        picked = (
            map(itemgetter(features[0]), readings)
            if pick is None
            else chain.from_iterable(map(pick, readings))
        )
        return np.fromiter(picked, np.float64, len(rows) * len(features)).reshape(shape)
    except (KeyError, TypeError):
        # A feature is absent or null somewhere; numpy makes nan of None in lists only.
        columns = [list(map(dict.get, readings, repeat(name))) for name in features]
        return np.array(columns, dtype=np.float64).reshape(shape[::-1]).T.copy()


def _faults_of_rows(
    rows: list[Telemetry],
    keys: Sequence[bytes | None],
    matrix: Floats,
    features: Sequence[str],
) -> dict[int, Fault]:
    """Find what is wrong with messages that decoded, by their index in `rows`."""
    faults: dict[int, Fault] = {}
    declared = frozenset(features)
    names = {row.device_id: row.device_id.encode() for row in rows}
    expected = [names[row.device_id] for row in rows]
    if expected != keys:
        for index, (key, name) in enumerate(zip(keys, expected, strict=True)):
            if key != name:
                detail = f"the key is {bytes(key) if key is not None else None!r}, not the device"
                faults[index] = (DeadLetterReason.KEY_MISMATCH, detail)
    unstorable = {name for name in names if "\0" in name}
    # Rows share few sets of names: each is checked once.
    name_sets = set(map(tuple, (row.features for row in rows)))
    undeclared = {given for given in name_sets if not declared.issuperset(given)}
    for index, row in enumerate(rows) if unstorable or undeclared else ():
        if row.device_id in unstorable:
            detail = "the device's name holds a NUL character, which PostgreSQL cannot store"
            faults.setdefault(index, (DeadLetterReason.INVALID, detail))
        if tuple(row.features) in undeclared:
            extra = sorted(row.features.keys() - declared)
            detail = f"features that the deployment does not declare: {extra}"
            faults.setdefault(index, (DeadLetterReason.UNDECLARED_FEATURE, detail))
    for index, feature in np.argwhere(np.abs(matrix) > MAX_MAGNITUDE).tolist():
        detail = f"{features[feature]!r} is beyond ±{MAX_MAGNITUDE:g}"
        faults.setdefault(index, (DeadLetterReason.NOT_FINITE, detail))
    return faults


def _batch(
    rows: list[Telemetry],
    matrix: Floats,
    partition: ShortIntegers,
    offset: Integers,
) -> RowBatch:
    names = [row.device_id for row in rows]
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return RowBatch(
        devices=list(number),
        device_index=np.fromiter(map(number.__getitem__, names), np.int32, len(names)),
        partition=partition,
        offset=offset,
        event_time=np.fromiter([row.event_time for row in rows], np.int64, len(rows)),
        label=_nullable([row.label for row in rows]),
        values=matrix,
    )


def _nullable(values: list[int | None]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64).reshape(len(values))
