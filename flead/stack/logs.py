"""The ends of log files, and what is added to them."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

POLL_SECONDS = 0.3
BLOCK_BYTES = 64 * 1024


def tail(file: Path, lines: int) -> list[str]:
    """Return the last lines of a file, none when there is no file."""
    if lines == 0 or not file.exists():
        return []
    with file.open("rb") as content:
        position, data = content.seek(0, 2), b""
        while position > 0 and data.count(b"\n") <= lines:
            step = min(BLOCK_BYTES, position)
            position = content.seek(position - step)
            data = content.read(step) + data
    return data.decode("utf-8", errors="replace").splitlines()[-lines:]


def follow(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield what is added to files from now on, as (name, line), across their rotation; endless."""
    positions = {name: _size(file) for name, file in files.items()}
    while True:
        for name, file in files.items():
            added, positions[name] = _read_lines(file, positions[name])
            yield from ((name, line) for line in added)
        time.sleep(POLL_SECONDS)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _read_lines(file: Path, position: int) -> tuple[list[str], int]:
    """Return the whole lines from a position on and the position behind them."""
    size = _size(file)
    if size < position:
        position = 0
    if size == position:
        return [], position
    with file.open("rb") as content:
        content.seek(position)
        whole, newline, _ = content.read(size - position).rpartition(b"\n")
    return whole.decode("utf-8", errors="replace").splitlines(), position + len(whole + newline)
