"""`make demo` and a browser: what somebody sees who has read nothing but the README."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flead.stack.addresses import Addresses
from flead.stack.home import CHECKOUT
from flead.storage.connection import connect
from tests.browser.looks import LOOKS, OTHER_LOOKS, look_at
from tests.browser.site import Site, Visitor

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1_500)]

WAIT_SECONDS = 900
PAGES = ("overview", "devices", "device", "pipeline", "models", "quality", "tuning")
ANALYSED = """
    SELECT (SELECT count(*) FROM anomalies) > 1000
        AND (SELECT count(*) FROM model_evaluations WHERE status = 'evaluated') > 0
        AND (SELECT count(*) FROM data_quality_results) > 0
        AND (SELECT count(*) FROM federated_models WHERE metrics_rows > 0) >= 4
"""


class Clicks:
    """A mouse that counts."""

    def __init__(self):
        self.count = 0

    def on(self, element):
        element.click()
        self.count += 1


@pytest.fixture(scope="module")
def demonstration(make_home, tmp_path_factory):
    """Run `make demo` until its analyses have written; return the home and what it printed."""
    home = make_home()
    printed = tmp_path_factory.mktemp("demo") / "printed"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            [shutil.which("make"), "demo"],
            cwd=CHECKOUT,
            env=os.environ | home.variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Fleet " in said(process, printed))
        url = Addresses.of(home, environ={}).database_url
        wait_until(lambda: said(process, printed) and holds(url, ANALYSED))
        yield home, said(process, printed)
    finally:
        # As Ctrl-C does.
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=400)


def said(process: "subprocess.Popen[bytes]", printed: Path) -> str:
    text = printed.read_text()
    assert process.poll() is None, text
    return text


def holds(url, query, *parameters):
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('tuning_decisions') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(query, parameters)
        return cursor.fetchone()[0]


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(2)


@pytest.fixture(scope="module")
def running_site(demonstration):
    home, printed = demonstration
    password = re.search(r"login admin, password (\S+)", printed)[1]
    addresses = Addresses.of(home, environ={})
    return Site(addresses.airflow_url, {"admin": password}, addresses.database_url)


@pytest.fixture(scope="module")
def device(running_site):
    """Return the device that the list shows first when it is asked."""
    with connect(running_site.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT device_id FROM anomalies GROUP BY device_id ORDER BY count(*) DESC LIMIT 1"
        )
        return cursor.fetchone()[0]


def test_one_command_and_two_clicks_lead_to_the_picture_of_a_devices_anomalies(
    demonstration, running_site, browser, pictures
):
    _, printed = demonstration
    address = re.search(r"^Fleet +(\S+)$", printed, re.MULTILINE)[1]
    newcomer = Visitor(browser, running_site, None)
    page, mouse = newcomer.page, Clicks()

    page.goto(address)
    newcomer.fill_in_login("admin")
    frame = page.frame_locator("iframe")
    mouse.on(frame.get_by_role("link", name="Devices").first)
    worst = frame.locator("section", has_text="Worst first")
    mouse.on(worst.locator("tbody tr").first.get_by_role("link"))

    stream = frame.locator("figure", has_text="Stream:")
    expect(stream).to_be_visible()
    expect(stream.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"anomaly: [1-9]\d* figures")
    )
    page.screenshot(path=pictures / "newcomer.png")
    assert mouse.count == 2
    newcomer.close()


@pytest.mark.parametrize(("theme", "width"), LOOKS + OTHER_LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_running_stack_is_whole_legible_and_accessible(
    name, theme, width, running_site, visit, device, axe, pictures
):
    address = f"/devices/{device}?reach=15m" if name == "device" else f"/{name}"
    visitor = visit(running_site, theme=theme, width=width)

    flaws = look_at(visitor, address, axe, pictures, f"running-{name}-{theme}-{width}")

    assert flaws == []


@pytest.mark.parametrize("name", ["overview", "device", "pipeline", "models"])
def test_the_pictures_of_the_documentation_are_of_a_running_stack(
    name, running_site, visit, device, pictures
):
    visitor = visit(running_site)
    visitor.open(f"/devices/{device}?reach=15m" if name == "device" else f"/{name}")
    picture = pictures / "docs" / f"{name}.png"

    picture.parent.mkdir(exist_ok=True)
    visitor.page.screenshot(path=picture)

    assert 20_000 < picture.stat().st_size < 400_000
    assert visitor.noticed() == []


def test_the_picture_of_the_rounds_is_of_airflows_own_page(running_site, visit, pictures):
    page = visit(running_site).page
    page.goto(f"{running_site.url}/dags/aggregation_round")
    expect(page.get_by_text("wait_for_updates").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"Last \d+ Dag Runs"))).to_be_visible()
    page.wait_for_load_state("networkidle")
    picture = pictures / "docs" / "airflow-rounds.png"

    picture.parent.mkdir(exist_ok=True)
    page.screenshot(path=picture)

    assert 20_000 < picture.stat().st_size < 400_000


def test_a_model_is_rolled_back_from_its_page(running_site, visit):
    admin = visit(running_site)
    page = admin.open("/models")
    opener = page.get_by_role("button", name=re.compile("Roll back to version")).first
    version = int(re.search(r"\d+", opener.get_attribute("aria-label"))[0])

    opener.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("tried by a test")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog.get_by_role("status")).to_contain_text(f"version {version}")

    restored = """
        SELECT EXISTS (
            SELECT FROM promotion_decisions AS made
            INNER JOIN federated_models AS model ON made.version = model.version
            WHERE made.decision = 'restored' AND model.restored_version = %s
                AND strpos(made.reason, 'tried by a test') > 0
        )
    """
    wait_until(lambda: holds(running_site.database_url, restored, version))
    assert admin.noticed() == []
