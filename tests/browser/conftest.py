"""A real Chromium in front of Airflow's API server, over a database that a fleet has filled."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.home import Home
from flead.storage.connection import connect
from tests.browser import chromium
from tests.browser.site import Site, Visitor
from tests.conftest import start

PICTURES = "FLEAD_PICTURES"
"""Folder that keeps the pictures of the pages; without it they go with the test."""


@pytest.fixture(scope="session")
def cache() -> Path:
    return Home.from_environment().root / "cache"


@pytest.fixture(scope="session")
def browser(cache: Path) -> Iterator[Browser]:
    """Return the browser of the session; every visitor gets a profile of its own."""
    program = chromium.find(cache)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program.path,
            args=list(chromium.FLAGS),
            env=os.environ | program.environment,
            # It has none where it runs as root, and sees no page but ours.
            chromium_sandbox=False,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(cache: Path) -> str:
    """Return the script of the accessibility rules."""
    return chromium.axe(cache)


@pytest.fixture(scope="session")
def site(stack_home: Home) -> Site:
    """Return Airflow's API server over the small filled database."""
    from benchmarks.filled.database import fill  # noqa: PLC0415 - its imports take a second
    from benchmarks.filled.fleet import SMALL  # noqa: PLC0415

    start(stack_home, "postgres")
    addresses = Addresses.of(stack_home, environ={})
    with ThreadPoolExecutor(1) as pool:
        filled = pool.submit(fill, addresses.database_url, SMALL)
        start(stack_home, "airflow-api-server")
        filled.result()
    return Site.of(addresses, Credentials.of(stack_home))


@pytest.fixture(scope="session")
def ask(site):
    """Return the function that returns the first row of a query."""

    def run(query, *parameters):
        with connect(site.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchone()

    return run


@pytest.fixture(scope="session")
def names(ask):
    """Return what stands in the addresses of pages: the head, a bad run, and a device.

    The worst of those with anomalies in their newest minutes, which charts then show.
    """
    [device] = ask(
        """
        SELECT device_id FROM device_status WHERE EXISTS (
            SELECT FROM anomalies WHERE anomalies.device_id = device_status.device_id
                AND event_time > (
                    SELECT max(event_time) FROM device_samples
                    WHERE device_samples.device_id = device_status.device_id
                ) - INTERVAL '10 minutes'
        )
        ORDER BY training_status = 'drifting' DESC, log_loss DESC LIMIT 1
        """
    )
    head, parent = ask(
        "SELECT version, parent_version FROM federated_models"
        " WHERE version = (SELECT max(version) FROM model_head)"
    )
    [quarantined] = ask(
        "SELECT evaluation_run_id FROM evaluation_runs WHERE quality_status = 'quarantined'"
        " ORDER BY evaluated_at DESC LIMIT 1"
    )
    return {"device": device, "head": head, "parent": parent, "quarantined": quarantined}


@pytest.fixture(scope="session")
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Return the function that opens a site as somebody: visit(site, role, theme=, width=)."""
    sessions: dict[tuple[str, str], object] = {}
    visitors: list[Visitor] = []

    def open_as(site: Site, role: str = "admin", **how: object) -> Visitor:
        visitor = Visitor(browser, site, role, sessions.get((site.url, role)), **how)
        sessions[site.url, role] = visitor.session
        visitors.append(visitor)
        return visitor

    yield open_as
    for visitor in visitors:
        visitor.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return the folder for pictures."""
    folder = Path(os.environ.get(PICTURES) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
