"""Broken messages of every kind that a fleet sends by mistake or on purpose."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flead.contracts.messages import DeadLetterReason

Message = tuple[bytes | None, bytes | None]


@dataclass(frozen=True, slots=True)
class Malformation:
    """One way to break a valid message, and the reason that its dead letter names."""

    name: str
    reason: DeadLetterReason
    damage: Callable[[bytes, bytes], Message]

    def __call__(self, key: bytes, value: bytes) -> Message:
        """Break the valid message (`key`, `value`)."""
        return self.damage(key, value)


def _first_reading(value: bytes, replacement: bytes) -> bytes:
    return re.sub(rb'("features":\{"[^"]+":)[^,}]+', rb"\g<1>" + replacement, value, count=1)


MALFORMATIONS: Final = (
    Malformation(
        "not JSON", DeadLetterReason.MALFORMED, lambda key, value: (key, value.replace(b":", b"="))
    ),
    Malformation(
        "half", DeadLetterReason.MALFORMED, lambda key, value: (key, value[: -len(value) // 2])
    ),
    Malformation("twice", DeadLetterReason.MALFORMED, lambda key, value: (key, value + value)),
    Malformation(
        "not UTF-8",
        DeadLetterReason.MALFORMED,
        lambda key, value: (key, value.replace(b'"device_id":"', b'"device_id":"\xff')),
    ),
    Malformation(
        "NaN", DeadLetterReason.MALFORMED, lambda key, value: (key, _first_reading(value, b"NaN"))
    ),
    Malformation(
        "infinite",
        DeadLetterReason.NOT_FINITE,
        lambda key, value: (key, _first_reading(value, b"1e999")),
    ),
    Malformation(
        "wrong type",
        DeadLetterReason.INVALID,
        lambda key, value: (key, _first_reading(value, b'"high"')),
    ),
    Malformation(
        "no device",
        DeadLetterReason.INVALID,
        lambda key, value: (key, re.sub(rb'"device_id":"[^"]*",', b"", value)),
    ),
    Malformation(
        "wrong key", DeadLetterReason.KEY_MISMATCH, lambda key, value: (b"not-" + key, value)
    ),
    Malformation(
        "undeclared feature",
        DeadLetterReason.UNDECLARED_FEATURE,
        lambda key, value: (key, value.replace(b'"features":{', b'"features":{"humidity":0.5,')),
    ),
    Malformation(
        "unknown schema",
        DeadLetterReason.UNKNOWN_SCHEMA,
        lambda key, value: (key, value.replace(b'"schema_version":1', b'"schema_version":99')),
    ),
    Malformation("empty", DeadLetterReason.EMPTY, lambda key, _: (key, b"")),
    Malformation("tombstone", DeadLetterReason.TOMBSTONE, lambda key, _: (key, None)),
)
