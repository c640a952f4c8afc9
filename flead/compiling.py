"""Functions that numba compiles to machine code."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

# numba looks each builtin up in the module that it names; PyFlink's workers replace `print`.
vars(sys.modules[print.__module__]).setdefault(print.__name__, print)

import numba  # noqa: E402 - after the line above

PACKAGE = Path(__file__).parent
COMPILED_FROM = ("compiling.py", "contracts/*.py", "features/*.py", "learning/*.py")

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function when it is first called; the result is kept on disk.

    Loops over rows then cost what they cost in C, however few devices a call has. Arithmetic stays
    strict IEEE 754 in the order that is written: results do not depend on how rows are grouped. A
    division by zero gives infinity or nan, as numpy's does. See
    https://numba.readthedocs.io/en/stable/user/jit.html; `NUMBA_CACHE_DIR` moves what is kept.
    """
    made: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return made


def cache_folder() -> Path:
    """Return where compiled functions are kept: a folder of its own for each state of the sources.

    numba itself looks only at the file of a function, not at those of the functions that it calls.
    It is beside the sources, or below the user's own folder where these cannot be written.
    """
    digest = hashlib.sha256()
    for pattern in COMPILED_FROM:
        for source in sorted(PACKAGE.glob(pattern)):
            digest.update(source.read_bytes())
    beside = PACKAGE / "__pycache__"
    parent = beside if os.access(beside if beside.exists() else PACKAGE, os.W_OK) else _own_folder()
    return parent / f"compiled-{digest.hexdigest()[:16]}"


def _own_folder() -> Path:
    """Return a folder that nobody else can write: what is in it gets executed."""
    folder = Path(tempfile.gettempdir()) / f"flead-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid() or folder.stat().st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="flead-"))
    return folder


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]
