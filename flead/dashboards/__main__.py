"""Writes the dashboards and the alert rules to a folder: `python -m flead.dashboards grafana`."""

import sys
from pathlib import Path

from flead.dashboards.files import files
from flead.settings import Settings


def main(folder: Path) -> None:
    """Write every file below `folder`, with the limits of the environment's settings."""
    for name, content in files(Settings.from_environment()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
