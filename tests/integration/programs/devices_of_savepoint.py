"""Print a digest of all that a savepoint of the training job holds of each device, as JSON.

Usage: devices_of_savepoint.py SAVEPOINT FEATURE..., by the tools environment.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from flead.learning.state import MAGIC, TrainerState

LENGTH_BYTES = 4


def devices_of(savepoint: str, features: Sequence[str]) -> dict[str, str]:
    """Return each device's model version and a digest of its arrays and waiting rows, by name."""
    found: dict[str, str] = {}
    for file in Path(urlsplit(savepoint).path).iterdir():
        for state in states_in(file.read_bytes(), features):
            waiting = state.pending.count
            for number, device in enumerate(state.devices):
                assert device not in found, f"{device} is in two buckets"
                digest = hashlib.sha256(waiting[number].tobytes())
                for array in state.arrays.arrays():
                    digest.update(array[number].tobytes())
                version = state.arrays.model_version[number]
                found[device] = f"version {version}: {digest.hexdigest()}"
    return found


def states_in(content: bytes, features: Sequence[str]) -> Iterator[TrainerState]:
    """Find the states of trainers, each behind its length as Flink writes byte arrays."""
    start = content.find(MAGIC)
    while start >= 0:
        length = int.from_bytes(content[start - LENGTH_BYTES : start], "big")
        yield TrainerState.from_bytes(content[start : start + length], features)
        start = content.find(MAGIC, start + length)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(devices_of(sys.argv[1], sys.argv[2:])))
