"""The first page of a run's Data Docs, and pages that need nothing from other servers.

Great Expectations' own index is drawn by scripts from public servers: without a way there it is
empty, and with one it tells them who looks at which run.
"""

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

if TYPE_CHECKING:
    from flead.quality.validation import Finding

STYLE: Final = """<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse }
th, td { border-bottom: 1px solid #8884; padding: .3rem .8rem .3rem 0; text-align: left;
  vertical-align: top }
code { overflow-wrap: anywhere }
</style>"""

_FOREIGN: Final = re.compile(
    r"""<link\b[^>]*\bhref="https?://[^>]*>|<script\b[^>]*\bsrc="https?://[^>]*>\s*</script>"""
    r"""|<link\b[^>]*\bhref="[^"]*\bstatic/[^>]*>|<img\b[^>]*>""",
    re.IGNORECASE,
)
"""What is loaded from elsewhere, and pictures, of which the pages show none but a logo."""


def make_self_contained(folder: Path) -> None:
    """Take what other servers would have to give out of all pages below a folder."""
    for page in folder.rglob("*.html"):
        text = _FOREIGN.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("</head>", f"{STYLE}</head>", 1), encoding="utf-8")


def write_overview(folder: Path, run: str, findings: Iterable["Finding"]) -> None:
    """Write `index.html`: every rule of the run, those that are broken first.

    A suite is linked to the page that Great Expectations has made of it.
    """
    pages = {
        page.relative_to(folder).parts[1]: page.relative_to(folder)
        for page in sorted(folder.glob("validations/*/**/*.html"))
    }
    rows = "".join(
        _row(finding, pages.get(finding.suite))
        for finding in sorted(findings, key=lambda each: (each.success, each.severity.value))
    )
    (folder / "index.html").write_text(
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(run)}</title>"
        f"{STYLE}</head><body><h1>{escape(run)}</h1>"
        "<table><thead><tr><th>Outcome<th>Suite<th>Rule<th>Broken by<th>Why there is the rule"
        f"</thead><tbody>{rows}</tbody></table></body></html>",
        encoding="utf-8",
    )


def _row(finding: "Finding", page: Path | None) -> str:
    outcome = "passed" if finding.success else f"<strong>{finding.severity.value}</strong>"
    suite = escape(finding.suite)
    if page is not None:
        suite = f'<a href="{quote(page.as_posix())}">{suite}</a>'
    broken = f"{finding.unexpected_count} of {finding.element_count}"
    if finding.examples and not finding.success:
        broken += f", such as <code>{escape(msgspec.json.encode(finding.examples[0]).decode())}"
        broken += "</code>"
    cells = (outcome, suite, escape(finding.rule), broken, escape(finding.why))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
