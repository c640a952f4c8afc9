"""The page of commands, by Typer's own generator."""

from typer.cli import get_docs_for_click
from typer.main import get_command

from flead.cli.main import app
from reference.markdown import page

INTRODUCTION = """\
`bin/flead` is the one entry, and `bin/flead COMMAND --help` says on the terminal what is here. With
`--json`, standard output holds one JSON object and nothing else, progress goes to standard error,
and the exit status is 0 only when what was asked for happened."""


def commands_page() -> str:
    """Return the page: every command with its arguments and options."""
    command = get_command(app)
    context = command.make_context("flead", [], resilient_parsing=True)
    written = get_docs_for_click(obj=command, ctx=context, name="flead")
    _title, _, body = written.partition("\n")
    return page("Commands", "`flead.cli`", INTRODUCTION, body.strip())
