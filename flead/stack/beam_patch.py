"""Keep Beam's servers for Flink's Python workers on loopback.

Beam chooses a loopback address for each of them and then gives only its port to gRPC
(`ServerFactory.InetSocketAddressServerFactory.createServer`: `NettyServerBuilder.forPort`), so they
listen, without any account, on every interface. No setting changes that; Beam's factory for epoll
sockets already calls `forAddress`. This rewrites that one call in that one class, which goes into a
small jar before Flink's own. Format of class files: JVM specification, chapter 4.
"""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from flead.stack.service import StackError

CLASS = "org/apache/beam/sdk/fn/server/ServerFactory$InetSocketAddressServerFactory.class"
JAR_NAME = "beam-loopback.jar"
"""Flink puts jars on the class path by name: it comes before `flink-python`."""
UTF8, METHOD_REFERENCE, NAME_AND_TYPE = 1, 10, 12
# Bytes after the tag of a constant, for all tags but UTF8.
CONSTANT_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4}
CONSTANT_SIZES |= {15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
TWO_SLOTS = frozenset({5, 6})
INVOKE_VIRTUAL, INVOKE_STATIC, NOP = b"\xb6", b"\xb8", b"\x00"
CONSTANTS_START = 10


def write_patched_jar(flink_python_jar: Path, target: Path) -> None:
    """Write a jar that holds the corrected class of a `flink-python` jar.

    Raises
    ------
    StackError
        The class is not as known: another version of Beam may not need this, or differently.
    """
    with zipfile.ZipFile(flink_python_jar) as source:
        corrected = listen_on_the_given_address(source.read(CLASS))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as jar:
        jar.writestr(zipfile.ZipInfo(CLASS), corrected)


def listen_on_the_given_address(class_file: bytes) -> bytes:
    """Replace `forPort(address.getPort())` by `forAddress(address)`.

    Raises
    ------
    StackError
        There is not exactly one such call.
    """
    constants, end = _constants(class_file)
    (count,) = struct.unpack_from(">H", class_file, CONSTANTS_START - 2)
    names = {index: _method_name(constants, index) for index in constants}
    get_port = [index for index, name in names.items() if name == "InetSocketAddress.getPort"]
    for_port = [index for index, name in names.items() if name == "NettyServerBuilder.forPort"]
    if len(get_port) != 1 or len(for_port) != 1:
        raise StackError(f"{CLASS} is not the known one: its calls differ")
    owner, name_and_type = struct.unpack(">HH", constants[for_port[0]][1:])
    _, descriptor = struct.unpack(">HH", constants[name_and_type][1:])
    result = constants[descriptor][3:].partition(b")")[2]
    added = (
        _utf8(b"forAddress")
        + _utf8(b"(Ljava/net/SocketAddress;)" + result)
        + struct.pack(">BHH", NAME_AND_TYPE, count, count + 1)
        + struct.pack(">BHH", METHOD_REFERENCE, owner, count + 2)
    )
    before = INVOKE_VIRTUAL + _index(get_port[0]) + INVOKE_STATIC + _index(for_port[0])
    after = 3 * NOP + INVOKE_STATIC + _index(count + 3)
    code = class_file[end:]
    if code.count(before) != 1:
        raise StackError(f"{CLASS} is not the known one: it asks for its port elsewhere")
    head = class_file[: CONSTANTS_START - 2] + _index(count + 4)
    return head + class_file[CONSTANTS_START:end] + added + code.replace(before, after)


def _constants(class_file: bytes) -> tuple[dict[int, bytes], int]:
    """Return the constants by index, each with its tag, and the position behind the last."""
    constants: dict[int, bytes] = {}
    position = CONSTANTS_START
    for index in _indices(class_file, constants):
        tag = class_file[position]
        size = (
            2 + struct.unpack_from(">H", class_file, position + 1)[0]
            if tag == UTF8
            else CONSTANT_SIZES[tag]
        )
        constants[index] = class_file[position : position + 1 + size]
        position += 1 + size
    return constants, position


def _indices(class_file: bytes, constants: dict[int, bytes]) -> Iterator[int]:
    (count,) = struct.unpack_from(">H", class_file, CONSTANTS_START - 2)
    index = 1
    while index < count:
        yield index
        index += 2 if constants[index][0] in TWO_SLOTS else 1


def _method_name(constants: dict[int, bytes], index: int) -> str:
    """Return `Class.method` of a method reference, the class without its package, else nothing."""
    if constants[index][0] != METHOD_REFERENCE:
        return ""
    owner, name_and_type = struct.unpack(">HH", constants[index][1:])
    (class_name,) = struct.unpack(">H", constants[owner][1:])
    name, _ = struct.unpack(">HH", constants[name_and_type][1:])
    short = constants[class_name][3:].rpartition(b"/")[2]
    return f"{short.decode()}.{constants[name][3:].decode()}"


def _utf8(text: bytes) -> bytes:
    return struct.pack(">BH", UTF8, len(text)) + text


def _index(index: int) -> bytes:
    return struct.pack(">H", index)
