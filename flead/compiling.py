"""Functions that numba compiles to machine code."""

import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# numba looks each builtin up in the module that it names; PyFlink's workers replace `print`.
vars(sys.modules[print.__module__]).setdefault(print.__name__, print)

import numba  # noqa: E402 - after the line above

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
