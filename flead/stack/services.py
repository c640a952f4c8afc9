"""All services of the embedded stack, and which of them an `up` or `down` is about."""

from collections.abc import Iterable

from flead.stack.airflow import airflow_services
from flead.stack.credentials import Credentials
from flead.stack.flink import flink_services
from flead.stack.home import Home
from flead.stack.kafka import kafka_service
from flead.stack.ports import Ports
from flead.stack.postgres import postgres_service
from flead.stack.service import Service, StackError
from flead.stack.spark import HISTORY, STREAM, history_service

# The order of stopping. An Airflow that has lost its database ignores SIGTERM for long.
CLIENTS = ("airflow",)
SERVERS = (HISTORY, "flink-taskmanager", "flink-jobmanager", "kafka", "postgres")
FLEET = "fleet"
"""The demonstration's simulator: no server, yet a process of the home that ends with the stack."""
GUESTS = (FLEET, STREAM)
"""Processes of the home that are no servers, yet end with the stack."""
STREAM_STOP_SECONDS = 20.0
"""How long the stream may take for the batch that it is at."""


def all_services(home: Home) -> dict[str, Service]:
    """Return the services by name; ports and secrets are chosen when there are none."""
    ports, credentials = Ports.of(home), Credentials.of(home)
    services = [
        kafka_service(home, ports),
        postgres_service(home, ports, credentials),
        *flink_services(home, ports),
        *airflow_services(home, ports, credentials),
        history_service(home, ports),
    ]
    return {service.name: service for service in services}


def selected(services: dict[str, Service], names: Iterable[str]) -> list[Service]:
    """Return the named services and all that they depend on; no name means all but optional ones.

    `flink` and `airflow` name all of their processes, `all` names every service.

    Raises
    ------
    StackError
        A name is unknown.
    """
    wanted: dict[str, Service] = {}

    def add(service: Service) -> None:
        for dependency in service.depends_on:
            add(services[dependency])
        wanted[service.name] = service

    for name in names or (each.name for each in services.values() if not each.is_optional):
        matching = [service for service in services.values() if belongs_to(service.name, name)]
        if not matching:
            raise StackError(f"No service is called {name!r}; there are {', '.join(services)}")
        for service in matching:
            add(service)
    return list(wanted.values())


def belongs_to(service: str, group: str) -> bool:
    """Tell whether a service is the named one, or a process of the named group."""
    return group in {service, "all"} or service.startswith(f"{group}-")
