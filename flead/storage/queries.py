"""Queries of the pages: files in `sql/pages/`, with parameters."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from flead.storage.connection import Cursor

DIRECTORY: Final = Path(__file__).parents[2] / "sql" / "pages"

Row = dict[str, Any]


def rows(cursor: Cursor, name: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
    """Return what a query finds, each row by the names of its columns.

    Parameters
    ----------
    name
        Of the file, without its ending.
    """
    cursor.execute(_text(name), parameters or {})
    assert cursor.description is not None  # noqa: S101 - a query always has columns
    columns = [column.name for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def row(cursor: Cursor, name: str, parameters: Mapping[str, object] | None = None) -> Row | None:
    """Return the first row that a query finds, None without one."""
    return next(iter(rows(cursor, name, parameters)), None)


@cache
def _text(name: str) -> str:
    return (DIRECTORY / f"{name}.sql").read_text(encoding="utf-8")
