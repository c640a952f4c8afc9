"""What Spark is doing, as lines of a driver's output."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

SECONDS = 5.0


class Stage(NamedTuple):
    """An active stage, as of now."""

    number: int
    name: str
    tasks: int
    done: int
    rows: int
    """Read by its tasks, from a source or another stage."""


class StageReport:
    """Turn what is seen of stages from time to time into lines, none where nothing has changed."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}
        self._said: dict[int, Stage] = {}

    def lines(self, stages: Iterable[Stage], now: float) -> list[str]:
        """Return a line for each stage that is new or has moved.

        Parameters
        ----------
        stages : iterable of Stage
            The active ones.
        now : float
            Seconds on a clock that only grows.
        """
        changed = [stage for stage in stages if self._said.get(stage.number) != stage]
        for stage in changed:
            self._began.setdefault(stage.number, now)
            self._said[stage.number] = stage
        return [_line(stage, now - self._began[stage.number]) for stage in changed]


@contextlib.contextmanager
def reporting(
    spark: Any, *, seconds: float = SECONDS, write: Callable[[str], object] = sys.stdout.write
) -> Iterator[None]:
    """Say which application runs, and every few seconds what its stages have done.

    Parameters
    ----------
    spark : SparkSession
    seconds : float
        Between two looks.
    write : callable
        Receives each line, with its end.
    """
    context = spark.sparkContext
    folder = context.getConf().get("spark.eventLog.dir", "")
    if context.getConf().get("spark.eventLog.enabled", "false") != "true":
        folder = ""
    place = f", event log in {folder}" if folder else ""
    write(f"application {context.applicationId} on {context.master}{place}\n")
    ended = threading.Event()
    thread = threading.Thread(
        target=_report, args=(context, ended, seconds, write), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(
    context: Any, ended: threading.Event, seconds: float, write: Callable[[str], object]
) -> None:
    from py4j.protocol import Py4JError  # noqa: PLC0415 - in Spark's environment only

    report = StageReport()
    while not ended.wait(seconds):
        try:
            stages = list(_active_stages(context))
        except (Py4JError, OSError):
            return  # the JVM has gone, which the driver's own next call reports
        for line in report.lines(stages, time.monotonic()):
            write(f"{line}\n")
        sys.stdout.flush()


def _active_stages(context: Any) -> Iterator[Stage]:
    tracker, store = context.statusTracker(), context._jsc.sc().statusStore()
    for number in sorted(tracker.getActiveStageIds()):
        if info := tracker.getStageInfo(number):
            # The public tracker counts tasks only.
            data = store.lastStageAttempt(number)
            rows = data.inputRecords() + data.shuffleReadRecords()
            yield Stage(number, info.name, info.numTasks, info.numCompletedTasks, rows)


def _line(stage: Stage, seconds: float) -> str:
    rows = f", {stage.rows:,} rows" if stage.rows else ""
    tasks = f"{stage.done}/{stage.tasks} tasks"
    return f"stage {stage.number} ({stage.name}): {tasks}{rows}, {seconds:.0f} s"
