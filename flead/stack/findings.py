"""What an examination finds."""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What a finding asks for."""

    OK = "ok"
    NOTE = "note"
    """Nothing has to be done, or the next start does it."""
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    area: str
    """`machine`, `ports`, `installation`, `home`, `settings` or `services`."""
    subject: str
    verdict: Verdict
    said: str
    fix: str | None = None
    """What to do about it; every wrong finding has one."""
