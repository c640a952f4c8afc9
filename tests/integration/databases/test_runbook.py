"""What the runbook tells people to type fits the system that they type it into."""

import re
from pathlib import Path

import msgspec
import pytest

from flead.settings import PREFIX, Settings
from flead.storage.connection import connect
from flead.storage.migrations import migrate

COMMAND = re.compile(r'bin/flead sql "([^"]+)"')
INLINE = re.compile(r"`(SELECT [^`]+)`")
NAMED = re.compile(rf"{PREFIX}([A-Z_]+)")
NO_SETTINGS = {"DATABASE_URL", "HOME"}


@pytest.fixture
def runbook(checkout: Path) -> str:
    return (checkout / "docs" / "operations.md").read_text()


def test_each_statement_of_the_runbook_runs(runbook: str, database_url: str) -> None:
    migrate(database_url)
    statements = COMMAND.findall(runbook) + INLINE.findall(runbook)

    assert len(statements) >= 8
    for statement in statements:
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement)


def test_each_setting_of_the_runbook_is_one(runbook: str) -> None:
    settings = {field.name.upper() for field in msgspec.structs.fields(Settings)}
    # `FLEAD_RETENTION_...` stands for all that begin so, and `FLEAD_<NAME>` for any.
    named = {name.rstrip("_") for name in NAMED.findall(runbook)} - NO_SETTINGS - {"RETENTION", ""}

    assert named <= settings, named - settings
