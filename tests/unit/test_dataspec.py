"""Data specs: what they say, and how they refuse what they do not know."""

from pathlib import Path

import pytest

from flead.contracts.dataspec import DataSpecError, load_data_spec

SPECS = Path(__file__).parents[2] / "specs"
WHOLE = """\
name: pumps
files: "**/*.csv"
separator: ";"
device: {column: Pump}
time: {column: Time, format: iso}
features: [Flow rate, "m³/h"]
label: {column: State, normal: [ok, idle]}
attack_type: {column: Fault}
missing: ["-"]
"""


@pytest.fixture
def spec_file(tmp_path):
    def write(text):
        path = tmp_path / "set.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_spec_says_where_each_part_of_a_row_comes_from(spec_file):
    spec = load_data_spec(spec_file(WHOLE))

    assert (spec.name, spec.files, spec.separator) == ("pumps", "**/*.csv", ";")
    assert spec.device.column == "Pump"
    assert (spec.time.column, spec.time.format) == ("Time", "iso")
    assert spec.features == ["Flow rate", "m³/h"]
    assert (spec.label.column, spec.label.normal) == ("State", ["ok", "idle"])
    assert spec.attack_type.column == "Fault"
    assert spec.missing == ("-",)
    assert spec.columns == ["Pump", "Time", "State", "Fault", "Flow rate", "m³/h"]


def test_only_name_device_time_and_features_are_needed(spec_file):
    text = "name: a\ndevice: {from: path}\ntime: {from: order, period_ms: 200}\nfeatures: [x]\n"

    spec = load_data_spec(spec_file(text))

    assert (spec.files, spec.separator, spec.label, spec.attack_type) == ("*.csv", ",", None, None)
    assert spec.columns == ["x"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("separator", "seperator", "seperator"),
        ("{column: Pump}", "{colum: Pump}", "$.device"),
        ("{column: Pump}", "{column: Pump, from: path}", "$.device"),
        ("{column: Pump}", "{from: name}", "$.device"),
        ("format: iso", "unit: m", "$.time"),
        ("format: iso", "unit: ms, format: iso", "$.time"),
        (", format: iso", "", "$.time"),
        ("normal: [ok, idle]", "normal: [ok], above: 1", "$.label"),
        ("normal: [ok, idle]", "below: 1", "$.label"),
        ('[Flow rate, "m³/h"]', "[]", "$.features"),
        ('[Flow rate, "m³/h"]', "[a, b, a]", "'a'"),
        ('[Flow rate, "m³/h"]', "[State]", "'State'"),
        ('[Flow rate, "m³/h"]', "[1]", "$.features"),
        ('separator: ";"', 'separator: ";;"', "$.separator"),
        ("name: pumps", "nothing: pumps", "nothing"),
        ("name: pumps", "name: [", "line"),
    ],
)
def test_what_a_spec_gets_wrong_is_named_with_its_file(spec_file, old, new, named):
    path = spec_file(WHOLE.replace(old, new, 1))

    with pytest.raises(DataSpecError) as error:
        load_data_spec(path)

    assert str(path) in str(error.value)
    assert named in str(error.value)


def test_a_spec_that_is_not_there_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataSpecError, match=r"nowhere\.yaml: No such file"):
        load_data_spec(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_specs_that_are_shipped_can_be_read(path):
    spec = load_data_spec(path)

    assert spec.label is not None
    leaking = {"dns.qry.name.len", "mqtt.topic", "mqtt.protoname", "mqtt.conack.flags"}
    assert leaking.isdisjoint(spec.columns)
