"""Values that are chosen once and kept in a file of the home; later versions may choose more."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from flead.stack.files import exclusive, write_file
from flead.stack.service import StackError

Kept = TypeVar("Kept", bound=msgspec.Struct)


def kept(
    kind: type[Kept],
    file: Path,
    lock: Path,
    mode: int,
    choose: Callable[[str, Mapping[str, Any]], Any],
) -> Kept:
    """Return what a file keeps; a field that it lacks is chosen and stored, whoever comes first.

    Parameters
    ----------
    kind : type
        The struct whose fields are kept; what the file holds besides them stays in it.
    file : Path
        The JSON file; made when there is none.
    lock : Path
        Held while it is read and written.
    mode : int
        Permissions of the file.
    choose : callable
        Given the name of a field and all values so far, returns the value of the field.

    Raises
    ------
    StackError
        The file was edited to something else.
    """
    with exclusive(lock):
        try:
            stored = msgspec.json.decode(_content(file), type=dict[str, Any])
            missing = [name for name in kind.__struct_fields__ if name not in stored]
            for name in missing:
                stored[name] = choose(name, stored)
            values = msgspec.convert(stored, kind)
        except msgspec.DecodeError as error:
            raise StackError(f"{file} is not usable: {error}; correct it") from error
        if missing:
            content = msgspec.json.format(msgspec.json.encode(stored)).decode()
            write_file(file, content + "\n", mode)
        return values


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b"{}"
