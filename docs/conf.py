"""How the pages become a site: `make docs`. The root of the sources is that of the repository."""

from itertools import chain
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[1]
DOCS = Path(__file__).resolve().parent

NAVIGATION = {
    "Start": (
        "README",
        "docs/tour",
        "docs/your_own_data",
        "docs/experiments",
        "docs/glossary",
    ),
    "Understand": (
        "docs/learning",
        "docs/federation",
        "docs/adaptation",
        "docs/tuning",
        "docs/evaluation",
        "docs/quality",
        "docs/stream_analysis",
        "docs/batch_analysis",
        "docs/architecture",
    ),
    "Operate": (
        "docs/operations",
        "docs/reliability",
        "docs/pages",
        "docs/dashboards",
        "docs/command_line",
        "docs/compose",
        "docs/flink_operators",
        "docs/retention",
        "docs/performance",
    ),
    "Reference": (
        "docs/reference/topics",
        "docs/reference/tables",
        "docs/reference/dags",
        "docs/reference/settings",
        "docs/reference/commands",
    ),
    "Change it": ("CONTRIBUTING", "SECURITY", "CHANGELOG"),
}
"""Captions of the sidebar with their pages; one that does not exist is left out."""

project = "FLEAD"
project_copyright = "the FLEAD authors, Apache-2.0"
extensions = ["myst_parser"]
root_doc = "docs/index"
nitpicky = True
# Sphinx looks for sources below its root, where the environments and their packages are as well.
PAGES = {page for page in chain(*NAVIGATION.values()) if "/" not in page}
exclude_patterns = [path.name for path in ROOT.iterdir() if path != DOCS and path.stem not in PAGES]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "FLEAD"
html_extra_path = ["site"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the first page its tables of contents, which pages on GitHub could only show as code."""
    if docname != app.config.root_doc:
        return
    for caption, pages in NAVIGATION.items():
        there = [_entry(page) for page in pages if (ROOT / f"{page}.md").exists()]
        source[0] += "\n".join(
            ("\n```{toctree}", ":hidden:", f":caption: {caption}", "", *there, "```", "")
        )


def renew_navigation(
    app: Sphinx, _env: BuildEnvironment, added: set[str], _changed: set[str], removed: set[str]
) -> list[str]:
    """Read the first page again when another page came or went."""
    return [app.config.root_doc] if added or removed else []


def _entry(page: str) -> str:
    """Return the line of a page; the README's own title is the project's name."""
    return f"/{page}" if page != "README" else f"README </{page}>"


def show_folders_as_text(_app: Sphinx, document: nodes.document) -> None:
    """Take the links off folders of the repository: the site has their pages, not their lists."""
    for link in list(document.findall(pending_xref)):
        target = (ROOT / link["refdoc"]).parent / link["reftarget"]
        if link["reftype"] == "myst" and target.is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Register what the settings above cannot say."""
    app.connect("source-read", add_navigation)
    app.connect("env-get-outdated", renew_navigation)
    app.connect("doctree-read", show_folders_as_text)
