"""Messages that nobody should send: valid ones broken in every way, drawn by a seed."""

import json
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Final

import numpy as np

from flead.fleet.malformed import MALFORMATIONS, Malformation, Message
from flead.fleet.simulator import Simulator

MEGABYTE: Final = 1_000_000
DEEP: Final = 2_000
KINDS_OF_BIT: Final = 8

Mutation = Callable[[np.random.Generator, bytes, bytes], Message]


def valid_messages(devices: int, count: int, seed: int) -> list[Message]:
    """Return messages of a simulated fleet, in order of time."""
    fleet = Simulator(devices, 60_000, anomaly_rate=0.1, seed=seed, start_ms=1_000_000_000_000)
    messages: list[Message] = []
    for batch in fleet.batches():
        messages += batch.encode()
        if len(messages) >= count:
            return messages[:count]
    raise AssertionError("the fleet has ended")


def hostile_messages(seed: int, valid: list[Message], count: int) -> Iterator[Message]:
    """Yield messages, each a valid one with one mutation; the same for the same seed.

    Most mutations make a message bad; some leave it valid, with another value in it.
    """
    random = np.random.default_rng(seed)
    choices = random.integers(len(MUTATIONS), size=count).tolist()
    victims = random.integers(len(valid), size=count).tolist()
    for choice, victim in zip(choices, victims, strict=True):
        yield MUTATIONS[choice](random, *valid[victim])


def _as_mutation(malformation: Malformation) -> Mutation:
    return lambda _, key, value: malformation(key, value)


def _bits_flipped(random: np.random.Generator, key: bytes, value: bytes) -> Message:
    damaged = bytearray(value)
    for place, bit in random.integers((len(value), KINDS_OF_BIT), size=(3, 2)).tolist():
        damaged[place] ^= 1 << bit
    return key, bytes(damaged)


def _cut(random: np.random.Generator, key: bytes, value: bytes) -> Message:
    return key, value[: random.integers(len(value))]


def _beheaded(random: np.random.Generator, key: bytes, value: bytes) -> Message:
    return key, value[random.integers(1, len(value)) :]


def _spliced(random: np.random.Generator, key: bytes, value: bytes) -> Message:
    start, end = sorted(random.integers(len(value), size=2).tolist())
    return key, value[:end] + value[start:]


def _noise(random: np.random.Generator, key: bytes, _: bytes) -> Message:
    return key, random.bytes(random.integers(1, 300))


def _with_reading(reading: bytes) -> Mutation:
    """Replace the first reading."""

    def mutate(_: np.random.Generator, key: bytes, value: bytes) -> Message:
        head, _colon, rest = value.partition(b'"features":{"')
        name, _colon, rest = rest.partition(b'":')
        after = min(place for place in (rest.find(b","), rest.find(b"}")) if place >= 0)
        return key, head + b'"features":{"' + name + b'":' + reading + rest[after:]

    return mutate


def _with_field(field: bytes) -> Mutation:
    """Put one more field first."""
    return lambda _, key, value: (key, b"{" + field + b"," + value[1:])


def _replaced(old: bytes, new: bytes) -> Mutation:
    return lambda _, key, value: (key, value.replace(old, new, 1))


def _of_device(name: str) -> Mutation:
    """Rename the device, in the key too."""

    def mutate(_: np.random.Generator, key: bytes, value: bytes) -> Message:
        return name.encode(), value.replace(b'"' + key + b'"', json.dumps(name).encode(), 1)

    return mutate


MUTATIONS: Final[tuple[Mutation, ...]] = (
    *map(_as_mutation, MALFORMATIONS),
    _bits_flipped, _bits_flipped, _bits_flipped, _cut, _beheaded, _spliced, _noise,
    *map(
        _with_reading,
        (
            b"-1e400", b"1e308", b"-9e99", b"1" + b"0" * 400, b"0.0000000000000001e-300", b"-0",
            b"true", b"[1]", b'{"deep":{"er":1}}', b"-", b"+1", b"0x10", b"01", b".5", b"5.",
            b"null", b"Infinity", b"-nan", b'""', b"[" * 500, b"1,",
        ),
    ),
    *map(
        _with_field,
        (
            b'"device_id":"another"', b'"features":{}', b'"features":null', b'"label":1',
            b'"nested":' + b"[" * DEEP + b"]" * DEEP, b'"\\ud800":1', b'"":0', b'"label":2',
            b'"attack_type":"\\ud800"', b'"attack_type":"\xed\xa0\x80"', b'"event_time":-1',
            b'"event_time":1e99', b'"event_time":"today"', b'"schema_version":"1"',
            b'"\xc0\x80":1',
        ),
    ),
    _replaced(b'"label":0', b'"label":0.0'),
    _replaced(b'"features":{', b'"features":[{'),
    _replaced(b'"event_time":', b'"event_time":99999999999999999999'),
    _replaced(b'"device_id":"', b'"device_id":"\\ud800'),
    _replaced(b'"device_id":"', b'"device_id":"\\u0000'),
    _replaced(b'"', b"\x00"),
    _of_device("x" * 257),
    _of_device("x" * 2_000),
    _of_device(""),
    _of_device("nul\0character"),
    _of_device("ünïcode \N{SNOWMAN} \U0001f40d"),
    lambda _, key, value: (None, value),
    lambda _, key, value: (b"\xff\xfe", value),
    lambda _, key, value: (key * 100, value),
    lambda _, key, value: (key, b"\xef\xbb\xbf" + value),
    lambda _, key, value: (key, b"[" + value + b"]"),
    lambda _, key, value: (key, value + b"\n"),
    lambda _, key, value: (key, value + b"\x00"),
    lambda _, key, value: (key, value + b"," + value),
    lambda _, key, value: (key, value.decode().encode("utf-16")),
    lambda _, key, value: (key, b"[" * DEEP),
    lambda _, key, value: (key, b"null"),
)  # fmt: skip
"""Each takes random numbers and the key and value of a valid message."""


def megabyte_messages(valid: Message, count: int) -> Iterator[Message]:
    """Yield messages of a megabyte: noise, a long string, many fields, blanks, a deep nest."""
    key, value = valid
    assert key is not None
    assert value is not None
    kinds = (
        b"\xff" * MEGABYTE,
        value[:-1] + b',"attack_type":"' + b"x" * MEGABYTE + b'"}',
        b'{"features":{' + b'"a":1,' * (MEGABYTE // 5),
        value + b" " * MEGABYTE,
        b"[" * MEGABYTE,
    )
    for damaged in islice(cycle(kinds), count):
        yield key, damaged
