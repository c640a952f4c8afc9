"""Figures and times as people read them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from flead_airflow.pages import formats

NOW = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "function",
    [
        formats.count, formats.rate, formats.percent, formats.decimals, formats.signed,
        formats.significant, formats.plain, formats.moment, formats.duration,
        lambda value: formats.ago(value, NOW),
    ],
)  # fmt: skip
def test_what_is_not_known_is_a_dash(function):
    assert function(None) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("240,700", formats.count(240_700)),
        ("516", formats.rate(516.3)),
        ("40.1", formats.rate(40.12)),
        ("0.0123", formats.rate(0.01234)),
        ("97.0 %", formats.percent(0.97)),
        ("0.1250", formats.decimals(0.125)),
        ("\N{EN DASH}", formats.decimals(float("nan"))),
        ("-0.0340", formats.signed(-0.034)),
        ("1,307", formats.significant(1307.2)),
        ("0.03751", formats.significant(0.037512)),
        ("1e-06", formats.plain(1e-6)),
        ("30", formats.plain(30)),
        ("rolled back", formats.words("rolled_back")),
        ("2026-11-24 07:30:00", formats.moment(NOW.astimezone(timezone(timedelta(hours=9))))),
        ("2026-11-24T07:30:00+00:00", formats.iso(NOW)),
    ],
)
def test_a_figure_is_written_as_people_read_it(written, value):
    assert value == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (2.5, "2.5 s"),
        (59.6, "1 min"),
        (150, "2 min 30 s"),
        (3_600, "1 h"),
        (93_600, "1 d 2 h"),
    ],
)
def test_a_length_of_time_has_its_two_largest_units(seconds, written):
    assert formats.duration(seconds) == written
    assert formats.duration(timedelta(seconds=seconds)) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (-3, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3_599, "59 min ago"),
        (36_000, "10 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_how_long_ago_is_never_rounded_up(seconds, written):
    assert formats.ago(NOW - timedelta(seconds=seconds), NOW) == written
