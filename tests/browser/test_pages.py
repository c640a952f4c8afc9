"""Every page, as people see it: complete, legible, usable, and with the database's numbers."""

import re

import pytest
from playwright.sync_api import expect

from flead.storage.connection import connect
from tests.browser.looks import LOOKS, OTHER_LOOKS, look_at
from tests.browser.site import WIDE

PAGES = {
    "overview": "/overview",
    "devices": "/devices",
    "device": "/devices/{device}?reach=1h",
    "pipeline": "/pipeline",
    "models": "/models",
    "compare": "/models/compare?a={parent}&b={head}",
    "quality": "/quality",
    "quarantine": "/quality?run={quarantined}",
    "tuning": "/tuning",
}


@pytest.fixture
def write(site):
    """Return the function that changes the database, which another statement undoes at the end."""
    undoes = []

    def run(statement, parameters):
        with connect(site.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def change(statement, parameters=(), *, undo):
        run(statement, parameters)
        undoes.append((undo, parameters))

    yield change
    for undo in undoes:
        run(*undo)


@pytest.fixture(scope="module")
def visitors(site, visit):
    """Return the function that gives the administrator's browser for a look; one for each."""
    opened = {}

    def of(theme="light", width=WIDE):
        if (theme, width) not in opened:
            opened[theme, width] = visit(site, theme=theme, width=width)
        return opened[theme, width]

    return of


@pytest.fixture
def admin(visitors):
    visitor = visitors()
    visitor.noticed()
    yield visitor
    assert visitor.noticed() == []


@pytest.mark.parametrize(("theme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_legible_and_accessible(name, theme, width, visitors, names, axe, pictures):
    flaws = look_at(
        visitors(theme, width), PAGES[name].format(**names), axe, pictures,
        f"{name}-{theme}-{width}",
    )  # fmt: skip

    assert flaws == []


@pytest.mark.lengthy
@pytest.mark.parametrize(("theme", "width"), OTHER_LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_so_in_its_other_looks(name, theme, width, visitors, names, axe, pictures):
    flaws = look_at(
        visitors(theme, width), PAGES[name].format(**names), axe, pictures,
        f"{name}-{theme}-{width}",
    )  # fmt: skip

    assert flaws == []


def tile(page, label):
    """Return the texts of a tile: its value and its note."""
    term = page.locator("dt", has_text=re.compile(f"^{label}$"))
    return term.locator("xpath=following-sibling::dd").first


def percent(share):
    return f"{100 * share:.1f} %"


def test_the_overview_has_the_numbers_of_the_database(admin, ask):
    page = admin.open("/overview")
    [head] = ask("SELECT max(version) FROM model_head")
    measured, rows, accuracy, loss = ask(
        "SELECT version, metrics_rows, global_accuracy, global_loss FROM federated_models"
        " WHERE metrics_rows > 0 AND status = 'promoted' ORDER BY version DESC LIMIT 1"
    )
    [devices] = ask("SELECT count(DISTINCT device_id) FROM local_models")
    rows_a_second, lag = ask(
        "SELECT rows_per_second, lag_rows FROM training_health ORDER BY created_at DESC LIMIT 1"
    )
    rounds = page.locator("table", has_text="Accepted").locator("tbody tr").first
    newest = ask("SELECT round, updates, accepted FROM aggregation_rounds ORDER BY round DESC")

    expect(tile(page, "Global model")).to_contain_text(f"Version {head}")
    expect(tile(page, "Accuracy")).to_contain_text(percent(accuracy))
    expect(tile(page, "Accuracy")).to_contain_text(f"of version {measured}, on {rows:,} rows")
    expect(tile(page, "Log loss")).to_contain_text(f"{loss:.4f}")
    expect(tile(page, "Devices")).to_contain_text(f"of {devices} report")
    expect(tile(page, "Rows a second")).to_contain_text(f"{rows_a_second:.3g}")
    expect(tile(page, "Lag")).to_contain_text(f"{lag:,} rows wait")
    for number, column in zip(newest, (0, 2, 3), strict=True):
        expect(rounds.locator("th, td").nth(column)).to_have_text(str(number))


def test_what_waits_for_a_person_leads_there(admin, ask):
    page = admin.open("/overview")
    [revision] = ask("SELECT revision FROM tuning_decisions WHERE status = 'awaiting_approval'")

    item = page.locator("ul.attention li", has_text=f"revision {revision}")
    item.get_by_role("link").click()

    expect(page).to_have_url(re.compile("/flead/tuning$"))
    expect(page.locator("article", has_text=f"Revision {revision}")).to_contain_text(
        "awaiting approval"
    )


def test_devices_are_sorted_searched_and_paged_by_the_database(admin, ask):
    page = admin.open("/devices")
    first = page.locator("tbody tr").first
    worst = ask(
        """
        SELECT device_id, (personalized_metrics ->> 'log_loss_sum')::FLOAT / rows, learning_rate
        FROM local_models
        WHERE aggregation_round = (SELECT max(round) FROM aggregation_rounds)
        ORDER BY training_status = 'drifting' DESC, 2 DESC LIMIT 1
        """
    )

    expect(first.get_by_role("link")).to_have_text(worst[0])
    expect(first.locator("td").nth(2)).to_have_text(f"{worst[1]:.4f}")
    expect(page.get_by_role("status").last).to_have_text("1 to 25 of 60")

    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("status").last).to_have_text("26 to 50 of 60")

    page.get_by_role("link", name="Device", exact=True).click()
    [by_name] = ask("SELECT min(device_id) FROM local_models")
    expect(first.get_by_role("link")).to_have_text(by_name)

    [pumps] = ask("SELECT count(*) FROM device_moments WHERE device_id LIKE 'pump%%'")
    page.get_by_role("searchbox").fill("pump")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").last).to_have_text(f"1 to {min(pumps, 25)} of {pumps}")


def test_a_device_shows_its_anomalies(admin, names, ask):
    device = names["device"]
    page = admin.open(f"/devices/{device}?reach=1h")
    [anomalies] = ask(
        """
        SELECT count(*) FROM anomalies WHERE device_id = %s AND event_time > (
            SELECT greatest(
                (SELECT max(event_time) FROM device_samples WHERE device_id = %s),
                (SELECT max(event_time) FROM anomalies WHERE device_id = %s)
            )
        ) - INTERVAL '1 hour'
        """,
        *(device,) * 3,
    )
    newest = ask(
        "SELECT feature, value, z_score FROM anomalies WHERE device_id = %s"
        " ORDER BY event_time DESC LIMIT 1",
        device,
    )
    listed = page.locator("section", has_text="Anomalies, the newest").locator("tbody tr").first

    assert anomalies > 0
    expect(tile(page, "Anomalies")).to_contain_text(str(anomalies))
    expect(listed).to_contain_text(newest[0])
    expect(listed).to_contain_text(f"{newest[2]:+.2f}")

    page.get_by_role("link", name="24h").click()
    expect(page).to_have_url(re.compile("reach=24h"))


def test_the_picture_of_a_stream_has_a_table_with_the_same_figures(admin, names, ask):
    page = admin.open(f"/devices/{names['device']}?reach=15m")
    figure = page.locator("figure", has_text="Z-scores beyond the threshold")

    figure.locator("summary").click()

    stored = ask(
        """
        SELECT count(*), max(z_score) FROM anomalies WHERE device_id = %s AND event_time > (
            SELECT max(event_time) FROM device_samples WHERE device_id = %s
        ) - INTERVAL '15 minutes'
        """,
        *(names["device"],) * 2,
    )
    rows = figure.locator("tbody tr")
    expect(rows).to_have_count(stored[0])
    shown = [float(text) for text in rows.locator("td").all_inner_texts()]
    assert max(shown) == pytest.approx(stored[1], rel=1e-3)


def test_models_are_listed_and_compared(admin, names, ask):
    page = admin.open("/models")
    version = page.locator(f"#version-{names['head']}")
    [rejected] = ask("SELECT max(version) FROM federated_models WHERE status = 'rejected'")

    expect(version).to_contain_text("in use")
    expect(page.locator(f"#version-{rejected}")).to_contain_text("rejected")
    page.get_by_role("button", name="Compare", exact=True).click()

    expect(page).to_have_url(re.compile(f"/models/compare\\?a={names['head'] - 1}"))
    [inputs] = ask(
        "SELECT cardinality(weights) FROM federated_models WHERE version = %s", names["head"]
    )
    page.wait_for_load_state()
    weights = page.locator("table").last.locator("tbody tr")
    assert weights.count() in {inputs, inputs + 1}


def test_a_model_is_rolled_back_only_after_a_confirmation(admin, names, axe):
    page = admin.open("/models")
    dialog = page.get_by_role("dialog")

    page.get_by_role("button", name=f"Roll back to version {names['parent']}").click()
    expect(dialog).to_contain_text(f"Roll back to version {names['parent']}?")
    expect(dialog.get_by_label("Why")).to_be_focused()
    assert admin.serious_violations(axe) == []
    page.keyboard.press("Escape")

    expect(dialog).to_be_hidden()


def test_a_quarantine_shows_the_rule_that_was_broken(admin, names, ask):
    page = admin.open("/quality")
    [rule] = ask(
        "SELECT rule FROM data_quality_results WHERE run_id = %s AND NOT success",
        names["quarantined"],
    )

    page.get_by_role("link", name=names["quarantined"]).first.click()

    results = page.get_by_role("region", name="What was checked in")
    broken = results.locator("tbody tr").first
    expect(broken).to_contain_text("broken")
    expect(broken).to_contain_text(rule.replace("_", " "))
    broken.locator("summary").click()
    expect(broken.locator("details table")).to_be_visible()


def test_the_pipeline_shows_every_component(admin, ask):
    page = admin.open("/pipeline")
    [lag] = ask("SELECT lag_rows FROM training_health ORDER BY created_at DESC LIMIT 1")
    [round_] = ask("SELECT max(round) FROM aggregation_rounds")

    for component in (
        "Devices", "edge-iiot-stream", "Training job", "local-model-updates", "Aggregation",
        "global-model-updates", "Model evaluation", "Quality gate", "Stream analysis",
        "Daily analysis",
    ):  # fmt: skip
        expect(page.get_by_text(component, exact=True).first).to_be_visible()
    expect(page.locator("main")).to_contain_text(f"{lag:,}")
    expect(page.locator("main")).to_contain_text(f"{round_}")
    expect(page.locator("table", has_text="Parallelism").locator("tbody tr")).to_have_count(
        ask("SELECT count(*) FROM training_deployments")[0]
    )


def test_a_page_renews_itself_without_losing_the_place(admin, ask, write):
    page = admin.open("/overview")
    page.locator("figure", has_text="Accuracy by version").locator("summary").click()
    [lag] = ask("SELECT lag_rows FROM training_health ORDER BY created_at DESC LIMIT 1")

    write(
        "UPDATE training_health SET lag_rows = lag_rows + 1234567"
        " WHERE created_at = (SELECT max(created_at) FROM training_health)",
        undo="UPDATE training_health SET lag_rows = lag_rows - 1234567"
        " WHERE created_at = (SELECT max(created_at) FROM training_health)",
    )

    expect(tile(page, "Lag")).to_contain_text(f"{lag + 1_234_567:,} rows")
    expect(page.locator("#accuracy-table table")).to_be_visible()


def test_what_was_typed_stays_when_the_page_renews_itself(admin, names, write):
    page = admin.open("/models")
    typed = page.get_by_role("spinbutton", name="Compare version")
    typed.fill("3")
    typed.blur()

    write(
        "UPDATE model_head SET version = %(parent)s WHERE version = %(head)s",
        names,
        undo="UPDATE model_head SET version = %(head)s WHERE version = %(parent)s",
    )

    expect(page.locator(f"#version-{names['parent']}")).to_contain_text("in use")
    expect(typed).to_have_value("3")


def test_a_focused_link_leads_to_the_same_device_when_others_become_worse(admin, names, ask, write):
    page = admin.open("/devices")
    link = page.get_by_role("link", name=names["device"], exact=True)
    link.focus()
    [other] = ask("SELECT min(device_id) FROM device_status WHERE training_status = 'training'")

    write(
        "UPDATE device_status SET log_loss = log_loss + 1e7 WHERE device_id = %s",
        [other],
        undo="UPDATE device_status SET log_loss = log_loss - 1e7 WHERE device_id = %s",
    )

    expect(page.locator("tbody tr").first.get_by_role("link")).to_have_text(other)
    expect(link).to_be_focused()
