"""Every query that Grafana sends, on both databases, as the role that only reads."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import psycopg2
import pytest
import yaml

from benchmarks.filled.database import fill
from benchmarks.filled.fleet import Size
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
DAY = Size(devices=30, days=1, recent_minutes=15, analysed_days=1)
OF_EVALUATIONS = """
    UPDATE model_evaluations SET baselines = jsonb_build_object(
        'always_normal', jsonb_build_object('accuracy', 0.9),
        'zscore', jsonb_build_object('accuracy', 0.8)
    ), calibration = jsonb_build_object(
        'count', ARRAY[samples - tp - fn, 0, 0, 0, 0, 0, 0, 0, 0, tp + fn],
        'probability_sum', ARRAY[0.05 * (samples - tp - fn), 0, 0, 0, 0, 0, 0, 0, 0, tp + fn],
        'positives', ARRAY[fn, 0, 0, 0, 0, 0, 0, 0, 0, tp]
    ) WHERE device_id = '*'
"""


@pytest.fixture(scope="module")
def filled(database_server):
    """Return a filled database, and what a person could choose on its dashboards."""
    roll_back(database_server)
    with connect(database_server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (GRAFANA,))
        if not cursor.fetchall():
            # the embedded server has the role already, with a password that other tests use
            create_grafana(cursor, "a password")
    made = fill(database_server, DAY)
    with connect(database_server) as connection, connection.cursor() as cursor:
        # what a fleet at rest leaves out
        cursor.execute(OF_EVALUATIONS)
        cursor.execute(
            "INSERT INTO outbox (topic, key, value, state)"
            " VALUES ('model-feedback', 'd', '{}', 'held')"
        )
    yield made
    roll_back(database_server)


@pytest.fixture(scope="module")
def context(filled, database_server):
    """Return a day's view on the filled database, with the first choice of each variable."""
    unchosen = Context({}, filled.end, filled.end, "1m")
    with connect(database_server) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {GRAFANA}")
        chosen = {}
        for name, query in VARIABLES.items():
            cursor.execute(unchosen.expand(query))
            chosen[name] = [str(row[0]) for row in cursor.fetchall()]
    one = {name: values if name == "version" else values[0] for name, values in chosen.items()}
    # what is sent at the end is stored right after it
    end = filled.end + timedelta(minutes=1)
    return Context(one, end - timedelta(days=DAY.days), end, "1m")


@pytest.fixture
def cursor(filled, database_server):
    """Return a cursor as the role of dashboards; what it does is undone."""
    connection = psycopg2.connect(database_server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {GRAFANA}")
            yield cursor
    finally:
        connection.rollback()
        connection.close()


@pytest.mark.parametrize("target", PANELS.values(), ids=PANELS)
def test_a_panel_has_rows(cursor, context, target):
    cursor.execute(context.expand(target["rawSql"]))

    rows = cursor.fetchall()
    assert rows
    assert [
        name for name, values in named(cursor, rows) if all(each is None for each in values)
    ] == []
    if target["format"] == "time_series":
        assert_is_series([column[0] for column in cursor.description], rows)


def named(cursor, rows):
    """Return each column's name and values."""
    return zip([column[0] for column in cursor.description], zip(*rows, strict=True), strict=True)


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

        assert cursor.description, target


@pytest.mark.parametrize("query", ALERTS.values(), ids=ALERTS)
def test_an_alert_has_one_number(cursor, query):
    cursor.execute(query)

    [(value,)] = cursor.fetchall()
    assert isinstance(value, float)


@pytest.fixture
def without_labels(filled, database_server):
    """Return a cursor on a fleet of which no row had a label; what it does is undone."""
    connection = psycopg2.connect(database_server)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE federated_models SET metrics_rows = 0, metrics_log_loss_sum = 0,"
                " metrics_tp = 0, metrics_fp = 0, metrics_tn = 0, metrics_fn = 0"
            )
            cursor.execute("DELETE FROM model_feedback")
            cursor.execute("DELETE FROM model_evaluations")
            cursor.execute(
                "UPDATE local_models SET rows_labelled = 0, accuracy = NULL, global_metrics = NULL,"
                " candidate_metrics = NULL, personalized_metrics = NULL"
            )
            cursor.execute(f"SET LOCAL ROLE {GRAFANA}")
            yield cursor
    finally:
        connection.rollback()
        connection.close()


def test_a_fleet_without_labels_shows_no_accuracy(without_labels, context):
    shown = set()
    for name, target in PANELS.items():
        without_labels.execute(context.expand(target["rawSql"]))
        columns = [column[0] for column in without_labels.description]
        rows = without_labels.fetchall()
        measured = [
            column
            for column in columns
            if any(word in column for word in ("accuracy", "log_loss", "error", "roc_auc"))
        ]
        shown |= {
            (name, column)
            for column in measured
            for row in rows
            if row[columns.index(column)] is not None
        }

    assert shown == set()


READABLE = {
    "aggregation_rounds",
    "anomalies",
    "batch_analysis_results",
    "data_quality_results",
    "device_samples",
    "device_status",
    "evaluation_runs",
    "federated_models",
    "local_models",
    "model_head",
    "passed_evaluations",
    "passed_feedback",
    "promotion_decisions",
    "stream_analysis_batches",
    "stream_analysis_results",
    "stream_fleet_windows",
    "training_deployments",
    "training_health",
    "tuning_decisions",
}


def relations(cursor):
    cursor.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid"
        " WHERE nspname = 'public' AND relkind IN ('r', 'v', 'p') ORDER BY 1"
    )
    return [name for (name,) in cursor.fetchall()]


def allowed(cursor, statement):
    """Tell whether the role may run a statement, whatever else is wrong with it."""
    cursor.execute("SAVEPOINT before")
    try:
        cursor.execute(statement)
    except psycopg2.errors.InsufficientPrivilege:
        return False
    finally:
        cursor.execute("ROLLBACK TO before")
    return True


def test_the_role_reads_what_panels_need_and_nothing_else(cursor):
    of_dashboards = {name for name in relations(cursor) if allowed(cursor, f"TABLE {name} LIMIT 0")}

    assert of_dashboards == READABLE
    assert allowed(cursor, "SELECT topic, state, is_quarantined, created_at FROM outbox LIMIT 0")
    assert not allowed(cursor, "SELECT value FROM outbox LIMIT 0")


def test_the_role_writes_nothing(cursor):
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'S')"
        " AND relnamespace <> 'pg_catalog'::regnamespace"
        " AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
    )

    assert cursor.fetchall() == []
    assert not allowed(cursor, "DELETE FROM training_health")
    assert not allowed(cursor, "CREATE TABLE public.mine (a INT)")
    assert not allowed(cursor, "CREATE SCHEMA mine")
