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


def service_names(incomplete: str) -> list[str]:
    """Complete the name of a service or a group on the command line."""
    from flead.stack.services import all_services

    names = [*all_services(Home.from_environment()), "airflow", "flink"]
    return [name for name in names if name.startswith(incomplete)]


@app.command(rich_help_panel=PANEL)
def up(
    services: Annotated[
        list[str] | None,
        typer.Argument(
            help="Services, or the groups flink and airflow; all but spark-history when none is"
            " named.",
            autocompletion=service_names,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Start the servers and wait until each answers.

    What runs already is left alone, data from before is kept, what is missing on this machine
    (Python environments, jars) is installed first, and the training job that ran before goes on.
    Ends with 1 when a server does not start, and shows the end of its log.

    Prints the addresses of what runs and the login of Airflow; with --json what `flead status
    --json` prints.

    Example: `flead up`, or `flead up kafka postgres` for a part
    """
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import up as start_stack

    home = Home.from_environment()
    with stack_progress() as report:
        start_stack(home, services or [], report)
    if json:
        from flead.stack.status import stack_status

        _write(stack_status(home))
    else:
        show_addresses(home)


@app.command(rich_help_panel=PANEL)
def prepare(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Services, the groups flink and airflow, or all; all but spark-history when none"
            " is named.",
            autocompletion=service_names,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Install what servers need (Python environments, jars) without starting them.

    What is there already, as its lock pins it, costs nothing. Needs the package registries.

    Prints a line for each thing that is installed; with --json the environments and sets of jars
    that are there now.

    Example: `flead prepare all`
    """
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import prepare as prepare_services
    from flead.stack.services import all_services, selected

    home = Home.from_environment()
    services = selected(all_services(home), parts or [])
    with stack_progress() as report:
        prepare_services(home, services, report)
    if json:
        _write(
            {
                "environments": sorted({name for each in services for name in each.environments}),
                "jars": sorted({name for each in services for name in each.jars}),
            }
        )


@app.command(rich_help_panel=PANEL)
def down(
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Also delete all data, logs, ports and secrets.")
    ] = False,
    json: Json = False,
) -> None:
    """Stop the servers and everything that they started; the data stays.

    The training job is stopped with a savepoint first, from which the next `flead up` goes on. Also
    ends what lost its supervisor. Ends with 1 when a process outlives its end.

    Prints a line for each server that stops; with --json their names.

    Example: `flead down`, or `flead down --wipe` to begin anew
    """
    from flead.cli.progress import stack_progress
    from flead.stack.lifecycle import Progress
    from flead.stack.lifecycle import down as stop_stack

    stopped = []
    with stack_progress() as report:

        def note(progress: Progress) -> None:
            if progress.state == "stopped":
                stopped.append(progress.subject)
            report(progress)

        stop_stack(Home.from_environment(), note, wipe=wipe)
    if json:
        _write({"stopped": stopped, "wiped": wipe})


@app.command(rich_help_panel=PANEL)
def status(json: Json = False) -> None:
    """Show what runs: state, port, process, uptime and memory of each server.

    States: running, starting, unhealthy (its process runs, it does not answer), restarting,
    stopping, failed (given up), stopped, orphaned (it lost its supervisor: up or down repairs it).
    `flead doctor` says what to do about them.

    Prints a table with a line for each server and one for all; memory is the proportional set size.

    Example: `flead status --json | jq '.services[] | select(.state != "running")'`
    """
    from flead.stack.status import stack_status

    found = stack_status(Home.from_environment())
    if json:
        _write(found)
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
        str | None,
        typer.Argument(
            help="A service or a group; all when none is named.", autocompletion=service_names
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines of each log.")] = 50,
) -> None:
    """Show the end of the servers' logs.

    Prints the lines as they are, each behind the server's name when it is more than one; those of
    Airflow's tasks are on Airflow's pages.

    Example: `flead logs flink -f`
    """
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


def _write(found: object) -> None:
    """Print the one JSON object that a program asked for."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


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
    from flead.stack.web_pages import fleet_page

    addresses = Addresses.of(home)
    running = {found.name for found in stack_status(home).services if found.state == "running"}
    lines = {
        "airflow-api-server": (
            f"Fleet       {fleet_page(addresses)}\n"
            f"            login {addresses.airflow_user}, password {addresses.airflow_password}\n"
            f"Airflow     {addresses.airflow_url}"
        ),
        "flink-jobmanager": f"Flink       {addresses.flink_url}",
        "spark-history": f"Spark       {addresses.spark_history_url}",
        "kafka": f"Kafka       {addresses.kafka_bootstrap}",
        "postgres": f"PostgreSQL  passwords in {home.secrets_file}",
    }
    for name, line in lines.items():
        if name in running:
            sys.stdout.write(f"{line}\n")
