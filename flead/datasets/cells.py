"""What the cells of a CSV line mean, as polars expressions."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import polars as pl

from flead.contracts.dataspec import DataSpec, LabelSource, TimeSource
from flead.datasets.unreadable import UnreadableReason
from flead.features.decoding import MAX_MAGNITUDE

ROW: Final = "row"
"""Column that numbers the lines after the header from 0."""

MAX_TIME_MS: Final = 253_402_300_799_999
MAX_DEVICE_CHARACTERS: Final = 256
MS_OF_UNIT: Final = {"s": 1000.0, "ms": 1.0, "us": 0.001}


class Fault(NamedTuple):
    """One way in which a line can be unreadable: when it `holds`, and which cell is to blame."""

    reason: UnreadableReason
    column: str | None
    holds: pl.Expr


class Meaning(NamedTuple):
    """What a line says; `time` is in milliseconds, `values` in the order of the features.

    Anything where one of the `faults` holds.
    """

    device: pl.Expr
    time: pl.Expr
    values: list[pl.Expr]
    label: pl.Expr
    attack_type: pl.Expr
    faults: list[Fault]


def text_of(number: int, missing: Iterable[str]) -> pl.Expr:
    """Text of a line's cell, null where it is missing; columns are named by their number."""
    text = pl.col(str(number)).str.strip_chars()
    return pl.when(~text.is_in(["", *missing])).then(text)


def meaning_of(
    spec: DataSpec, cells: Mapping[str, pl.Expr], device_of_file: str, rows_before: int
) -> Meaning:
    """Say what the cells of a line mean.

    Parameters
    ----------
    cells
        Text of each column that the spec names, null where missing.
    device_of_file
        The device, for sets in which a file holds one.
    rows_before
        Lines of the files before, for sets without a time.
    """
    faults = [
        Fault(
            UnreadableReason.EMPTY_LINE,
            None,
            pl.all_horizontal(cell.is_null() for cell in cells.values()),
        )
    ]
    device = pl.lit(device_of_file)
    if spec.device.column is not None:
        device = cells[spec.device.column]
        length = device.str.len_chars()
        unnamed = device.is_null() | (length > MAX_DEVICE_CHARACTERS) | device.str.contains("\0")
        faults.append(Fault(UnreadableReason.NO_DEVICE, spec.device.column, unnamed))

    time = _time(spec.time, cells, rows_before)
    outside = time.is_null() | ~time.is_between(0, MAX_TIME_MS)
    faults.append(Fault(UnreadableReason.NO_TIME, spec.time.column, outside))

    values = [_number(cells[name]) for name in spec.features]
    for name, value in zip(spec.features, values, strict=True):
        no_number = cells[name].is_not_null() & value.is_null()
        faults.append(Fault(UnreadableReason.NO_NUMBER, name, no_number))
        # A comparison with nan, which polars takes for the largest number, holds too.
        faults.append(Fault(UnreadableReason.NOT_FINITE, name, value.abs() > MAX_MAGNITUDE))

    label = pl.lit(None, pl.Float64)
    if spec.label is not None:
        label = _label(spec.label, cells[spec.label.column])
        unknown = cells[spec.label.column].is_not_null() & label.is_null()
        faults.append(Fault(UnreadableReason.NO_LABEL, spec.label.column, unknown))
    attack = cells[spec.attack_type.column] if spec.attack_type else pl.lit(None, pl.String)
    return Meaning(device, time, values, label, attack, faults)


def _number(text: pl.Expr) -> pl.Expr:
    return text.cast(pl.Float64, strict=False)


def _time(source: TimeSource, cells: Mapping[str, pl.Expr], rows_before: int) -> pl.Expr:
    """Milliseconds since the epoch, null where the cell is no time."""
    if source.column is None:
        return (pl.col(ROW).cast(pl.Int64) + rows_before) * source.period_ms
    text = cells[source.column]
    if source.unit is None:
        return text.map_batches(_from_iso, return_dtype=pl.Int64)
    return (_number(text) * MS_OF_UNIT[source.unit]).floor().cast(pl.Int64, strict=False)


def _from_iso(texts: pl.Series) -> pl.Series:
    return pl.Series([text and _milliseconds(text) for text in texts], dtype=pl.Int64)


def _milliseconds(text: str) -> int | None:
    """Time of a text of ISO 8601, in UTC where it names no zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _label(source: LabelSource, text: pl.Expr) -> pl.Expr:
    """Return 0 or 1, null where the cell says neither."""
    if source.normal is not None:
        return (~text.is_in(source.normal)).cast(pl.Float64)
    number = _number(text)
    if source.above is not None:
        return pl.when(number.is_not_nan()).then((number > source.above).cast(pl.Float64))
    return pl.when(number.is_in([0.0, 1.0])).then(number)
