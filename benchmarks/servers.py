"""Servers of a benchmark's own, in a home beside the usual one; they end with it."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

from flead.stack.addresses import Addresses
from flead.stack.home import Home

Say = Callable[[str], None]


class BenchmarkError(Exception):
    """A benchmark could not be carried out."""


def own_home() -> Home:
    """Return the home of benchmarks, with the usual one's environments and jars."""
    shared = Home.from_environment()
    return Home(root=shared.root / "bench", envs=shared.envs, jars=shared.jars)


@contextlib.contextmanager
def running(home: Home, *services: str, **environment: str) -> Iterator[Addresses]:
    """Start services, and stop them and forget their data at the end.

    Raises
    ------
    BenchmarkError
        One of them does not start.
    """
    try:
        flead(home, "up", *services, **environment)
        yield Addresses.of(home, environ={})
    finally:
        flead(home, "down", "--wipe")


def flead(home: Home, *arguments: str, **environment: str) -> None:
    """Run the `flead` command on a home.

    Raises
    ------
    BenchmarkError
        With the end of what it said.
    """
    ran = subprocess.run(
        [home.python("tools"), "-m", "flead.cli", *arguments],
        env=os.environ | home.variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BenchmarkError(f"flead {' '.join(arguments)} failed: {ran.stderr[-2000:]}")
