"""Milliseconds since the epoch, as messages have them, to and from `timestamptz`."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the instant of `milliseconds` since the epoch, exact."""
    return EPOCH + milliseconds * MILLISECOND


def to_milliseconds(instant: datetime) -> int:
    """Return the whole milliseconds from the epoch to `instant`, rounded down."""
    return (instant - EPOCH) // MILLISECOND
