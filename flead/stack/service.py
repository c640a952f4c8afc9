"""What the supervisor needs to know of a server."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class StackError(Exception):
    """The embedded stack cannot do what was asked; the message says why and what to do."""


def _nothing() -> None:
    """Stand for a step that a service does not need."""


def once(action: Callable[[], None]) -> Callable[[], None]:
    """Return an action that runs at its first call only, whichever thread makes it."""
    lock, done = threading.Lock(), threading.Event()

    def run() -> None:
        with lock:
            if not done.is_set():
                action()
                done.set()

    return run


@dataclass(frozen=True, slots=True)
class Service:
    """One server: how to start it, how to know that it answers, how to stop it."""

    name: str
    command: tuple[str, ...]
    """Program and arguments; the program is an absolute path."""
    is_healthy: Callable[[float], bool]
    """Whether it answers by itself, given when its process started (seconds since the epoch).

    Raises `StackError` when waiting longer is in vain.
    """
    cwd: Path
    """A folder of its own: also how its processes are recognised."""
    port: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides those of the supervisor."""
    user: str | None = None
    """The account it drops to when started by root."""
    depends_on: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    """Python environments that it runs from."""
    jars: tuple[str, ...] = ()
    """Sets of jars that it runs with."""
    prepare: Callable[[], None] = _nothing
    """Configuration and first-time set-up, once all that it depends on is ready."""
    on_ready: Callable[[], None] = _nothing
    """What makes it usable once it answers, before others may depend on it."""
    stale_files: tuple[Path, ...] = ()
    """Files of a dead predecessor that would keep it from starting."""
    stop_signal: str = "TERM"
    stop_seconds: int = 15
    """How long it may take to stop before it is killed."""
    start_seconds: int = 240
    """How long it may take to answer."""
    is_optional: bool = False
    """Whether it starts only when it is named."""
