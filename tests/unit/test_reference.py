"""How the reference reads the code: comments of migrations, types, docstrings of settings."""

import pytest

from reference.json_types import NO_BREAK, describe
from reference.markdown import table
from reference.settings import docstrings
from reference.tables import hypertables, told_by

MIGRATION = """\
-- What was read,
-- and by whom.
CREATE TABLE IF NOT EXISTS readings (
    reader TEXT NOT NULL,
    -- Where it was read up to
    next_offset BIGINT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE
);

-- Not said of any column
CREATE INDEX IF NOT EXISTS readings_by_time ON readings (started_at);

DO $$
BEGIN
    PERFORM create_hypertable(
        'readings', 'started_at',
        chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
    );
END
$$;
"""
LATER = """\
-- Whether it goes on
ALTER TABLE readings
ADD COLUMN IF NOT EXISTS is_open BOOLEAN NOT NULL DEFAULT TRUE;

CREATE OR REPLACE VIEW open_readings AS SELECT * FROM readings WHERE is_open;
"""


@pytest.fixture
def migrations(tmp_path):
    (tmp_path / "0001_readings.sql").write_text(MIGRATION)
    (tmp_path / "0001_readings.rollback.sql").write_text("-- Nothing\nDROP TABLE readings;\n")
    (tmp_path / "0002_open.sql").write_text(LATER)
    return tmp_path


def test_a_comment_is_told_of_the_table_or_the_column_that_it_precedes(migrations):
    told = told_by(migrations)

    assert told["readings"].itself == "What was read, and by whom."
    assert told["readings"].columns == {
        "next_offset": "Where it was read up to",
        "is_open": "Whether it goes on",
    }
    assert told["open_readings"].itself == ""


def test_a_hypertable_is_told_with_its_time_and_its_chunks(migrations):
    assert hypertables(migrations) == {"readings": ("started_at", "1 day")}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, f"integer ≥{NO_BREAK}0"),
        ({"type": "number", "exclusiveMinimum": 0}, f"number >{NO_BREAK}0"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or `null`"),
        ({"enum": ["global", "candidate"]}, "`global`, `candidate`"),
        ({"type": "array", "items": {"type": "number"}}, "array of number"),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            "object: name → integer",
        ),
        ({"$ref": "#/$defs/Moments"}, "[Moments](#moments)"),
    ],
)
def test_a_type_is_told_in_words(schema, said):
    definitions = {"Moments": {"title": "Moments", "type": "object", "properties": {}}}

    assert describe(schema, definitions) == said


class Example:
    first: int = 1
    """Said
    on two lines."""
    second: int = 2


def test_a_setting_is_told_by_the_text_below_it():
    assert docstrings(Example) == {"first": "Said on two lines."}


def test_a_cell_holds_no_border_of_its_own_and_no_line_break():
    assert table(("a", "b"), [("x|y", "two\nlines")]) == (
        "| a | b |\n| --- | --- |\n| x\\|y | two lines |"
    )
