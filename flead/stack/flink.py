"""A Flink session cluster from the wheel: one JobManager, one TaskManager with Python workers."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from flead.settings import Settings
from flead.stack import health
from flead.stack.beam_patch import JAR_NAME, write_patched_jar
from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.kafka import java_home
from flead.stack.ports import HOST, Ports
from flead.stack.service import Service, once

HEARTBEAT_SECONDS = 2
TASK_SLOTS = 4
# From the wheel's own configuration, less the exports of jdk.compiler, which this Java lacks.
OPENED_PACKAGES = (
    "lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent",
    "util.concurrent.atomic", "util.concurrent.locks",
)  # fmt: skip
JAVA_OPTIONS = " ".join(
    [
        "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
        "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
        *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED_PACKAGES),
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    ]
)


def flink_services(home: Home, ports: Ports) -> list[Service]:
    """Return the JobManager and the TaskManager."""
    rest_url = f"http://{HOST}:{ports.flink_rest}"
    prepare = once(lambda: _prepare(home, ports))

    def jobmanager_answers(_started_at: float) -> bool:
        return health.get_json(f"{rest_url}/overview") is not None

    def taskmanager_is_registered(_started_at: float) -> bool:
        # A killed predecessor stays listed until its heartbeat times out.
        oldest_ms = (time.time() - 2 * HEARTBEAT_SECONDS) * 1000
        listed = health.get_json(f"{rest_url}/taskmanagers") or {"taskmanagers": []}
        return any(
            manager["slotsNumber"] == TASK_SLOTS and manager["timeSinceLastHeartbeat"] > oldest_ms
            for manager in listed["taskmanagers"]
        )

    def service(
        part: str, is_healthy: Callable[[float], bool], depends_on: tuple[str, ...]
    ) -> Service:
        name = f"flink-{part}"
        return Service(
            name=name,
            command=("/bin/bash", str(_home(home) / "bin" / f"{part}.sh"), "start-foreground"),
            is_healthy=is_healthy,
            cwd=home.work_folder(name),
            port=ports.flink_rest if part == "jobmanager" else None,
            environment={
                "FLINK_HOME": str(_home(home)),
                "FLINK_CONF_DIR": str(_home(home) / "conf"),
                "FLINK_LIB_DIR": str(_home(home) / "lib"),
                "FLINK_OPT_DIR": str(_home(home) / "opt"),
                "FLINK_PLUGINS_DIR": str(_home(home) / "plugins"),
                "FLINK_LOG_DIR": str(home.logs / "flink"),
                "MAX_LOG_FILE_NUMBER": "3",
            },
            depends_on=depends_on,
            environments=("flink",),
            jars=("flink",),
            prepare=prepare,
            stop_seconds=20,
        )

    return [
        service("jobmanager", jobmanager_answers, ()),
        service("taskmanager", taskmanager_is_registered, ("flink-jobmanager",)),
    ]


def python_jar(home: Home) -> Path:
    """Return where the jar is that makes the JobManager run a Python program."""
    return _home(home) / "flink-python.jar"


def _home(home: Home) -> Path:
    return home.config / "flink"


def _prepare(home: Home, ports: Ports) -> None:
    lay_out(home)
    # A folder of checkpoints that is missing later is one that was lost, not one without any.
    states = (home.data / "flink" / name for name in ("checkpoints", "savepoints"))
    for folder in (home.logs / "flink", home.run / "flink", *states):
        folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{name}: {value}\n" for name, value in flink_configuration(home, ports).items())
    write_file(_home(home) / "conf" / "config.yaml", "".join(lines))


def lay_out(home: Home) -> None:
    """Lay out FLINK_HOME from links into the wheel and the connector; it has no configuration yet.

    `lib` and `opt` must be real folders: Flink does not look into linked ones.
    """
    wheel, target = home.site_packages("flink") / "pyflink", _home(home)
    for part in ("bin", "conf"):
        shutil.copytree(wheel / part, target / part, dirs_exist_ok=True)
    (driver,) = (wheel / "opt").glob("flink-python-*.jar")
    connectors = (home.jars / "flink").glob("*.jar")
    write_patched_jar(driver, target / JAR_NAME)
    jars = [*(wheel / "lib").glob("*.jar"), *connectors, driver, target / JAR_NAME]
    _link(target / "lib", jars)
    _link(target / "opt", list((wheel / "opt").glob("*.jar")))
    (target / "plugins").mkdir(exist_ok=True)
    python_jar(home).unlink(missing_ok=True)
    python_jar(home).symlink_to(driver)


def _link(folder: Path, jars: list[Path]) -> None:
    """Make a folder hold links to these jars only; a running server keeps those it has open."""
    folder.mkdir(exist_ok=True)
    wanted = {folder / jar.name: jar for jar in jars}
    for link in folder.iterdir():
        if link not in wanted or link.readlink() != wanted[link]:
            link.unlink()
    for link, jar in wanted.items():
        if not link.is_symlink():
            link.symlink_to(jar)


def flink_configuration(home: Home, ports: Ports) -> dict[str, object]:
    """Return Flink's configuration by name of the option."""
    python, data = home.python("flink"), home.data / "flink"
    memory_mb = Settings.from_environment().taskmanager_memory_mb
    return {
        "env.java.home": java_home(home),
        "env.java.opts.all": JAVA_OPTIONS,
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": ports.flink_rpc,
        "jobmanager.bind-host": HOST,
        "jobmanager.memory.process.size": "1024m",
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": ports.flink_rest,
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": TASK_SLOTS,
        "taskmanager.memory.process.size": f"{memory_mb}m",
        # A bucket's state travels to its Python worker as one message: 20 MB with 240,700 devices.
        "taskmanager.memory.task.off-heap.size": f"{(memory_mb - 1024) // 8}m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.managed.fraction": "0.3",
        "python.executable": python,
        "python.client.executable": python,
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": (data / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (data / "savepoints").as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": 3,
        "state.backend.type": "hashmap",
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1s",
        "restart-strategy.exponential-delay.max-backoff": "10s",
        "heartbeat.interval": HEARTBEAT_SECONDS * 1000,
        "heartbeat.timeout": 10_000,
        "slot.idle.timeout": 10_000,
        "metrics.fetcher.update-interval": 800,
        # How old an answer about a job may be: whoever waits for one waits that much longer.
        "web.refresh-interval": 1000,
        "web.submit.enable": "true",
        "io.tmp.dirs": home.run / "flink",
    }
