"""Tell a container's health check whether its server answers: status 0, or 1 with the reason.

    http URL                  answers with success
    airflow URL COMPONENT     is `healthy` in the report of Airflow's API server
    flink-taskmanager URL     a TaskManager of this host is registered and alive
    spark-worker URL          a worker of this host is registered and alive
    kafka HOST:PORT NODE      the node is one of the brokers that it knows

Standard library only, but for Kafka.
"""

import json
import socket
import sys
import time
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 4.0
HEARTBEAT_MS = 10_000


class UnhealthyError(Exception):
    """What is wrong."""


def get(url: str) -> bytes:
    """Return what a server of this network answers; no proxy comes between."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
        return bytes(answer.read())


def get_json(url: str) -> Any:
    """Return the same, decoded."""
    return json.loads(get(url))


def own_address() -> str:
    """Return the address that this host has in its network."""
    return socket.gethostbyname(socket.gethostname())


def check_airflow(url: str, component: str) -> None:
    """Raise unless Airflow calls one of its processes healthy."""
    status = (get_json(url).get(component) or {}).get("status")
    if status != "healthy":
        raise UnhealthyError(f"{component} is {status}")


def check_taskmanager(url: str) -> None:
    """Raise unless a TaskManager of this host has sent a heartbeat lately."""
    own, oldest_ms = own_address(), time.time() * 1000 - HEARTBEAT_MS
    for manager in get_json(url)["taskmanagers"]:
        # A killed predecessor stays listed until its heartbeat times out.
        is_alive = manager["timeSinceLastHeartbeat"] > oldest_ms
        if manager["id"].startswith(f"{own}:") and is_alive:
            return
    raise UnhealthyError(f"no TaskManager of {own} is registered and alive")


def check_spark_worker(url: str) -> None:
    """Raise unless the master knows a worker of this host."""
    own = own_address()
    workers = get_json(url)["workers"]
    if not any(each["host"] == own and each["state"] == "ALIVE" for each in workers):
        raise UnhealthyError(f"no worker of {own} is registered")


def check_kafka(address: str, node: str) -> None:
    """Raise unless a broker answers and is not fenced."""
    from confluent_kafka import KafkaException  # noqa: PLC0415 - in the image of Kafka alone
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    try:
        known = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(
            timeout=TIMEOUT_SECONDS
        )
    except KafkaException as error:
        raise UnhealthyError(str(error)) from error
    if int(node) not in known.brokers:
        raise UnhealthyError(f"node {node} is not among the brokers {sorted(known.brokers)}")


CHECKS = {
    "http": get,
    "airflow": check_airflow,
    "flink-taskmanager": check_taskmanager,
    "spark-worker": check_spark_worker,
    "kafka": check_kafka,
}


def main(name: str, *arguments: str) -> None:
    """Run one check."""
    try:
        CHECKS[name](*arguments)
    except (UnhealthyError, OSError, ValueError, KeyError) as error:
        sys.exit(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
