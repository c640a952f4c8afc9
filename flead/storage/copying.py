"""Bulk writes by COPY."""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from io import StringIO
from typing import Any

import msgspec
from psycopg2 import sql

from flead.storage.connection import Cursor

NULL = r"\N"
CHUNK_CHARACTERS = 4 * 1024 * 1024
_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_ARRAY_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\""})


class Jsonb(msgspec.Struct, frozen=True):
    """Marks a value for a `jsonb` column; a bare list is an array, a bare dict is refused."""

    value: Any


def copy_rows(
    cursor: Cursor, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> int:
    """Append `rows` to `table` in the transaction of `cursor`.

    Parameters
    ----------
    rows
        Values in the order of `columns`: None, bool, int, float (nan and infinities too; doubles
        arrive exact), str, bytes, aware `datetime`, `Jsonb`, or a list or tuple of these.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    TypeError
        For a value of another type.
    ValueError
        For a string with a NUL character, which PostgreSQL cannot store, or a naive `datetime`.

    Notes
    -----
    Text format: https://www.postgresql.org/docs/current/sql-copy.html
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), identifiers(columns)
    )
    count = 0
    buffer = StringIO()
    for row in rows:
        buffer.write("\t".join(map(_field, row)))
        buffer.write("\n")
        count += 1
        if buffer.tell() >= CHUNK_CHARACTERS:
            _send(cursor, statement, buffer)
            buffer = StringIO()
    if buffer.tell():
        _send(cursor, statement, buffer)
    return count


def stage_rows(
    cursor: Cursor, name: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write `rows` into a new temporary table with some columns of `table`.

    It ends with the transaction.
    """
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS"
            " SELECT {columns} FROM {table} WITH NO DATA"
        ).format(
            name=sql.Identifier(name),
            columns=identifiers(columns),
            table=sql.Identifier(table),
        )
    )
    copy_rows(cursor, name, columns, rows)


def copy_new_rows(
    cursor: Cursor, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> int:
    """Append `rows` as `copy_rows` does, but for those of which `table` has the key.

    Once in a transaction for each table. Returns how many were new.
    """
    staging = f"new_{table}"
    stage_rows(cursor, staging, table, columns, rows)
    cursor.execute(
        sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} ON CONFLICT DO NOTHING"
        ).format(
            table=sql.Identifier(table),
            columns=identifiers(columns),
            staging=sql.Identifier(staging),
        )
    )
    return cursor.rowcount


def identifiers(columns: Iterable[str]) -> sql.Composed:
    """Return names of columns as a list in a statement."""
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _send(cursor: Cursor, statement: sql.Composed, buffer: StringIO) -> None:
    buffer.seek(0)
    cursor.copy_expert(statement, buffer)


def _field(value: object) -> str:
    text = encode(value)
    return NULL if text is None else text.translate(_COPY_ESCAPES)


def encode(value: object) -> str | None:
    """Return PostgreSQL's text form of `value` as `copy_rows` takes it; None stands for NULL."""
    if value is None:
        return None
    for kind, encoder in _ENCODERS:
        if isinstance(value, kind):
            return encoder(value)
    raise TypeError(f"COPY takes no value of type {type(value).__name__}: {value!r}")


def _encode_bool(value: bool) -> str:
    return "t" if value else "f"


def _encode_float(value: float) -> str:
    # repr is the shortest text that reads back as the same double.
    return repr(float(value)) if math.isfinite(value) else str(float(value))


def _encode_str(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"PostgreSQL stores no NUL character: {value!r}")
    return str(value)


def _encode_bytes(value: bytes) -> str:
    return r"\x" + value.hex()


def _encode_datetime(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"a time without a zone is ambiguous: {value.isoformat()}")
    return value.isoformat()


def _encode_jsonb(value: Jsonb) -> str:
    return msgspec.json.encode(value.value).decode()


def _encode_array(value: list[object] | tuple[object, ...]) -> str:
    if set(map(type, value)) <= {float, int}:
        # The long arrays of models; PostgreSQL reads Python's spelling of nan and inf.
        return "{" + ",".join(map(repr, value)) + "}"
    return "{" + ",".join(map(_element, value)) + "}"


def _element(value: object) -> str:
    if isinstance(value, list | tuple):
        return _encode_array(value)
    text = encode(value)
    return "NULL" if text is None else f'"{text.translate(_ARRAY_ESCAPES)}"'


# bool before int, its base class.
_ENCODERS: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (bool, _encode_bool),
    (float, _encode_float),
    (int, str),
    (str, _encode_str),
    (bytes, _encode_bytes),
    (datetime, _encode_datetime),
    (Jsonb, _encode_jsonb),
    (list, _encode_array),
    (tuple, _encode_array),
)
