"""How the options of `flead simulate` are read."""

import pytest
import typer

from flead.cli.simulate import rate_per_minute, speed_factor


@pytest.mark.parametrize(
    ("text", "expected"),
    [("31000/min", 31_000), ("500/s", 30_000), ("90/h", 1.5), ("0.5/s", 30)],
)
def test_a_rate_is_rows_in_a_unit_of_time(text, expected):
    assert rate_per_minute(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "31000", "0/min", "-5/s", "5/day", "many/min", "5/s "])
def test_what_is_no_rate_is_refused_with_an_example(text):
    with pytest.raises(typer.BadParameter, match="is no rate: write 31000/min"):
        rate_per_minute(text)


@pytest.mark.parametrize(("text", "expected"), [("1x", 1), ("0.5x", 0.5), ("max", float("inf"))])
def test_a_speed_is_a_multiple_or_max(text, expected):
    assert speed_factor(text) == expected


@pytest.mark.parametrize("text", ["", "fast", "0x", "-1x", "10"])
def test_what_is_no_speed_is_refused_with_an_example(text):
    with pytest.raises(typer.BadParameter, match="is no speed: write 1x"):
        speed_factor(text)
