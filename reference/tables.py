"""The page of tables and views: the catalogue of a migrated database, told by the migrations."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flead.storage.connection import Cursor
from flead.storage.migrations import DIRECTORY
from reference.markdown import code, codes, page, table

INTRODUCTION = """\
One set of migrations (`sql/migrations`) makes these in PostgreSQL and in TimescaleDB; what is named
a hypertable is one where the extension is there, and a plain table where it is not.
[What is kept, and for how long](../retention.md) has the days. Readers of evaluations and feedback
use the views `passed_evaluations` and `passed_feedback`."""

RELATIONS = """
SELECT c.oid, c.relname, c.relkind
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
AND c.relname NOT LIKE '%%yoyo%%'
AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname
"""
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), a.attgenerated <> '', a.attidentity <> ''
FROM pg_attribute AS a
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
CONSTRAINTS = """
SELECT contype, pg_get_constraintdef(oid),
       (SELECT array_agg(a.attname ORDER BY k.place)
        FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute AS a ON a.attrelid = conrelid AND a.attnum = k.number)
FROM pg_constraint WHERE conrelid = %s AND contype IN ('p', 'c', 'f', 'u') ORDER BY conname
"""

BEGINNING = re.compile(r"(?:CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW) (\w+)")
ADDED = re.compile(r"ALTER TABLE (?:IF EXISTS )?(\w+)")
COLUMN = re.compile(r"(?:ADD COLUMN IF NOT EXISTS )?([a-z_0-9]+) +(?:[A-Z]+[A-Z ]*\b)")
HYPERTABLE = re.compile(
    r"create_hypertable\(\s*'(\w+)', '(\w+)',\s*chunk_time_interval => INTERVAL '([^']+)'"
)
VALUES = re.compile(r"'([^']*)'::")
EXAMPLE = re.compile(r'\{"(?:[^{}]|\{[^{}]*\})*\}')


@dataclass
class Told:
    """What the migrations say of a table or view, and of its columns."""

    itself: str = ""
    columns: dict[str, str] = field(default_factory=dict)


def told_by(directory: Path = DIRECTORY) -> dict[str, Told]:
    """Return the comments of the migrations, each by the table and column that it precedes.

    A comment before several columns is that of the first.
    """
    found: dict[str, Told] = defaultdict(Told)
    for file in sorted(directory.glob("*.sql")):
        if not file.stem.endswith(".rollback"):
            _read(file.read_text(encoding="utf-8"), found)
    return found


def _read(text: str, found: dict[str, Told]) -> None:
    subject, comment = "", []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("--"):
            comment.append(line.removeprefix("--").strip())
            continue
        said, comment = " ".join(comment), []
        if beginning := BEGINNING.match(line):
            subject = beginning[1]
            found[subject].itself = said or found[subject].itself
        elif altered := ADDED.match(line):
            subject = altered[1]
            # Said of a change, and meant for the column on the next line.
            comment = [said] if said else []
        elif (column := COLUMN.match(line)) and subject and said:
            found[subject].columns[column[1]] = said
        elif not line or line.endswith(";"):
            subject = subject if line else ""


def hypertables(directory: Path = DIRECTORY) -> dict[str, tuple[str, str]]:
    """Return time column and length of the chunks of each hypertable."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(directory.glob("*.sql")))
    return {name: (by, chunk) for text in texts for name, by, chunk in HYPERTABLE.findall(text)}


def tables_page(cursor: Cursor) -> str:
    """Return the page of a migrated PostgreSQL database without TimescaleDB."""
    told, hyper = told_by(), hypertables()
    cursor.execute(RELATIONS)
    relations = cursor.fetchall()
    kinds = {"r": "Tables", "v": "Views"}
    parts = []
    for kind, title in kinds.items():
        parts.append(f"## {title}")
        parts += [
            "\n\n".join(_relation(cursor, oid, name, told.get(name, Told()), hyper.get(name)))
            for oid, name, relkind in relations
            if relkind == kind
        ]
    source = "the migrated database and the comments of `sql/migrations`"
    return page("Tables and views", source, INTRODUCTION, *parts)


def _relation(
    cursor: Cursor, oid: int, name: str, told: Told, hyper: tuple[str, str] | None
) -> Iterator[str]:
    yield f"### {name}"
    if told.itself:
        yield told.itself
    cursor.execute(CONSTRAINTS, (oid,))
    constraints = cursor.fetchall()
    facts = [f"Key: {codes(columns)}." for kind, _, columns in constraints if kind == "p"]
    if hyper:
        facts.append(f"Hypertable on {code(hyper[0])} in chunks of {hyper[1]}.")
    if facts:
        yield " ".join(facts)
    cursor.execute(COLUMNS, (oid,))
    notes = _notes(constraints)
    rows = [
        (
            code(column),
            f"{_short(kind)}{'' if is_required else ' or null'}",
            _default(default, is_generated=is_generated, is_identity=is_identity),
            _sentences(_marked(told.columns.get(column, "")), notes.get(column, "")),
        )
        for column, kind, is_required, default, is_generated, is_identity in cursor.fetchall()
    ]
    if not any(row[2] for row in rows):
        yield table(("Column", "Type", "Is"), [(row[0], row[1], row[3]) for row in rows])
    else:
        yield table(("Column", "Type", "Default", "Is"), rows)


def _notes(constraints: list[tuple[str, str, list[str]]]) -> Mapping[str, str]:
    """Say what single columns are held to: listed values, and other tables."""
    notes = {}
    for kind, definition, columns in constraints:
        if kind == "f":
            target = definition.partition("REFERENCES ")[2].partition("(")[0]
            notes[columns[0]] = f"Refers to [{target}](#{target})."
        elif kind == "c" and len(columns or ()) == 1 and "ARRAY[" in definition:
            notes[columns[0]] = f"One of {codes(VALUES.findall(definition))}."
    return notes


def _short(kind: str) -> str:
    return kind.replace("timestamp with time zone", "timestamptz").replace("character", "char")


def _default(text: str, *, is_generated: bool, is_identity: bool) -> str:
    if is_identity:
        return "counted"
    if is_generated:
        return f"always {code(' '.join(text.split()))}"
    return code(text.partition("::")[0])


def _marked(comment: str) -> str:
    """Mark the examples of JSON in a comment as code."""
    return EXAMPLE.sub(lambda found: code(found[0]), comment)


def _sentences(*texts: str) -> str:
    """Put texts one after the other, each with a full stop."""
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts if text)
