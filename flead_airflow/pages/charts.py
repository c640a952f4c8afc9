"""Charts as data: `static/charts.js` draws them, and makes a table of the same figures.

A chart has axes and series; a point is [x, y], times are milliseconds since the epoch.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

Draw = Literal["line", "points", "area", "steps"]
Format = Literal["percent", "decimals", "count", "rate", "seconds"]
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
) -> dict[str, Any]:
    """Return a chart; its title describes it to who cannot see it."""
    return {
        "title": title,
        "x": x,
        "y": list(y),
        "series": [each for each in drawn if each["points"]],
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
