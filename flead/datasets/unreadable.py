"""Rows of a set that were left out, and why."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

NAMED_ROWS: Final = 5
"""Rows of each reason that are named; all are counted."""


class UnreadableReason(StrEnum):
    """What is wrong with a row; the first that applies, in this order."""

    TOO_MANY_CELLS = "too_many_cells"
    EMPTY_LINE = "empty_line"
    NO_DEVICE = "no_device"
    NO_TIME = "no_time"
    NO_NUMBER = "no_number"
    NOT_FINITE = "not_finite"
    NO_LABEL = "no_label"


class UnreadableRow(NamedTuple):
    """Where a row stands, and the cell that is wrong with it; None when it is the whole line."""

    file: str
    line: int
    column: str | None
    cell: str | None

    def __str__(self) -> str:
        what = "" if self.column is None else f", column {self.column!r}: {self.cell!r}"
        return f"{self.file}, line {self.line}{what}"


@dataclass(slots=True)
class Unreadable:
    """How many rows were left out for each reason, and the first of each."""

    counts: dict[UnreadableReason, int] = field(default_factory=dict)
    first: dict[UnreadableReason, list[UnreadableRow]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All rows that were left out."""
        return sum(self.counts.values())

    def add(self, reason: UnreadableReason, rows: int, first: list[UnreadableRow]) -> None:
        """Count rows of one file."""
        self.counts[reason] = self.counts.get(reason, 0) + rows
        named = self.first.setdefault(reason, [])
        named.extend(first[: NAMED_ROWS - len(named)])

    def lines(self) -> list[str]:
        """One line for each reason, with the rows that are named."""
        return [
            f"{count:,} rows left out, {reason.replace('_', ' ')}: "
            + "; ".join(map(str, self.first[reason]))
            + ("" if count <= len(self.first[reason]) else "; …")
            for reason, count in self.counts.items()
        ]
