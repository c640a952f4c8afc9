"""The pages where people find them: in Airflow's navigation, behind its login, in its theme."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.site import Visitor

DARK = "() => document.documentElement.dataset.theme"


def out_of_frame(path):
    """Match an address of Airflow's; one that is opened in the frame is added to that around it."""
    return re.compile(f"^http://[^/]+{path}")


@pytest.fixture
def admin(site, visit):
    visitor = visit(site)
    visitor.page.goto(site.url)
    return visitor


def test_the_fleet_is_in_the_navigation_and_opens_inside_airflow(admin, pictures):
    page = admin.page
    page.get_by_role("link", name="Fleet").click()
    frame = page.frame_locator("iframe")

    expect(frame.get_by_role("heading", name="Overview")).to_be_visible()
    frame.get_by_role("link", name="Devices").first.click()
    expect(frame.get_by_role("heading", name="Devices")).to_be_visible()
    page.screenshot(path=pictures / "frame.png")
    assert [each for each in admin.noticed() if "asks" in each or "/flead/" in each] == []


def test_a_link_to_airflow_leaves_the_frame(admin):
    page = admin.page
    page.get_by_role("link", name="Fleet").click()
    frame = page.frame_locator("iframe")

    frame.get_by_role("link", name="Tuning").first.click()
    frame.get_by_role("link", name="hyperparameter_tuning").click()

    expect(page).to_have_url(out_of_frame("/dags/hyperparameter_tuning"))


def test_a_link_leaves_the_frame_before_the_page_is_whole(admin):
    page = admin.page
    held = []

    def hold(route):
        held.append(route)

    page.route("**/libraries/echarts.js", hold)
    page.get_by_role("link", name="Fleet").click()
    frame = page.frame_locator("iframe")

    frame.get_by_role("link", name="Tuning").first.click()
    frame.get_by_role("link", name="hyperparameter_tuning").click()

    expect(page).to_have_url(out_of_frame("/dags/hyperparameter_tuning"))
    assert held


def test_data_docs_leave_the_frame_and_their_own_links_work(admin, stack_home):
    page = admin.page
    page.get_by_role("link", name="Fleet").click()
    frame = page.frame_locator("iframe")
    frame.get_by_role("link", name="Quality").first.click()
    heading = frame.get_by_role("heading", name="What was checked in").inner_text()
    docs = stack_home.data / "data-docs" / heading.removeprefix("What was checked in ")
    docs.mkdir(parents=True)
    (docs / "index.html").write_text("<h1>A run</h1><a href='suite.html'>A suite</a>")
    (docs / "suite.html").write_text("<h1>A suite of rules</h1>")

    frame.get_by_role("link", name="Data Docs").click()
    page.get_by_role("link", name="A suite").click()

    expect(page.get_by_role("heading", name="A suite of rules")).to_be_visible()


def test_a_decision_that_waits_leads_to_where_airflow_asks_for_it(admin):
    page = admin.page
    page.get_by_role("link", name="Fleet").click()
    frame = page.frame_locator("iframe")

    frame.get_by_role("link", name="Tuning").first.click()
    frame.get_by_role("link", name="Decide in Airflow").click()

    # No run of this Airflow waits: its list of all that do is the place.
    expect(page).to_have_url(out_of_frame("/required_actions"))
    expect(page.get_by_text("No Required Actions found")).to_be_visible()


def test_the_theme_is_airflows(admin, site):
    admin.page.evaluate("() => localStorage.setItem('theme', 'dark')")

    page = admin.open("/overview")
    assert page.evaluate(DARK) == "dark"

    page.evaluate("() => localStorage.setItem('theme', 'light')")
    assert admin.open("/overview").evaluate(DARK) == "light"


def test_a_viewer_sees_and_cannot_act(site, visit):
    viewer = visit(site, "viewer")

    page = viewer.open("/models")

    expect(page.locator("tbody tr").first).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Roll back"))).to_have_count(0)
    assert viewer.noticed() == []


def test_who_is_logged_out_comes_back_to_the_page_by_the_login(site, browser):
    stranger = Visitor(browser, site, None)
    address = f"{site.url}/flead/devices?status=drifting"

    stranger.page.goto(address)
    stranger.page.get_by_role("link", name="Log in").click()
    stranger.fill_in_login("admin")

    expect(stranger.page).to_have_url(address)
    expect(stranger.page.get_by_role("heading", name="Devices")).to_be_visible()
    stranger.close()


def test_nobody_sees_anything_without_a_login(site, browser):
    context = browser.new_context()
    page = context.new_page()

    answers = [
        page.goto(f"{site.url}/flead/{name}").status for name in ("overview", "static/pages.css")
    ]

    assert answers == [401, 401]
    context.close()
