"""How a set of CSV files becomes rows of telemetry: a data spec, written in YAML."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Column = Annotated[str, Meta(min_length=1)]


class DataSpecError(ValueError):
    """A data spec that cannot be used; the message names the file and the key."""


class DeviceSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"of": "from"}):
    """Where the device of a row comes from: `{from: path}` or `{column: NAME}`.

    By path, a file holds one device, named by the file's path below the folder without its ending.
    """

    of: Literal["path"] | None = None
    column: Column | None = None

    def __post_init__(self) -> None:
        if (self.of is None) == (self.column is None):
            raise ValueError("write either {from: path} or {column: NAME}")


class TimeSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"of": "from"}):
    """Where the time of a row comes from.

    `{column: NAME, unit: s | ms | us}` is a number since the epoch, `{column: NAME, format: iso}` a
    text of ISO 8601 (UTC where it names no zone), and `{from: order, period_ms: N}`, for sets
    without a usable time, the place of the row: rows follow each other by so many milliseconds.
    """

    column: Column | None = None
    unit: Literal["s", "ms", "us"] | None = None
    format: Literal["iso"] | None = None
    of: Literal["order"] | None = None
    period_ms: Annotated[int, Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not None}
        if given not in ({"column", "unit"}, {"column", "format"}, {"of", "period_ms"}):
            raise ValueError(
                "write {column: NAME, unit: s, ms or us}, {column: NAME, format: iso} or "
                "{from: order, period_ms: N}"
            )


class LabelSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the label of a row comes from.

    `{column: NAME}` holds 0 and 1; `above` makes 1 of the numbers that exceed it; `normal` makes 0
    of the texts that it lists and 1 of all others. An empty cell is a row without a label.
    """

    column: Column
    above: float | None = None
    normal: Annotated[list[str], Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if self.above is not None and self.normal is not None:
            raise ValueError("write `above` or `normal`, not both")


class TextSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that is taken as it is."""

    column: Column


class DataSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a folder of CSV files with header lines becomes rows.

    Parameters
    ----------
    name
        Of the set.
    device, time, features
        Where each comes from; features are column names in the order of the feature list.
    label, attack_type
        None when the set has none.
    files
        Glob below the folder; `**` crosses folders.
    separator
        Between cells.
    missing
        Cells that mean a missing value, besides empty ones.
    """

    name: Annotated[str, Meta(min_length=1)]
    device: DeviceSource
    time: TimeSource
    features: Annotated[list[Column], Meta(min_length=1)]
    label: LabelSource | None = None
    attack_type: TextSource | None = None
    files: Annotated[str, Meta(min_length=1)] = "*.csv"
    separator: Annotated[str, Meta(pattern=r"^[\x09\x20-\x7e]$")] = ","
    missing: tuple[str, ...] = ("NA", "N/A", "NaN", "nan", "null")

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.features if self.features.count(name) > 1})
        if twice:
            raise ValueError(f"`features` lists {twice} more than once")
        answers = {source.column for source in (self.label, self.attack_type) if source}
        told = sorted(answers & set(self.features))
        if told:
            raise ValueError(f"`features` lists {told}, which say the label")

    @property
    def columns(self) -> list[str]:
        """Names of all the columns that are read, each once."""
        sources = (self.device, self.time, self.label, self.attack_type)
        named = [source.column for source in sources if source and source.column]
        return list(dict.fromkeys([*named, *self.features]))


def load_data_spec(path: Path) -> DataSpec:
    """Read a data spec from a YAML file.

    Raises
    ------
    DataSpecError
        When the file cannot be read, is no YAML, or has a key that is unknown, missing or wrong.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=DataSpec)
    except OSError as error:
        raise DataSpecError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise DataSpecError(f"{path}: {' '.join(str(error).split())}") from error
