"""The documentation: it builds without a warning, loads nothing from outside, and is up to date."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flead.settings import PREFIX
from flead.stack.home import CHECKOUT
from reference.commands import commands_page
from reference.settings import settings_page
from reference.topics import topics_page

REFERENCE = CHECKOUT / "docs" / "reference"
STYLED_BY = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")
LOADED_BY = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
"""Tags that have the browser load something when the page is opened."""


class Loaded(HTMLParser):
    """What a page has the browser load."""

    def __init__(self, page):
        super().__init__()
        self.addresses = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        address = attributes.get(LOADED_BY.get(tag, ""))
        if address and attributes.get("rel") not in {"next", "prev", "index", "search"}:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [
            Path(sys.executable).with_name("sphinx-build"), "--quiet", "-b", "html",
            "--fail-on-warning", "--keep-going",
            "-c", "docs", "-d", folder / "state", ".", folder / "pages",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "pages"


def test_a_page_loads_nothing_from_another_server(site):
    pages = list(site.rglob("*.html"))

    foreign = {
        (page.relative_to(site).as_posix(), address)
        for page in pages
        for address in Loaded(page.read_text()).addresses
        if urlsplit(address).netloc
    }

    assert foreign == set()
    assert len(pages) > 20


def test_what_a_page_loads_is_part_of_the_site(site):
    absent = {
        address
        for page in site.rglob("*.html")
        for address in Loaded(page.read_text()).addresses
        if not (page.parent / urlsplit(address).path).exists()
    }

    assert absent == set()


def test_no_style_sheet_of_the_site_imports_another_server(site):
    named = {
        address for sheet in site.rglob("*.css") for address in STYLED_BY.findall(sheet.read_text())
    }

    assert named == set()


@pytest.mark.parametrize(
    ("name", "written"),
    [("topics", topics_page), ("settings", settings_page), ("commands", commands_page)],
)
def test_a_page_of_reference_is_that_of_the_code(name, written):
    assert (REFERENCE / f"{name}.md").read_text() == written(), "run `make reference`"


def test_a_setting_has_its_variable_and_its_meaning():
    lines = settings_page().splitlines()
    rows = [line for line in lines if line.startswith((f"| `{PREFIX}", "| `GLOBAL_MODELS_DIR"))]

    said = "| `FLEAD_ROUND_SECONDS` | number ≥\N{NO-BREAK SPACE}0 | `60.0` | Least time between "
    assert f"{said}two rounds. |" in rows
    assert [row for row in rows if row.endswith("|  |")] == []
