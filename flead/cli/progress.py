"""Progress on standard error: a line for each thing that happened, in colour on a terminal."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from flead.stack.lifecycle import Progress, Report

MARKS = {"ready": "[green]✓[/green]", "failed": "[red]✗[/red]", "stopped": "[dim]■[/dim]"}
BEGINNINGS = frozenset({"starting", "stopping"})


def say(line: str) -> None:
    """Show that something has happened."""
    typer.echo(f"· {line}", err=True)


@contextmanager
def stack_progress() -> Iterator[Report]:
    """Give the function that shows progress; on a terminal a last line says what is awaited."""
    console = Console(stderr=True, highlight=False)
    awaited: dict[str, str] = {}
    lock = threading.Lock()
    with console.status("") as spinner:

        def report(progress: Progress) -> None:
            with lock:
                if progress.state in BEGINNINGS:
                    awaited[progress.subject] = progress.state
                else:
                    awaited.pop(progress.subject, None)
                    console.print(_line(progress), soft_wrap=True)
                spinner.update(_awaited(awaited))

        yield report


def _awaited(states: dict[str, str]) -> str:
    """Return what is awaited, with each state once: `starting a, b; stopping c`."""
    by_state = {
        state: [name for name, other in states.items() if other == state]
        for state in sorted(set(states.values()))
    }
    return "; ".join(f"{state} {', '.join(names)}" for state, names in by_state.items())


def _line(progress: Progress) -> str:
    mark = MARKS.get(progress.state, "·")
    if progress.state == "preparing":
        return f"{mark} {progress.detail}"
    took = f"{progress.seconds:5.1f} s" if progress.seconds else ""
    return f"{mark} {progress.subject:<22}{progress.state:<8}{took:>8}  {progress.detail}".rstrip()


@contextmanager
def work_progress() -> Iterator[Callable[[str, float], None]]:
    """Give the function that shows a piece of work and the share of it that is done."""
    bars = RichProgress(
        TextColumn("{task.description:<32}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
    )
    tasks: dict[str, TaskID] = {}
    with bars:

        def report(what: str, share: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=1.0)
            bars.update(tasks[what], completed=share)

        yield report
