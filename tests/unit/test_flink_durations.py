"""Durations of Flink's configuration."""

import pytest

from flead_airflow.flink.durations import seconds_of
from flead_airflow.flink.errors import FlinkStateError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1000", 1.0),
        ("3 s", 3.0),
        ("3s", 3.0),
        ("10 sec", 10.0),
        ("2 seconds", 2.0),
        ("500 ms", 0.5),
        ("250 milliseconds", 0.25),
        ("1 m", 60.0),
        ("1 min", 60.0),
        (" 2 Minutes ", 120.0),
        ("1 h", 3600.0),
        ("1 d", 86400.0),
        ("PT3S", 3.0),
        ("PT1M30S", 90.0),
    ],
)
def test_every_notation_of_flinks_is_read(text, seconds):
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "3 fortnights", "s"])
def test_what_is_none_is_refused(text):
    with pytest.raises(FlinkStateError, match="is no duration"):
        seconds_of(text)
