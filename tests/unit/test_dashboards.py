"""Grafana's files: those of the code, as Grafana reads them, legible on any theme."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.alerting import Rule
from grafana_foundation_sdk.models.dashboard import Dashboard
from jsonschema import Draft7Validator

from flead.dashboards.files import files
from flead.dashboards.queries import DIRECTORY
from flead.settings import Settings

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "grafana"
SCHEMAS = REPOSITORY / "tests" / "grafana"
BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").iterdir())
}
ALERTING = yaml.safe_load((FOLDER / "provisioning" / "alerting" / "flead.yaml").read_text())
[GROUP] = ALERTING["groups"]
RULES = {rule["uid"]: rule for rule in GROUP["rules"]}

every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def validator(name):
    return Draft7Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def panels():
    return [(uid, panel) for uid, board in BOARDS.items() for panel in board["panels"]]


def test_the_files_are_those_of_the_code():
    made = files(Settings())
    stored = {
        str(path.relative_to(FOLDER)): path.read_text()
        for folder in ("dashboards", "provisioning/alerting")
        for path in (FOLDER / folder).iterdir()
    }

    assert stored == made, "run `make dashboards`"


def test_every_question_has_its_dashboard():
    assert set(BOARDS) == {
        "flead-model-accuracy",
        "flead-feedback-quality",
        "flead-improvement",
        "flead-anomalies",
        "flead-device-performance",
        "flead-pipeline-health",
        "flead-data-quality",
        "flead-tuning",
    }


@every_board
def test_a_dashboard_is_valid_by_the_schema_of_grafana(board):
    assert [error.message for error in validator("dashboard").iter_errors(board)] == []


@every_board
def test_the_models_of_grafana_read_a_dashboard_back_as_it_is(board):
    register_default_plugins()

    read = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))

    assert read["panels"] == board["panels"]
    assert {name: read[name] for name in board.keys() - {"templating", "annotations"}} == {
        name: board[name] for name in board.keys() - {"templating", "annotations"}
    }


@every_board
def test_panels_fill_a_grid_of_24_columns_without_overlaps(board):
    places = [panel["gridPos"] for panel in board["panels"]]

    cells = [
        {
            (column, row)
            for column in range(place["x"], place["x"] + place["w"])
            for row in range(place["y"], place["y"] + place["h"])
        }
        for place in places
    ]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not any(first & second for first, second in combinations(cells, 2))
    height = max(place["y"] + place["h"] for place in places)
    assert sum(map(len, cells)) == 24 * height


@every_board
def test_a_panel_says_what_it_shows(board):
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"].endswith((".", "?"))
        assert panel["fieldConfig"]["defaults"]["noValue"]


@pytest.mark.parametrize("kind", ["timeseries", "barchart", "trend"])
def test_a_scale_has_a_unit_and_a_legend(kind):
    drawn = [panel for _, panel in panels() if panel["type"] == kind]

    assert drawn
    for panel in drawn:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["options"]["legend"]["showLegend"], panel["title"]


@every_board
def test_colours_are_names_which_each_theme_has_its_own_shade_of(board):
    colours = re.findall(r'"(?:fixedC|iconC|c)olor": "([^"]*)"', json.dumps(board))

    assert set(colours) <= {"green", "orange", "red", "text"}
    assert "style" not in board


@every_board
def test_a_dashboard_leads_to_the_others_and_to_the_fleet_page(board):
    others, fleet = board["links"]
    assert (others["type"], others["tags"], board["tags"]) == ("dashboards", ["flead"], ["flead"])
    page = fleet["url"].removeprefix("${airflow}/flead/").partition("/")[0]
    assert (REPOSITORY / "flead_airflow" / "pages" / f"{page}.py").exists()
    assert [each["name"] for each in board["templating"]["list"]][-1] == "airflow"


@every_board
def test_a_dashboard_asks_for_the_variables_that_its_queries_use(board):
    offered = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{(\w+)[:}]", json.dumps(board))) - {"__value", "__url_time_range"}

    assert used == offered


def test_every_query_is_drawn_or_watched():
    used = {text for text in texts([*BOARDS.values(), ALERTING]) if "SELECT" in text}

    assert len(used) == len(list(DIRECTORY.rglob("*.sql")))


def texts(document):
    """Return all texts of a document."""
    if isinstance(document, str):
        return [document]
    if isinstance(document, dict):
        document = list(document.values())
    return [text for each in document for text in texts(each)] if isinstance(document, list) else []


@pytest.mark.parametrize("path", sorted(DIRECTORY.rglob("*.sql")), ids=lambda path: path.stem)
def test_evaluations_and_feedback_are_read_through_their_views(path):
    assert not re.search(r"\bmodel_(evaluations|feedback)\b", path.read_text())


def test_the_role_of_dashboards_may_read_only_what_a_query_names():
    grants = (REPOSITORY / "sql" / "roles" / "grafana.sql").read_text()
    granted = re.findall(r"'(\w+)'", grants.partition("ARRAY[")[2].partition("]")[0])
    queries = "".join(path.read_text() for path in DIRECTORY.rglob("*.sql"))

    assert granted
    assert [name for name in granted if not re.search(rf"\b{name}\b", queries)] == []


def test_the_panel_that_an_alert_links_to_exists():
    for rule in RULES.values():
        ids = [panel["id"] for panel in BOARDS[rule["dashboardUid"]]["panels"]]
        assert rule["panelId"] in ids


@every_rule
def test_an_alert_is_valid_by_the_schema_of_grafana(rule):
    """A file lacks what the group and a dashboard's field say, which the API wants in the rule."""
    named = {name: rule[name] for name in rule.keys() - {"dashboardUid", "panelId"}}
    whole = named | {"folderUID": GROUP["folder"], "orgID": 1, "ruleGroup": GROUP["name"]}

    assert [error.message for error in validator("alerting").iter_errors(whole)] == []
    assert json.loads(json.dumps(Rule.from_json(whole), cls=JSONEncoder)) == whole


