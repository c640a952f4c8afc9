"""A site to visit, and a visitor who notices what goes wrong in the browser."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Frame, Page, expect

from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials

WIDE: Final = 1280
NARROW: Final = 390
HEIGHTS: Final = {WIDE: 900, NARROW: 844}
WAIT_MS: Final = 60_000
"""A machine that does other things too is slow."""

expect.set_options(timeout=WAIT_MS)

DRAWN: Final = """
() => [...document.querySelectorAll("[data-chart]")].every((each) => each.querySelector("canvas"))
"""
BLANK_CHARTS: Final = """
() => [...document.querySelectorAll("[data-chart] canvas")]
    .filter((canvas) => {
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size < 20;
    })
    .map((canvas) => canvas.closest("[data-chart]").id)
"""
CUT_OFF: Final = """
() => {
    const width = document.documentElement.clientWidth;
    const found = [];
    for (const each of document.body.querySelectorAll("*")) {
        const box = each.getBoundingClientRect();
        // What scrolls on its own may be wider; what is hidden has no size or is far left.
        if (!box.width || box.right < 0 || each.closest("canvas, svg, .hidden, .skip")) continue;
        const scroller = each.closest(".scroll");
        if (!scroller && box.right > width + 1) found.push(`${each.tagName} ${each.textContent}`);
        const style = getComputedStyle(each);
        const clips = style.overflowX === "hidden" || style.overflowX === "clip";
        if (clips && each.scrollWidth > each.clientWidth + 1)
            found.push(`clipped: ${each.tagName} ${each.textContent}`);
    }
    if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
    return found.map((each) => each.trim().replace(/\\s+/g, " ").slice(0, 100));
}
"""
EMPTY: Final = """
() => [...document.querySelectorAll("h1, h2, section, figure, td, th, dd, a, button")]
    .filter((each) => !each.closest(
        "dialog:not([open]), .actions, details:not([open]), [aria-hidden=true]"
    ))
    .filter((each) => !each.textContent.trim() && !each.getAttribute("aria-label"))
    .map((each) => each.outerHTML.slice(0, 100))
"""
AXE: Final = """
async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    return found.violations.map((each) => ({
        rule: each.id, impact: each.impact, help: each.help,
        nodes: each.nodes.map((node) => node.html.slice(0, 160)),
    }));
}
"""
SERIOUS: Final = frozenset({"serious", "critical"})


@dataclass(frozen=True)
class Site:
    """Airflow's address, the passwords of its users, and the database behind the fleet's pages."""

    url: str
    passwords: dict[str, str]
    database_url: str

    @classmethod
    def of(cls, addresses: Addresses, credentials: Credentials) -> "Site":
        """Return the site of an embedded stack."""
        passwords = {"admin": credentials.airflow_admin, "viewer": credentials.airflow_viewer}
        return cls(addresses.airflow_url, passwords, addresses.database_url)


class Visitor:
    """Somebody with a browser of their own, logged in.

    Attributes
    ----------
    page : Page
        Their tab.
    session
        Lets another visitor be the same user without logging in.

    Parameters
    ----------
    role
        The user that is logged in; None for somebody who is not.
    """

    def __init__(
        self,
        browser: Browser,
        site: Site,
        role: str | None,
        session: Any = None,
        *,
        theme: str = "light",
        width: int = WIDE,
    ) -> None:
        self._site = site
        self._noticed: list[str] = []
        self._context = browser.new_context(
            viewport={"width": width, "height": HEIGHTS[width]},
            color_scheme=theme,
            storage_state=session,
            # Moving things would be photographed halfway.
            reduced_motion="reduce",
        )
        self._context.set_default_timeout(WAIT_MS)
        self.page = self._context.new_page()
        if session is None and role is not None:
            self._log_in(role)
        self.session = self._context.storage_state()
        self._watch()

    def open(self, path: str) -> Page:
        """Open a page of the fleet's and wait until it is drawn."""
        answer = self.page.goto(f"{self._site.url}/flead{path}")
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        self.wait_until_drawn(self.page)
        return self.page

    def wait_until_drawn(self, page: Page | Frame) -> None:
        """Wait until every chart has been drawn."""
        page.wait_for_load_state("load")
        page.wait_for_function(DRAWN)

    def noticed(self) -> list[str]:
        """Return what went wrong since it was asked last: errors, and requests to elsewhere."""
        noticed, self._noticed = self._noticed, []
        return noticed

    def photograph(self, folder: Path, name: str) -> None:
        """Keep a picture of the whole page."""
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)

    def serious_violations(self, axe: str) -> list[dict[str, Any]]:
        """Return the rules of accessibility that the page breaks badly."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(axe)
        return [each for each in self.page.evaluate(AXE) if each["impact"] in SERIOUS]

    def close(self) -> None:
        """Close the browser of this visitor."""
        self._context.close()

    def fill_in_login(self, role: str) -> None:
        """Type user and password where Airflow asks for them."""
        self.page.get_by_label("Username").fill(role)
        self.page.get_by_label("Password").fill(self._site.passwords[role])
        self.page.keyboard.press("Enter")

    def _log_in(self, role: str) -> None:
        self.page.goto(self._site.url)
        self.fill_in_login(role)
        expect(self.page.get_by_role("link", name="Fleet")).to_be_visible()

    def _watch(self) -> None:
        own = urlsplit(self._site.url).netloc

        def of_request(request: Any) -> None:
            target = urlsplit(request.url)
            if target.scheme in {"http", "https", "ws", "wss"} and target.netloc != own:
                self._noticed.append(f"asks {target.netloc}: {request.url}")

        def of_response(response: Any) -> None:
            if response.status >= 400:
                self._noticed.append(f"{response.status}: {response.url}")

        def of_message(message: Any) -> None:
            if message.type == "error":
                self._noticed.append(f"console: {message.text}")

        self.page.on("request", of_request)
        self.page.on("response", of_response)
        self.page.on("console", of_message)
        self.page.on("pageerror", lambda error: self._noticed.append(f"script: {error}"))
