"""Durations as Flink writes them in its configuration: `3 s`, `1000`, `PT3S`.

Source: `org.apache.flink.util.TimeUtils` of Flink 2.3.
"""

import re
from datetime import timedelta
from typing import Final

import msgspec

from flead_airflow.flink.errors import FlinkStateError

SIMPLE: Final = re.compile(r"(\d+)\s*([a-z\u00b5]*)")
MILLISECOND: Final = 1e-3
MICROSECOND: Final = 1e-6
NANOSECOND: Final = 1e-9
UNITS: Final = {
    "": MILLISECOND,
    **dict.fromkeys(("ns", "nano", "nanosecond"), NANOSECOND),
    **dict.fromkeys(("\u00b5s", "micro", "microsecond"), MICROSECOND),
    **dict.fromkeys(("ms", "milli", "millisecond"), MILLISECOND),
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3_600.0),
    **dict.fromkeys(("d", "day"), 86_400.0),
}


def seconds_of(text: str) -> float:
    """Return a duration in seconds; a number without a unit is in milliseconds.

    Raises
    ------
    FlinkStateError
        When it is none.
    """
    duration = text.strip()
    if simple := SIMPLE.fullmatch(duration.lower()):
        number, unit = simple.groups()
        # units of words have a plural
        scale = UNITS.get(unit, UNITS.get(unit.removesuffix("s")))
        if scale is not None:
            return int(number) * scale
    try:
        return msgspec.convert(duration, timedelta).total_seconds()
    except msgspec.ValidationError:
        raise FlinkStateError(f"{text!r} is no duration of Flink's, such as `3 s`") from None