def limit(uid):
    [evaluator] = [
        condition["evaluator"] for condition in RULES[uid]["data"][1]["model"]["conditions"]
    ]
    assert evaluator["type"] == "gt"
    return evaluator["params"]


def test_the_limits_of_alerts_are_those_of_the_health_gate():
    settings = Settings()

    assert {uid: limit(uid) for uid in RULES} == {
        "flead-verdict-exhausted": [0],
        "flead-verdict-breached": [0],
        "flead-no-reading": [180],
        "flead-checkpoint-age": [settings.health_checkpoint_age_seconds],
        "flead-lag": [settings.health_lag_seconds],
        "flead-stream-lag": [settings.health_lag_seconds],
        "flead-stream-batch-age": [settings.health_batch_age_seconds],
        "flead-dead-letters": [settings.health_dead_letters_per_minute],
        "flead-restarts": [settings.health_restarts],
        "flead-undecided-candidate": [settings.gate_timeout_seconds + settings.max_wait_seconds],
        "flead-unsent-messages": [300],
        "flead-quarantined-evaluation": [0],
        "flead-pending-approval": [0],
    }


def test_other_settings_make_other_limits():
    made = yaml.safe_load(
        files(Settings(health_lag_seconds=17))["provisioning/alerting/flead.yaml"]
    )

    [lag] = [rule for rule in made["groups"][0]["rules"] if rule["uid"] == "flead-lag"]
    assert lag["data"][1]["model"]["conditions"][0]["evaluator"]["params"] == [17]


def test_alerts_hold_no_dollar_for_grafana_replaces_it_by_its_environment():
    assert "$" not in (FOLDER / "provisioning" / "alerting" / "flead.yaml").read_text()


def test_the_data_source_reads_its_password_from_a_file():
    [source] = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "flead.yaml").read_text())[
        "datasources"
    ]

    assert source["secureJsonData"] == {"password": "$__file{/run/secrets/postgres_grafana}"}
    assert (source["user"], source["uid"]) == ("grafana", "flead")
    used = {panel["datasource"]["uid"] for _, panel in panels()}
    used |= {panel["targets"][0]["datasource"]["uid"] for _, panel in panels()}
    assert used == {source["uid"]}
    assert {panel["datasource"]["type"] for _, panel in panels()} == {source["type"]}


def test_no_provisioned_dashboard_can_be_changed_or_lost_in_the_browser():
    [provider] = yaml.safe_load(
        (FOLDER / "provisioning" / "dashboards" / "flead.yaml").read_text()
    )["providers"]

    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
