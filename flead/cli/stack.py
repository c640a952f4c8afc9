"""Commands for the embedded stack: up, down, status, logs."""

import sys
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flead.stack.home import Home

app = typer.Typer()
PANEL = "The embedded stack"
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")
]


@app.command(rich_help_panel=PANEL)
def up(
    services: Annotated[
        list[str] | None,
        typer.Argument(
            help="Services, or the groups flink and airflow; all but spark-history when none is"
            " named."
        ),
    ] = None,
) -> None:
    """Start the servers and wait until each answers.

    What runs already is left alone, data from before is kept, and what is missing on this machine
    (Python environments, jars) is installed first. Ends with 1 when a server does not start, and
    shows the end of its log.
    """
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import up as start_stack

    home = Home.from_environment()
    with stack_progress() as report:
        start_stack(home, services or [], report)
    show_addresses(home)


@app.command(rich_help_panel=PANEL)
def prepare(
    parts: Annotated[
        list[str] | None,
        typer.Argument(help="Services, or the groups flink and airflow; all when none is named."),
    ] = None,
) -> None:
    """Install what servers need (Python environments, jars) without starting them."""
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import prepare as prepare_services
    from flead.stack.services import all_services, selected

    home = Home.from_environment()
    with stack_progress() as report:
        prepare_services(home, selected(all_services(home), parts or []), report)


@app.command(rich_help_panel=PANEL)
def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Also delete all data, logs, ports and secrets.")
    ] = False,
) -> None:
    """Stop the servers and everything that they started; the data stays."""
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import down as stop_stack

    with stack_progress() as report:
        stop_stack(Home.from_environment(), report, wipe=wipe)


@app.command(rich_help_panel=PANEL)
def status(json: Json = False) -> None:
    """Show what runs: state, port, process, uptime and memory of each server.

    States: running, starting, unhealthy (its process runs, it does not answer), restarting,
    stopping, failed (given up), stopped, orphaned (it lost its supervisor: up or down repairs it).
    """
    import msgspec

    from flead.stack.status import stack_status

    found = stack_status(Home.from_environment())
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    # Narrow enough for a terminal of 80 columns.
    table = Table(
        "service", "state", "port", "pid", "uptime", "procs", "memory",
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    for service in found.services:
        colour = {"running": "green", "stopped": "dim"}.get(service.state, "red")
        table.add_row(
            service.name,
            f"[{colour}]{service.state}[/{colour}]",
            str(service.port or ""),
            str(service.pid or ""),
            duration(service.uptime_seconds),
            str(service.processes or ""),
            f"{service.memory_mb:,.0f} MB" if service.processes else "",
        )
    table.add_section()
    total = f"{found.total_memory_mb:,.0f} MB"
    table.add_row("all", "", "", "", "", str(found.total_processes), total)
    Console().print(table)


@app.command(rich_help_panel=PANEL)
def logs(
    service: Annotated[
        str | None, typer.Argument(help="A service or a group; all when none is named.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines of each log.")] = 50,
) -> None:
    """Show the end of the servers' logs."""
    from flead.stack import logs as log_files
    from flead.stack.services import all_services, belongs_to

    home = Home.from_environment()
    names = [name for name in all_services(home) if service is None or belongs_to(name, service)]
    if not names:
        raise typer.BadParameter(f"no service is called {service!r}")
    files = {name: home.log_file(name) for name in names}

    def show(name: str, line: str) -> None:
        prefix = f"{name:>21} | " if len(names) > 1 else ""
        sys.stdout.write(f"{prefix}{line}\n")

    for name, file in files.items():
        for line in log_files.tail(file, lines):
            show(name, line)
    if follow:
        try:
            for name, line in log_files.follow(files):
                show(name, line)
                sys.stdout.flush()
        except KeyboardInterrupt:
            return


def duration(seconds: float | None) -> str:
    """Write seconds as hours, minutes and seconds; nothing when there are none."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def show_addresses(home: Home) -> None:
    """Print where the running servers answer, and the login of Airflow."""
    from flead.stack.addresses import Addresses
    from flead.stack.status import stack_status

    addresses = Addresses.of(home)
    running = {found.name for found in stack_status(home).services if found.state == "running"}
    lines = {
        "airflow-api-server": (
            f"Airflow     {addresses.airflow_url}\n"
            f"            login {addresses.airflow_user}, password {addresses.airflow_password}"
        ),
        "flink-jobmanager": f"Flink       {addresses.flink_url}",
        "spark-history": f"Spark       {addresses.spark_history_url}",
        "kafka": f"Kafka       {addresses.kafka_bootstrap}",
        "postgres": f"PostgreSQL  passwords in {home.secrets_file}",
    }
    for name, line in lines.items():
        if name in running:
            sys.stdout.write(f"{line}\n")
