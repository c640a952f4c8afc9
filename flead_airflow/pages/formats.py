"""Figures and times as people read them."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

NOTHING: Final = "\N{EN DASH}"
"""Stands where there is no figure."""
WHOLE: Final = 100
"""Rates from here on have no decimals."""
BRIEF: Final = 10
"""Seconds below which tenths count."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def count(value: float | None) -> str:
    """Return a whole number with its thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return a number a second: few digits where it is small."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def decimals(value: float | None, digits: int = 4) -> str:
    """Return a number with a fixed number of decimals."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Return a difference with its sign."""
    return NOTHING if value is None else f"{value:+.{digits}f}"


def significant(value: float | None) -> str:
    """Return a number of any size to four digits."""
    return NOTHING if value is None else f"{value:,.4g}"


def plain(value: object) -> str:
    """Return a setting as it is written: 0.05, 30, 1e-06."""
    if value is None:
        return NOTHING
    return f"{value:g}" if isinstance(value, float) else str(value)


def moment(value: datetime | None) -> str:
    """Return a time in UTC to the second."""
    return NOTHING if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(value: datetime | None) -> str:
    """Return a time for programs."""
    return "" if value is None else value.astimezone(UTC).isoformat(timespec="seconds")


def duration(value: float | timedelta | None) -> str:
    """Return a length of time by its two largest units."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < BRIEF:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, smaller in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long ago something was."""
    if value is None:
        return NOTHING
    seconds = (now - value).total_seconds()
    if seconds < MINUTE:
        return f"{max(seconds, 0):.0f} s ago"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min ago"
    if seconds < 2 * DAY:
        return f"{seconds // HOUR:.0f} h ago"
    return f"{seconds // DAY:.0f} d ago"


def words(value: str) -> str:
    """Return a name of the database for people: `rolled_back` is "rolled back"."""
    return value.replace("_", " ")


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        count, rate, percent, decimals, signed, significant, plain, moment, iso, duration, ago,
        words,
    )
}  # fmt: skip
