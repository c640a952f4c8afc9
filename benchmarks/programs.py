"""Programs that a benchmark runs to their end, timed and watched from outside."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from benchmarks.servers import BenchmarkError
from benchmarks.usage import Usage
from flead.stack.home import CHECKOUT, Home
from flead.stack.spark import prepare_spark, spark_environment, submission

APPLICATION = "application "
"""What a job says first, when its session has started."""

MEMORY_SECONDS = 0.5


class Ran(msgspec.Struct, frozen=True):
    """A program that has ended well, with all that came from it: of Spark, the JVM and its Pythons.

    `start_seconds` of its `seconds` had passed when a job's session had started; that is the JVM's
    share. Memory is the proportional set size. CPU seconds depend less on what else is running.
    """

    seconds: float
    start_seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    output: str


def run_job(home: Home, script: Path, arguments: Sequence[str], database_url: str) -> Ran:
    """Submit a job to `local[2]` with the memory that the stack gives it, and wait for it.

    Raises
    ------
    BenchmarkError
        It failed.
    """
    prepare_spark(home)
    variables = spark_environment(home) | {"FLEAD_DATABASE_URL": database_url}
    return run_program(submission(home, script, arguments), variables)


def run_program(command: Sequence[str], variables: Mapping[str, str]) -> Ran:
    """Run a program with variables besides those of this process, and wait for it.

    Raises
    ------
    BenchmarkError
        It failed; with the end of what it said.
    """
    lines, started, began = [], 0.0, time.monotonic()
    with (
        subprocess.Popen(
            command, env=os.environ | dict(variables), cwd=CHECKOUT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process,
        Usage(lambda: _family(process.pid), MEMORY_SECONDS) as usage,
    ):  # fmt: skip
        for line in process.stdout or ():
            lines.append(line)
            if not started and line.startswith(APPLICATION):
                started = time.monotonic() - began
        status = process.wait()
        seconds = time.monotonic() - began
    if status:
        raise BenchmarkError(f"{' '.join(command)[-300:]} failed: {''.join(lines)[-3000:]}")
    cpu_seconds = usage.cpu_seconds(0.0, time.time())
    return Ran(seconds, started, cpu_seconds, usage.peak_memory_mb, "".join(lines))


def _family(pid: int) -> list[psutil.Process]:
    """Return a process and all that came from it, as far as they live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
