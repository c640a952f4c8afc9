"""Charts as data: `static/charts.js` draws them, and makes a table of the same figures.

A chart has axes and series; a point is [x, y], times are milliseconds since the epoch.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from flead.storage.queries import Row

Draw = Literal["line", "points", "area", "steps"]
Format = Literal["percent", "decimals", "count", "rate", "seconds", "number"]
Point = tuple[float, float | None]


def milliseconds(time: datetime) -> float:
    """Return a time as charts have it."""
    return time.timestamp() * 1e3


def series(
    name: str,
    points: Iterable[Sequence[float | None]],
    *,
    colour: str,
    draw: Draw = "line",
    symbol: str = "circle",
    axis: int = 0,
) -> dict[str, Any]:
    """Return a series.

    Parameters
    ----------
    colour
        A variable of the style sheet, without its dashes.
    symbol
        Of points: tells series apart without colours.
    axis
        Index of its y axis.
    """
    return {
        "name": name,
        "points": [[x, _finite(y), *others] for x, y, *others in points],
        "colour": colour,
        "draw": draw,
        "symbol": symbol,
        "axis": axis,
    }


def axis(
    name: str, form: Format, *, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """Return a y axis; its ends are made to fit where none are given."""
    return {"name": name, "format": form, "low": low, "high": high}


def chart(
    title: str,
    x: Literal["time", "version"],
    y: Sequence[dict[str, Any]],
    drawn: Sequence[dict[str, Any]],
    ends: tuple[datetime, datetime] | None = None,
) -> dict[str, Any]:
    """Return a chart; its title describes it to who cannot see it.

    Parameters
    ----------
    ends
        Of the time axis, so that charts of the same time line up.
    """
    return {
        "title": title,
        "x": x,
        "y": list(y),
        "series": [each for each in drawn if each["points"]],
        "ends": None if ends is None else [milliseconds(end) for end in ends],
    }


def over_time(found: Iterable[Row], time: str, figure: str) -> list[tuple[float, float | None]]:
    """Return the points of a figure, none where it is known nowhere."""
    points = [(milliseconds(each[time]), each[figure]) for each in found]
    return points if any(value is not None for _, value in points) else []


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
