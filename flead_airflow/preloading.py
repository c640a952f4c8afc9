"""Load what tasks need and takes long to import once, in the process that they are forked from."""

import sys
from collections.abc import Sequence

from flead.settings import Settings


def preload(arguments: Sequence[str] = tuple(sys.argv)) -> bool:
    """Import Great Expectations into a scheduler, and tell whether this is one.

    The tasks of its LocalExecutor are forks, in which a round is then checked in 0.3 s instead of
    5 s. In other processes nothing is imported; there, and with other executors, a check does it.
    """
    if list(arguments[1:2]) != ["scheduler"] or not Settings.from_environment().round_quality_check:
        return False
    from flead.quality.validation import library  # noqa: PLC0415 - not for every process

    library()
    return True
