"""The rows that a suite judges: those of the run, with columns that compare what belongs together.

Each suite has a query in `sql/quality/`, with the run as its parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flead.storage.connection import Cursor

DIRECTORY: Final = Path(__file__).parents[2] / "sql" / "quality"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows with the names of their columns."""

    columns: list[str]
    rows: Sequence[Sequence[Any]]


def read_batch(cursor: Cursor, suite: str, parameters: Mapping[str, object]) -> Batch:
    """Return the rows that a suite judges."""
    cursor.execute((DIRECTORY / f"{suite}.sql").read_text(encoding="utf-8"), parameters)
    assert cursor.description is not None  # noqa: S101 - a query always has columns
    return Batch([column.name for column in cursor.description], cursor.fetchall())
