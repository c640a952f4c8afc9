"""Load what tasks need and takes long to import once, in the process that they are forked from."""

import sys
from collections.abc import Sequence

from airflow.sdk.configuration import conf

from flead.settings import Settings


def preload(arguments: Sequence[str] = tuple(sys.argv)) -> bool:
    """Import Great Expectations into the process that forks tasks, and tell whether this is one.

    A round is then checked in 0.3 s instead of 5 s. That process is Celery's worker or, with the
    LocalExecutor, the scheduler. In others nothing is imported; there, and with other executors, a
    check does it.
    """
    checks = Settings.from_environment().round_quality_check
    if not checks or not _forks_tasks(list(arguments[1:3])):
        return False
    from flead.quality.validation import library  # noqa: PLC0415 - not for every process

    library()
    return True


def _forks_tasks(command: list[str]) -> bool:
    if command[:1] == ["scheduler"]:
        return bool(conf.get("core", "executor") == "LocalExecutor")
    return command == ["celery", "worker"]
