"""A folder of CSV files into rows in order of time."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from flead.contracts.dataspec import DataSpec
from flead.datasets.cells import ROW, Fault, meaning_of, text_of
from flead.datasets.unreadable import NAMED_ROWS, Unreadable, UnreadableReason, UnreadableRow
from flead.features.rows import Floats, Integers, ShortIntegers

# Columns of a frame of rows, beside those of the features, whose names are numbers.
DEVICE: Final = "device"
TIME: Final = "time"
LABEL: Final = "label"
ATTACK: Final = "attack_type"
FAULT: Final = "fault"
CELL: Final = "cell"


class DatasetError(ValueError):
    """A set that a data spec does not fit; the message names the file and the column."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Rows of a set in order of time; those of one time stand as in the files, by their path.

    Arrays have one entry a row: `device_index` points into `devices`, `event_time` is in
    milliseconds since the epoch, `values` is (rows, features) with nan where missing, `label` is 0,
    1 or nan (none). `attack_type` is None when the spec names no such column.
    """

    spec: DataSpec
    devices: list[str]
    device_index: ShortIntegers
    event_time: Integers
    values: Floats
    label: Floats
    attack_type: list[str | None] | None
    unreadable: Unreadable

    def __len__(self) -> int:
        return len(self.device_index)


def read_dataset(folder: Path, spec: DataSpec) -> Dataset:
    """Read the files that a data spec names.

    Rows with a cell that is no number, no time, no label or no device name are left out and
    reported in `unreadable`; their line is that of a file in which no cell spans lines.

    Raises
    ------
    DatasetError
        When no file matches, a file lacks a column or is no CSV, or no row can be read.
    """
    paths = sorted(path for path in folder.glob(spec.files) if path.is_file())
    if not paths:
        raise DatasetError(f"{folder} has no file {spec.files!r}")
    unreadable = Unreadable()
    frames: list[pl.DataFrame] = []
    lines = 0
    for path in paths:
        name = str(path.relative_to(folder))
        # A file of one device starts at its own time 0; files of many devices follow each other.
        read = _FileReader(path, name, spec, rows_before=0 if spec.device.of else lines)
        frame = read.rows()
        lines += len(frame)
        frames.append(read.readable(frame, unreadable))
    rows = pl.concat(frames)
    del frames, frame
    if rows.is_empty():
        raise DatasetError("\n".join([f"no row of {folder} can be read", *unreadable.lines()]))
    if not rows[TIME].is_sorted():
        rows = rows.sort(TIME, maintain_order=True)
    devices = rows[DEVICE].unique().sort()
    index = rows[DEVICE].replace_strict(devices, range(len(devices)), return_dtype=pl.Int32)
    return Dataset(
        spec=spec,
        devices=devices.to_list(),
        device_index=index.to_numpy(),
        event_time=rows[TIME].to_numpy(),
        values=_matrix(rows, len(spec.features)),
        label=rows[LABEL].fill_null(float("nan")).to_numpy(),
        attack_type=rows[ATTACK].to_list() if spec.attack_type else None,
        unreadable=unreadable,
    )


def _matrix(rows: pl.DataFrame, features: int) -> Floats:
    """Values of the rows, of shape (rows, features), without a copy of the whole frame."""
    values = np.empty((len(rows), features))
    for number in range(features):
        values[:, number] = rows[str(number)].fill_null(float("nan")).to_numpy()
    return values


class _FileReader:
    """Reads one file of a set, called `name` below the set's folder."""

    def __init__(self, path: Path, name: str, spec: DataSpec, rows_before: int) -> None:
        self._path = path
        self._name = name
        header = self._header(spec)
        cells = {column: text_of(header.index(column), spec.missing) for column in spec.columns}
        device_of_file = Path(name).with_suffix("").as_posix()
        self._meaning = meaning_of(spec, cells, device_of_file, rows_before)
        overlong = pl.col(str(len(header))).is_not_null()
        self._faults = [
            Fault(UnreadableReason.TOO_MANY_CELLS, None, overlong),
            *self._meaning.faults,
        ]
        self._blamed = [
            pl.lit(None, pl.String) if fault.column is None else cells[fault.column]
            for fault in self._faults
        ]
        self._scan = pl.scan_csv(
            path,
            has_header=False,
            skip_rows=1,
            separator=spec.separator,
            # One column more than the header has shows lines with too many cells.
            schema={str(number): pl.String() for number in range(len(header) + 1)},
            truncate_ragged_lines=True,
            missing_columns="insert",
            encoding="utf8-lossy",
            row_index_name=ROW,
            glob=False,
        )

    def rows(self) -> pl.DataFrame:
        """Read a row for each line after the header, with the first of its faults or null."""
        meaning = self._meaning
        fault = pl.coalesce(
            pl.when(fault.holds).then(pl.lit(number, pl.Int32))
            for number, fault in enumerate(self._faults)
        )
        cell = pl.coalesce(
            pl.when(fault.holds).then(blamed.fill_null(""))
            for fault, blamed in zip(self._faults, self._blamed, strict=True)
        )
        try:
            return self._scan.select(
                ROW,
                meaning.device.alias(DEVICE),
                meaning.time.alias(TIME),
                *(value.alias(str(number)) for number, value in enumerate(meaning.values)),
                meaning.label.alias(LABEL),
                meaning.attack_type.alias(ATTACK),
                fault.alias(FAULT),
                cell.alias(CELL),
            ).collect(engine="streaming")
        except PolarsError as error:
            said = str(error).splitlines()[0]
            raise DatasetError(f"{self._name} cannot be read as CSV: {said}") from error

    def readable(self, rows: pl.DataFrame, unreadable: Unreadable) -> pl.DataFrame:
        """Keep the rows without a fault; count the others."""
        kept = rows[FAULT].is_null()
        if not kept.all():
            for (number,), faulty in rows.filter(~kept).group_by(FAULT, maintain_order=True):
                fault = self._faults[number]
                first = [
                    UnreadableRow(self._name, row + 2, fault.column, cell if fault.column else None)
                    for row, cell in faulty.select(ROW, CELL).head(NAMED_ROWS).iter_rows()
                ]
                unreadable.add(fault.reason, len(faulty), first)
            rows = rows.filter(kept)
        return rows.drop(ROW, FAULT, CELL)

    def _header(self, spec: DataSpec) -> list[str]:
        """Read the names of the columns; the spec's are there, each once."""
        try:
            with self._path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                cells = next(csv.reader(file, delimiter=spec.separator), [])
        except csv.Error as error:
            raise DatasetError(f"{self._name}: its header cannot be read: {error}") from error
        header = [cell.strip() for cell in cells]
        for column in spec.columns:
            if header.count(column) != 1:
                how = "twice" if column in header else f"not: its header is {header}"
                raise DatasetError(f"{self._name} has the column {column!r} {how}")
        return header
