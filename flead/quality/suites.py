"""Suites of rules, as people wrote them in `expectations/`, one for each table."""

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

DIRECTORY: Final = Path(__file__).parents[2] / "expectations"


class Severity(StrEnum):
    """`critical` quarantines a run and keeps a round open, `warning` is only told."""

    CRITICAL = "critical"
    WARNING = "warning"


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name that a rule is known by, and why there is the rule."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$")]
    why: Annotated[str, Meta(min_length=1)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An expectation as Great Expectations takes it: `type` is its name there."""

    type: str
    kwargs: dict[str, Any]
    severity: Severity
    meta: About


class AboutSuite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The columns that name a row in an example, and whether there may be no row to judge."""

    keys: Annotated[list[str], Meta(min_length=1)]
    may_be_empty: bool


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of a table; `name` is that of the table, the file, and the query of its rows."""

    name: str
    expectations: Annotated[list[Rule], Meta(min_length=1)]
    meta: AboutSuite


class SuiteError(Exception):
    """A suite cannot be used; the message names the file and what is wrong."""


def load(name: str, directory: Path = DIRECTORY) -> Suite:
    """Read the suite of a table.

    Raises
    ------
    SuiteError
        It cannot be read, a key is unknown or missing, or two rules have one name.
    """
    file = directory / f"{name}.json"
    try:
        suite = msgspec.json.decode(file.read_bytes(), type=Suite)
    except (OSError, msgspec.DecodeError) as error:
        raise SuiteError(f"{file}: {error}") from error
    if suite.name != name:
        raise SuiteError(f"{file}: the suite is named {suite.name}, not as its file")
    names = Counter(rule.meta.name for rule in suite.expectations)
    if twice := sorted(rule for rule, count in names.items() if count > 1):
        raise SuiteError(f"{file}: more than one rule is named {', '.join(twice)}")
    return suite
