"""How a page is looked at: all of it, in a theme and at a width, against the same standards."""

from pathlib import Path
from typing import Final

from tests.browser.site import BLANK_CHARTS, CUT_OFF, EMPTY, NARROW, WIDE, Visitor

LOOKS: Final = [("light", WIDE), ("dark", NARROW)]
OTHER_LOOKS: Final = [("dark", WIDE), ("light", NARROW)]


def look_at(visitor: Visitor, address: str, axe: str, pictures: Path, name: str) -> list[object]:
    """Open a page, photograph it, and return what is cut off, empty, unreadable or failed."""
    visitor.noticed()
    page = visitor.open(address)

    visitor.photograph(pictures, name)
    return [
        *page.evaluate(CUT_OFF),
        *page.evaluate(EMPTY),
        *page.evaluate(BLANK_CHARTS),
        *visitor.serious_violations(axe),
        *visitor.noticed(),
    ]
