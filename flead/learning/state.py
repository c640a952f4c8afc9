"""What a trainer remembers of its devices, as arrays and in a versioned binary form."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from flead.contracts.schema import INPUT_KINDS
from flead.features.rolling import empty_history
from flead.features.rows import Floats, Integers
from flead.learning import decimals, drift, first_layout, plateau, rate, second_layout
from flead.learning.pending import Columns, PendingRows

MAGIC: Final = b"FLEADLT"
STATE_VERSION: Final = 4
"""Version that is written; `from_bytes` also reads the ones before."""

_SINCE_ADAPTATION: Final = 3
"""First version that holds rate, progress, drift test and what the devices adopted."""

_ALIGNMENT: Final = 8
_PREFIX_BYTES: Final = len(MAGIC) + 1 + 4

NO_DEADLINE: Final = int(np.iinfo(np.int64).max)
NO_PARTITION: Final = -1
NO_REVISION: Final = -1


@dataclass(slots=True, eq=False)
class DeviceArrays:
    """State of many devices; the first axis of every array is the device.

    `history`, `shared` and `seen` serve the rolling statistics (see `flead.features.rolling.roll`).
    `moments` (devices, 3, inputs) are the running moments. `personalized` (devices, inputs + 1)
    holds weights, the intercept last, and `started` whether they are set. `model_version` counts
    the closed windows. `deadline_ms` is when the open window closes by time, `NO_DEADLINE` without
    one; `partition` is the one that the device's rows come from; `last_row_ms` is when the newest
    came, by processing time.

    `previous` (devices, inputs + 1) is the personalized model before its last training, `snapshot`
    as it was when the device adopted the global version `adopted`, 0 for none. `rate`, `progress`
    and `drift` are what `flead.learning.rate`, `plateau` and `drift` remember, since the
    hyperparameters' `revision`. `feedback_version` is the newest version whose feedback was
    applied.
    """

    history: Floats
    shared: Floats
    seen: Integers
    moments: Floats
    personalized: Floats
    started: Integers
    model_version: Integers
    deadline_ms: Integers
    partition: Integers
    last_row_ms: Integers
    previous: Floats
    snapshot: Floats
    adopted: Integers
    rate: Floats
    progress: Floats
    drift: Floats
    revision: Integers
    feedback_version: Integers

    @classmethod
    def fresh(cls, devices: int, features: int) -> "DeviceArrays":
        """State of devices that have had no row."""
        inputs = features * len(INPUT_KINDS)
        history, shared = empty_history(devices, features)

        def whole(value: int = 0) -> Integers:
            return np.full(devices, value, np.int64)

        return cls(
            history=history,
            shared=shared,
            seen=whole(),
            moments=np.zeros((devices, 3, inputs)),
            personalized=np.zeros((devices, inputs + 1)),
            started=whole(),
            model_version=whole(),
            deadline_ms=whole(NO_DEADLINE),
            partition=whole(NO_PARTITION),
            last_row_ms=whole(),
            previous=np.zeros((devices, inputs + 1)),
            snapshot=np.zeros((devices, inputs + 1)),
            adopted=whole(),
            rate=np.tile(rate.FRESH, (devices, 1)),
            progress=np.tile(plateau.FRESH, (devices, 1)),
            drift=np.tile(drift.FRESH, (devices, 1)),
            revision=whole(NO_REVISION),
            feedback_version=whole(),
        )

    def arrays(self) -> list[NDArray[Any]]:
        """All arrays in the order of their declaration."""
        return [getattr(self, field.name) for field in fields(self)]

    def extended(self, further: "DeviceArrays") -> "DeviceArrays":
        """Return the state with that of further devices at the end."""
        pairs = zip(self.arrays(), further.arrays(), strict=True)
        return DeviceArrays(*(np.concatenate(pair) for pair in pairs))

    def taken(self, devices: Integers) -> "DeviceArrays":
        """Return the state of some devices, in this order."""
        return DeviceArrays(*(array[devices] for array in self.arrays()))


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    features: list[str]
    devices: list[str]
    pending: Annotated[int, Meta(ge=0)]
    decimals: list[int] | None = None
    """Of each feature, where whole numbers are what the history is written as."""


@dataclass(slots=True, eq=False)
class TrainerState:
    """State of a trainer: the names of its devices, their arrays, and their waiting rows."""

    devices: list[str]
    arrays: DeviceArrays
    pending: PendingRows

    @classmethod
    def fresh(cls, features: int) -> "TrainerState":
        """State of a trainer that has had no row."""
        pending = PendingRows(0, features * len(INPUT_KINDS))
        return cls([], DeviceArrays.fresh(0, features), pending)

    def add(self, names: list[str]) -> None:
        """Add devices that have had no row."""
        features = self.arrays.history.shape[1]
        self.arrays = self.arrays.extended(DeviceArrays.fresh(len(names), features))
        self.pending.add_devices(len(names))
        self.devices.extend(names)

    def keep(self, devices: Integers) -> None:
        """Forget all devices but these, which are numbered anew in this order."""
        self.arrays = self.arrays.taken(devices)
        self.pending.keep(devices)
        self.devices = [self.devices[device] for device in devices.tolist()]

    def to_bytes(self, features: Sequence[str]) -> bytes:
        """Encode the state: magic, version, header as msgpack, then each array's bytes.

        Arrays are little-endian and 8-byte aligned; their shapes follow from the header. Version 4
        writes the history as whole numbers of 4 bytes where they hold it exactly.
        """
        rows = self.pending.export()
        history, *others = self.arrays.arrays()
        packed = decimals.pack(history)
        scale, history = (None, history) if packed is None else packed
        header = msgspec.msgpack.encode(
            _Header(list(features), self.devices, pending=len(rows.label), decimals=scale)
        )
        prefix = MAGIC + bytes([STATE_VERSION]) + len(header).to_bytes(4, "little")
        padding = b"\0" * (-(len(prefix) + len(header)) % _ALIGNMENT)
        arrays = [history, *others, self.pending.count, *rows]
        return b"".join([prefix, header, padding, *(_buffer(array) for array in arrays)])

    @classmethod
    def from_bytes(cls, data: bytes, features: Sequence[str]) -> "TrainerState":
        """Decode what `to_bytes` made.

        Raises
        ------
        ValueError
            When the bytes are no state, of an unknown version, of another feature list, or cut off.
        """
        version, header, start = _read_header(data)
        if header.features != list(features):
            raise ValueError(
                f"the state is of the features {header.features}, not {list(features)}: "
                "start another feature list without state"
            )
        devices, inputs = len(header.devices), len(features) * len(INPUT_KINDS)
        layout = _LAYOUTS[version](devices, len(features), header.pending)
        if header.decimals is not None:
            layout[0] = (layout[0][0], np.dtype("<i4"))
        size = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in layout)
        if len(data) != start + size:
            raise ValueError(f"the state has {len(data)} bytes, not {start + size}: it is damaged")
        content = bytearray(memoryview(data)[start:])
        arrays = []
        position = 0
        for shape, dtype in layout:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(content, dtype, count, position).reshape(shape))
            position += count * dtype.itemsize
        *of_devices, waiting = arrays[: -len(Columns._fields)]
        if header.decimals is not None:
            of_devices[0] = decimals.unpack(header.decimals, of_devices[0])
        if version == 1:
            of_devices = first_layout.converted(of_devices)
        if version < _SINCE_ADAPTATION:
            fresh = DeviceArrays.fresh(devices, len(features)).arrays()
            of_devices = second_layout.converted(of_devices, fresh)
        pending = PendingRows(devices, inputs)
        rows = Columns(*arrays[-len(Columns._fields) :])
        pending.append(np.repeat(np.arange(devices), waiting), rows)
        return cls(header.devices, DeviceArrays(*of_devices), pending)


def _read_header(data: bytes) -> tuple[int, _Header, int]:
    """Read the version and the header, and find where the arrays start."""
    if len(data) < _PREFIX_BYTES or data[: len(MAGIC)] != MAGIC:
        raise ValueError("these bytes are not the state of a trainer")
    version = data[len(MAGIC)]
    if not 1 <= version <= STATE_VERSION:
        raise ValueError(
            f"the state has version {version}, this code reads versions 1 to {STATE_VERSION}: "
            "restore it with the release that wrote it, or deploy without state"
        )
    end = _PREFIX_BYTES + int.from_bytes(data[len(MAGIC) + 1 : _PREFIX_BYTES], "little")
    try:
        header = msgspec.msgpack.decode(data[_PREFIX_BYTES:end], type=_Header)
    except msgspec.DecodeError as error:
        raise ValueError(f"the header of the state is damaged: {error}") from error
    return version, header, end + (-end % _ALIGNMENT)


def _layout(devices: int, features: int, pending: int) -> first_layout.Layout:
    """Shape and type of each array of the binary form, in its order."""
    nothing = TrainerState.fresh(features)
    of_devices = [*nothing.arrays.arrays(), nothing.pending.count]
    shapes = [((devices, *array.shape[1:]), array.dtype) for array in of_devices]
    shapes += [((pending, *array.shape[1:]), array.dtype) for array in nothing.pending.export()]
    return [(shape, dtype.newbyteorder("<")) for shape, dtype in shapes]


_LAYOUTS: Final = {1: first_layout.layout, 2: second_layout.layout, 3: _layout, 4: _layout}


def _buffer(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
