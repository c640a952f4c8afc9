"""Files of global models, each written whole or not at all."""

import os
import tempfile
from pathlib import Path


def artifact_path(folder: str | Path, version: int) -> Path:
    """Return where the model of a version is kept."""
    return Path(folder).resolve() / f"global-model-{version:08d}.json"


def write_artifact(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, and survives power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Others read models: the dashboards, and jobs of other accounts.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
