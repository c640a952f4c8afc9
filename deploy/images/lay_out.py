"""Put together, while an image is built, what the embedded stack puts together at its start.

`jars` fetches the pinned jars; `flink`, `kafka` and `spark` write what stands between the wheels
and their programs. Run with FLEAD_HOME as the image has it.
"""

import shutil
import sys

from flead.stack.files import write_file
from flead.stack.flink import lay_out, python_jar
from flead.stack.home import Home
from flead.stack.jars import fetch_jars
from flead.stack.kafka import LOGGING
from flead.stack.spark import prepare_spark

JARS = ("kafka", "flink", "spark")


def main(part: str) -> None:
    """Lay out one part."""
    home = Home.from_environment()
    match part:
        case "jars":
            for name in JARS:
                fetch_jars(home, name, print)
        case "kafka":
            write_file(home.config / "kafka" / "log4j2.yaml", LOGGING, 0o644)
        case "flink":
            lay_out(home)
            # Airflow's image has no wheel of Flink that a link could point into.
            shutil.copy(python_jar(home).resolve(), home.config / "flink-python.jar")
        case "spark":
            prepare_spark(home)
        case _:
            sys.exit(f"there is no part {part!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
