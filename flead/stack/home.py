"""Where the embedded stack keeps things: one folder, `FLEAD_HOME`. Standard library only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder of the repository that this code runs from."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folders and files of one embedded stack.

    Parameters
    ----------
    root : Path
        `FLEAD_HOME`, by default `.flead` in the checkout.
    envs, jars : Path
        `FLEAD_ENVS` and `FLEAD_JARS`, by default below `root`; several homes may share them.
    """

    root: Path
    envs: Path
    jars: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Home":
        """Read the place of each folder from the environment; relative paths are made absolute."""
        root = Path(environ.get("FLEAD_HOME") or CHECKOUT / ".flead").resolve()
        return cls(
            root=root,
            envs=Path(environ.get("FLEAD_ENVS") or root / "envs").resolve(),
            jars=Path(environ.get("FLEAD_JARS") or root / "jars").resolve(),
        )

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that lead a child process to this home."""
        return {
            "FLEAD_HOME": str(self.root),
            "FLEAD_ENVS": str(self.envs),
            "FLEAD_JARS": str(self.jars),
        }

    @property
    def data(self) -> Path:
        """What the servers store; kept between starts."""
        return self.root / "data"

    @property
    def config(self) -> Path:
        """Configuration files, written anew by every `up`."""
        return self.root / "config"

    @property
    def run(self) -> Path:
        """Process records, sockets, locks and working folders."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One rotated log a service, `NAME.log`."""
        return self.root / "logs"

    @property
    def ports_file(self) -> Path:
        """The ports, chosen once."""
        return self.root / "ports.json"

    @property
    def secrets_file(self) -> Path:
        """The generated passwords and keys, mode 600."""
        return self.root / "secrets.json"

    @property
    def models(self) -> Path:
        """The artifacts of the global models."""
        return self.data / "models"

    def python(self, environment: str) -> Path:
        """Return the interpreter of one of the environments."""
        return self.envs / environment / "bin" / "python"

    def site_packages(self, environment: str) -> Path:
        """Return the folder of an environment's installed packages."""
        return self.envs / environment / "lib" / "python3.11" / "site-packages"

    def plan_file(self, service: str) -> Path:
        """Return the file that tells the launcher how to start a service."""
        return self.config / "services" / f"{service}.json"

    def log_file(self, service: str) -> Path:
        """Return the log of a service."""
        return self.logs / f"{service}.log"

    def work_folder(self, service: str) -> Path:
        """Return the working folder of a service: empty, and its own."""
        return self.run / "work" / service
