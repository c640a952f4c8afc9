"""The `flead` command: its groups of commands and how errors end."""

import sys

import typer

from flead.cli import (
    batch,
    bench,
    dead_letters,
    demo,
    doctor,
    experiment,
    models,
    pages,
    replay,
    rounds,
    secrets,
    simulate,
    sql,
    stack,
)
from flead.cli.errors import explanation

app = typer.Typer(
    name="flead",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help=(
        "Federated anomaly detection for IoT fleets: Flink trains a model for each device, Airflow "
        "runs the federation.\n\n"
        "First steps:\n\n"
        "- `flead demo`: the whole loop on a simulated fleet, until Ctrl-C\n"
        "- `flead open`: the pages, with the login\n"
        "- `flead up`: start Kafka, PostgreSQL, Flink and Airflow on this machine\n"
        "- `flead status`: what runs, where, and the memory it uses\n"
        "- `flead doctor`: what is wrong here, and what to do about it\n"
        "- `flead logs -f`: what the servers say\n"
        "- `flead experiment`: what the learning is worth on your own CSV files, without servers\n"
        "- `flead down`: stop everything; the data stays"
    ),
    epilog="FLEAD_HOME names the folder of the stack (default: .flead in the checkout).",
)
app.add_typer(demo.app)
app.add_typer(stack.app)
app.add_typer(pages.app)
app.add_typer(doctor.app)
app.add_typer(sql.app)
app.add_typer(simulate.app)
app.add_typer(replay.app)
app.add_typer(experiment.app)
app.add_typer(batch.app)
app.add_typer(models.app)
app.add_typer(rounds.app)
app.add_typer(dead_letters.app)
app.add_typer(bench.app)
app.add_typer(secrets.app)


def main() -> None:
    """Run the command line; an error that the user can act on is shown without a traceback."""
    try:
        app(prog_name="flead")
    except Exception as error:
        said = explanation(error)
        if said is None:
            raise
        sys.stderr.write(f"flead: {said}\n")
        sys.exit(1)
