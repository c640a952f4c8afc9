"""A Spark driver that stays for the tests of a module, and takes one request after the other."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flead.stack.home import Home
from flead.stack.spark import prepare_spark, spark_environment, submission

PROGRAMS = Path(__file__).parents[1] / "programs"
CONFIGURATION = {"spark.eventLog.enabled": "false", "spark.sql.shuffle.partitions": "2"}
SHOWN_CHARACTERS = 4_000


@contextmanager
def driver(home: Home, program: str, folder: Path) -> Iterator[Callable[[Any], dict[str, Any]]]:
    """Start one of `PROGRAMS`, which reads a request a line and answers it; yield what asks it.

    An answer with `error` is raised.
    """
    prepare_spark(home)
    # Spark's launcher hands neither its standard input nor its open files to the driver.
    pipes = [folder / "requests", folder / "answers"]
    for pipe in pipes:
        os.mkfifo(pipe)
    log = folder / "log"
    command = submission(
        home, PROGRAMS / program, [str(pipe) for pipe in pipes], configuration=CONFIGURATION
    )
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            env=os.environ | spark_environment(home),
            stdin=subprocess.DEVNULL,
            stderr=output,
            stdout=output,
        ),
        pipes[0].open("w", buffering=1) as requests,
        pipes[1].open() as answers,
    ):

        def ask(request: Any) -> dict[str, Any]:
            requests.write(json.dumps(request) + "\n")
            line = answers.readline()
            assert line, log.read_text()[-SHOWN_CHARACTERS:]
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(answer["error"])
            return answer

        yield ask
