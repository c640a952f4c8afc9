"""The pages without a mouse."""

import re

import pytest
from playwright.sync_api import expect

MOST_STEPS = 400

REACHABLE = """
() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
    .filter((each) => each.checkVisibility() && !each.disabled)
    .map((each, at) => { each.dataset.testNumber ??= String(at); return each.dataset.testNumber; })
"""
FOCUSED = """
() => {
    const each = document.activeElement;
    if (!each || each === document.body) return null;
    const style = getComputedStyle(each);
    return {
        number: each.dataset.testNumber ?? "",
        isMarked: style.outlineStyle !== "none" || style.boxShadow !== "none",
        html: each.outerHTML.slice(0, 120),
    };
}
"""


@pytest.fixture(scope="module")
def admin(site, visit):
    visitor = visit(site)
    # A page that renews itself would lose the numbers that its elements are given.
    visitor.page.add_init_script("sessionStorage.setItem('flead.live', 'off')")
    return visitor


@pytest.mark.parametrize(
    "address",
    [
        "/overview", "/devices", "/devices/{device}?reach=15m", "/pipeline", "/models",
        "/models/compare?a={parent}&b={head}", "/quality", "/tuning",
    ],
)  # fmt: skip
def test_everything_is_reached_by_the_tab_key_and_shows_the_focus(admin, names, address):
    page = admin.open(address.format(**names))
    wanted = set(page.evaluate(REACHABLE))
    reached, unmarked = set(), []

    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None or focused["number"] in reached:
            break
        reached.add(focused["number"])
        if not focused["isMarked"]:
            unmarked.append(focused["html"])

    assert wanted - reached == set()
    assert unmarked == []


def test_the_first_step_skips_the_navigation(admin):
    page = admin.open("/overview")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator("main")).to_be_focused()


def test_a_device_is_found_and_opened_without_a_mouse(admin):
    page = admin.open("/devices")

    page.get_by_role("searchbox").focus()
    page.keyboard.type("motor")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("search=motor"))
    page.wait_for_load_state()
    expect(page.locator("tbody tr").first).to_contain_text("motor")
    page.locator("tbody tr a").first.focus()
    page.keyboard.press("Enter")

    expect(page.get_by_role("heading", level=1)).to_contain_text("motor")
