"""Pieces of Markdown that GitHub and the site show alike."""

import re
from collections.abc import Iterable, Sequence

NOTICE = "*Written by `make reference` from {source}; a test compares.*"


def page(title: str, source: str, *parts: str) -> str:
    """Return a whole page: its title, where it comes from, and its parts."""
    return "\n\n".join((f"# {title}", NOTICE.format(source=source), *parts)) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what a cell holds is Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(" | ".join(("", *map(cell, line), "")).strip() for line in lines)


def cell(text: str) -> str:
    """Keep a text within its cell."""
    return re.sub(r"[ \n]+", " ", text.replace("|", r"\|")).strip(" ")


def code(text: str) -> str:
    """Mark a text as code; nothing for an empty one."""
    return f"`{text}`" if text else ""


def codes(texts: Iterable[str]) -> str:
    """Mark each text as code."""
    return ", ".join(map(code, texts))


def block(language: str, text: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"
