"""Every query that Grafana sends, on both databases, as the role that only reads."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import psycopg2
import pytest
import yaml

from benchmarks.filled.database import fill
from benchmarks.filled.fleet import SMALL
from flead.stack.home import CHECKOUT
from flead.storage.connection import connect
from flead.storage.roles import GRAFANA, create_grafana
from tests.grafana.expansion import Context
from tests.integration.databases.conftest import roll_back

pytestmark = pytest.mark.servers

GRAFANA_FOLDER = CHECKOUT / "grafana"
BOARDS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((GRAFANA_FOLDER / "dashboards").glob("*.json"))
}
[GROUP] = yaml.safe_load((GRAFANA_FOLDER / "provisioning/alerting/flead.yaml").read_text())[
    "groups"
]
ALERTS = {rule["uid"]: rule["data"][0]["model"]["rawSql"] for rule in GROUP["rules"]}
PANELS = {
    f"{uid}: {panel['title']}": panel["targets"][0]
    for uid, board in BOARDS.items()
    for panel in board["panels"]
}
EVENTS = {
    f"{uid}: {event['name']}": event["target"]["rawSql"]
    for uid, board in BOARDS.items()
    for event in board["annotations"].get("list", [])
}
VARIABLES = {
    variable["name"]: variable["query"]
    for board in BOARDS.values()
    for variable in board["templating"]["list"]
    if variable["type"] == "query"
}


@pytest.fixture(scope="module")
def filled(database_server):
    """Return a filled database, and what a person could choose on its dashboards."""
    roll_back(database_server)
    with connect(database_server) as connection, connection.cursor() as cursor:
        create_grafana(cursor, "a password")
    yield fill(database_server, SMALL)
    roll_back(database_server)


@pytest.fixture(scope="module")
def context(filled, database_server):
    """Return a day's view on the filled database, with the first choice of each variable."""
    unchosen = Context({}, filled.end, filled.end, "1m")
    with connect(database_server) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {GRAFANA}")
        chosen = {}
        for name, query in VARIABLES.items():
            cursor.execute(unchosen.expand(query))
            chosen[name] = [str(row[0]) for row in cursor.fetchall()]
    one = {name: values if name == "version" else values[0] for name, values in chosen.items()}
    # the fleet is not equally busy: a device that has been anomalous
    return Context(one, filled.end - timedelta(days=SMALL.days), filled.end, "1m")


@pytest.fixture
def cursor(filled, database_server):
    """Return a cursor as the role of dashboards; what it does is undone."""
    connection = psycopg2.connect(database_server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {GRAFANA}")
            yield cursor
    finally:
        connection.rollback()
        connection.close()


@pytest.mark.parametrize("target", PANELS.values(), ids=PANELS)
def test_a_panel_has_rows(cursor, context, target):
    cursor.execute(context.expand(target["rawSql"]))

    rows = cursor.fetchall()
    assert rows
    assert any(value is not None for row in rows for value in row[1:])
    if target["format"] == "time_series":
        assert_is_series([column[0] for column in cursor.description], rows)


def assert_is_series(names, rows):
    """Grafana draws a column `time` that rises, and numbers, or one named by a column `metric`."""
    assert names[0] == "time"
    times = [row[0] for row in rows]
    assert times == sorted(times)
    assert "metric" not in names or len(names) == 3
    numbers = names[2:] if "metric" in names else names[1:]
    values = [value for row in rows for value in row[-len(numbers) :]]
    assert {type(value) for value in values} <= {int, float, Decimal, type(None)}


@pytest.mark.parametrize("query", EVENTS.values(), ids=EVENTS)
def test_marks_on_panels_have_a_time_and_a_text(cursor, context, query):
    cursor.execute(context.expand(query))

    assert [column[0] for column in cursor.description] == ["time", "text", "tags"]
    assert cursor.fetchall()


def test_a_device_is_found_by_the_beginning_of_its_name(cursor, context, filled):
    device = filled.devices[7]
    cursor.execute(replace(context, typed=device[:-1]).expand(VARIABLES["device"]))
    found = [name for (name,) in cursor.fetchall()]

    assert device in found
    assert all(name.startswith(device[:-1]) for name in found)


def test_a_variable_without_a_choice_is_no_error(cursor, context):
    nothing = replace(context, variables=dict.fromkeys(context.variables, ""))
    for target in PANELS.values():
        cursor.execute(nothing.expand(target["rawSql"]))


@pytest.mark.parametrize("query", ALERTS.values(), ids=ALERTS)
def test_an_alert_has_one_number(cursor, query):
    cursor.execute(query)

    [(value,)] = cursor.fetchall()
    assert isinstance(value, float)


@pytest.mark.parametrize("query", ALERTS.values(), ids=ALERTS)
def test_an_alert_rests_where_nothing_runs(database, query):
    with connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(query)

        assert cursor.fetchall() == [(0.0,)]
