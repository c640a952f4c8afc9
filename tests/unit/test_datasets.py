"""CSV files become rows in order of time; what cannot be read is counted and named."""

import msgspec
import numpy as np
import pytest

from flead.contracts.dataspec import DataSpec
from flead.datasets.reading import DatasetError, read_dataset
from flead.datasets.unreadable import UnreadableReason, UnreadableRow

NAN = float("nan")


def spec(**changes):
    given = {
        "name": "set",
        "device": {"column": "device"},
        "time": {"column": "time", "unit": "ms"},
        "features": ["a", "b"],
        "label": {"column": "label"},
    }
    return msgspec.convert({**given, **changes}, DataSpec)


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


def read_one(folder, cells, **changes):
    """Read one row of a file with every column."""
    columns = {"time": "1", "device": "d", "a": "1", "b": "1", "label": "0", **cells}
    text = ",".join(columns) + "\n" + ",".join(columns.values()) + "\n"
    return read_dataset(folder(file=text), spec(**changes))


def test_rows_of_all_files_come_in_order_of_time_and_equal_times_as_in_the_files(folder):
    data = read_dataset(
        folder(
            first="time,device,a,b,label\n30,x,1,2,0\n10,y,3,,1\n20,x,5,6,\n",
            second="label,b,other,a,device,time\n1,8,ignored,7,y,20\n0,0,ignored,9,x,20\n",
        ),
        spec(),
    )

    assert data.devices == ["x", "y"]
    assert [data.devices[index] for index in data.device_index] == ["y", "x", "y", "x", "x"]
    assert data.event_time.tolist() == [10, 20, 20, 20, 30]
    np.testing.assert_array_equal(data.values, [[3, NAN], [5, 6], [7, 8], [9, 0], [1, 2]])
    np.testing.assert_array_equal(data.label, [1, NAN, 1, 0, 0])
    assert data.attack_type is None
    assert data.unreadable.rows == 0


def test_a_file_of_one_device_is_named_by_its_path(folder):
    text = "time,a\n1,1\n"

    data = read_dataset(
        folder(pump=text, hall__north=text),
        spec(device={"from": "path"}, features=["a"], label=None, files="**/*.csv"),
    )

    assert data.devices == ["hall/north", "pump"]
    assert np.isnan(data.label).all()


@pytest.mark.parametrize(
    ("time", "cell", "milliseconds"),
    [
        ({"column": "time", "unit": "s"}, "1684407560.25", 1684407560250),
        ({"column": "time", "unit": "ms"}, "1684407560121", 1684407560121),
        ({"column": "time", "unit": "us"}, "1684407560121999", 1684407560121),
        ({"column": "time", "format": "iso"}, "2023-05-18T12:00:00.5", 1684411200500),
        ({"column": "time", "format": "iso"}, "2023-05-18 14:00:00+02:00", 1684411200000),
        ({"column": "time", "format": "iso"}, "2023-05-18T12:00:00Z", 1684411200000),
    ],
)
def test_times_are_milliseconds_since_the_epoch_in_utc(folder, time, cell, milliseconds):
    assert read_one(folder, {"time": cell}, time=time).event_time.tolist() == [milliseconds]


def test_without_a_time_files_of_many_devices_follow_each_other(folder):
    text = "device,a\nx,1\ny,2\n"
    order = {"from": "order", "period_ms": 10}

    data = read_dataset(folder(a=text, b=text), spec(time=order, features=["a"], label=None))

    assert data.event_time.tolist() == [0, 10, 20, 30]
    assert data.device_index.tolist() == [0, 1, 0, 1]


def test_without_a_time_files_of_one_device_each_start_together(folder):
    order = {"from": "order", "period_ms": 10}

    data = read_dataset(
        folder(x="a\n1\n2\n", y="a\n3\n4\n"),
        spec(device={"from": "path"}, time=order, features=["a"], label=None),
    )

    assert data.event_time.tolist() == [0, 0, 10, 10]
    assert data.values.ravel().tolist() == [1, 3, 2, 4]


@pytest.mark.parametrize(
    ("label", "cell", "expected"),
    [
        ({"column": "label"}, "1", 1.0),
        ({"column": "label"}, "0.0", 0.0),
        ({"column": "label"}, "", NAN),
        ({"column": "label", "above": 0}, "12", 1.0),
        ({"column": "label", "above": 0}, "0", 0.0),
        ({"column": "label", "above": 0}, "NA", NAN),
        ({"column": "label", "normal": ["ok", "idle"]}, "idle", 0.0),
        ({"column": "label", "normal": ["ok", "idle"]}, "DoS", 1.0),
        ({"column": "label", "normal": ["ok", "idle"]}, "", NAN),
    ],
)
def test_labels_are_what_the_spec_makes_of_their_column(folder, label, cell, expected):
    np.testing.assert_array_equal(read_one(folder, {"label": cell}, label=label).label, [expected])


def test_quoted_cells_other_separators_and_a_byte_order_mark_are_read(folder):
    text = b'\xef\xbb\xbftime;"device";a;b;label;kind\r\n1;"x;1"; 2 ;"3";0;Do\xc3\x9f\r\n'

    data = read_dataset(folder(file=text), spec(separator=";", attack_type={"column": "kind"}))

    assert data.devices == ["x;1"]
    assert data.values.tolist() == [[2.0, 3.0]]
    assert data.attack_type == ["Doß"]


@pytest.mark.parametrize(
    ("line", "reason", "column", "cell"),
    [
        ("1,x,1,2,0,9", UnreadableReason.TOO_MANY_CELLS, None, None),
        ("", UnreadableReason.EMPTY_LINE, None, None),
        ("1,,1,2,0", UnreadableReason.NO_DEVICE, "device", ""),
        (f"1,{'x' * 257},1,2,0", UnreadableReason.NO_DEVICE, "device", "x" * 257),
        ("soon,x,1,2,0", UnreadableReason.NO_TIME, "time", "soon"),
        ("-1,x,1,2,0", UnreadableReason.NO_TIME, "time", "-1"),
        ("1e300,x,1,2,0", UnreadableReason.NO_TIME, "time", "1e300"),
        (",x,1,2,0", UnreadableReason.NO_TIME, "time", ""),
        ("1,x,1,two,0", UnreadableReason.NO_NUMBER, "b", "two"),
        ("1,x,0x1f,2,0", UnreadableReason.NO_NUMBER, "a", "0x1f"),
        ("1,x,inf,2,0", UnreadableReason.NOT_FINITE, "a", "inf"),
        ("1,x,1,-1e101,0", UnreadableReason.NOT_FINITE, "b", "-1e101"),
        ("1,x,NAN,2,0", UnreadableReason.NOT_FINITE, "a", "NAN"),
        ("1,x,1,2,2", UnreadableReason.NO_LABEL, "label", "2"),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_and_named(folder, line, reason, column, cell):
    text = f"time,device,a,b,label\n1,x,1,2,0\n{line}\n2,x,3,4,1\n"

    data = read_dataset(folder(file=text), spec())

    assert data.values.tolist() == [[1, 2], [3, 4]]
    assert data.unreadable.counts == {reason: 1}
    assert data.unreadable.first == {reason: [UnreadableRow("file.csv", 3, column, cell)]}


def test_bytes_that_are_not_utf8_spoil_only_their_row(folder):
    text = b"time,device,a,b,label\n1,x,\xff,2,0\n2,x,3,4,1\n"

    data = read_dataset(folder(file=text), spec())

    assert data.values.tolist() == [[3, 4]]
    assert data.unreadable.counts == {UnreadableReason.NO_NUMBER: 1}


def test_a_line_that_ends_early_has_missing_values(folder):
    data = read_dataset(folder(file="time,device,a,b,label\n1,x,5\n"), spec())

    np.testing.assert_array_equal(data.values, [[5, NAN]])
    assert np.isnan(data.label).all()


def test_of_many_unreadable_rows_all_are_counted_and_the_first_named(folder):
    bad = "1,x,?,2,0\n" * 4
    data = read_dataset(
        folder(a=f"time,device,a,b,label\n1,x,1,2,0\n{bad}", b=f"time,device,a,b,label\n{bad}"),
        spec(),
    )

    assert data.unreadable.counts == {UnreadableReason.NO_NUMBER: 8}
    named = data.unreadable.first[UnreadableReason.NO_NUMBER]
    assert [(row.file, row.line) for row in named] == [
        ("a.csv", 3), ("a.csv", 4), ("a.csv", 5), ("a.csv", 6), ("b.csv", 2),
    ]  # fmt: skip
    (line,) = data.unreadable.lines()
    assert line.startswith("8 rows left out, no number: a.csv, line 3, column 'a': '?'; ")
    assert line.endswith("; …")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,device,a,label\n1,x,1,0\n", r"file\.csv has the column 'b' not.*'device'"),
        ("time,device,a,b,label,a\n1,x,1,0,0,0\n", r"file\.csv has the column 'a' twice"),
        ("", r"file\.csv has the column 'device' not"),
        ("time,device,a,b,label\n", "no row of .* can be read"),
        ("time,device,a,b,label\n1,x,?,0,0\n", r"no number: file\.csv, line 2"),
        ('time,device,a,b,label\n1,x"y,1,0,0\n"z"q,', r"file\.csv cannot be read as CSV"),
    ],
)
def test_a_file_that_the_spec_does_not_fit_is_an_error_that_names_it(folder, text, said):
    with pytest.raises(DatasetError, match=f"(?s){said}"):
        read_dataset(folder(file=text), spec())


def test_a_folder_without_the_files_is_an_error_that_names_both(tmp_path):
    with pytest.raises(DatasetError, match=r"has no file '\*\.csv'"):
        read_dataset(tmp_path, spec())
