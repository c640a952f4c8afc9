"""What runs of the embedded stack, and what it uses."""

import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from flead.stack import processes
from flead.stack.home import Home
from flead.stack.service import Service, StackError
from flead.stack.services import all_services
from flead.stack.supervision import NAME as SUPERVISOR
from flead.stack.supervision import ProcessInfo, Supervisor

MEGABYTE = 1_000_000


class ServiceStatus(msgspec.Struct, frozen=True):
    """One service."""

    name: str
    state: str
    """`running`, `starting`, `unhealthy` (its process runs, it does not answer), `restarting`,
    `stopping`, `failed` (given up), `stopped`, or `orphaned` (runs without supervisor)."""
    port: int | None
    pid: int | None
    uptime_seconds: float | None
    processes: int
    memory_mb: float
    """Proportional set size of all its processes, in 10^6 bytes."""


class StackStatus(msgspec.Struct, frozen=True):
    """All services, optional ones when they run; the supervisor's own memory is in the total."""

    services: list[ServiceStatus]
    supervisor_pid: int | None
    total_processes: int
    total_memory_mb: float


SUPERVISOR_STATES = {
    "STARTING": "starting",
    "BACKOFF": "restarting",
    "STOPPING": "stopping",
    "FATAL": "failed",
}


def stack_status(home: Home) -> StackStatus:
    """Ask the supervisor and each running service; changes nothing."""
    supervisor = Supervisor(home)
    is_supervised = supervisor.is_running()

    def status(service: Service) -> ServiceStatus:
        info = supervisor.info(service.name) if is_supervised else None
        return _status(home, service, info)

    known = all_services(home)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(status, known.values()))
    services = [
        each for each in found if each.state != "stopped" or not known[each.name].is_optional
    ]
    leader = processes.Record.read(home, SUPERVISOR) if is_supervised else None
    own = processes.belonging_to(home, SUPERVISOR)
    return StackStatus(
        services=services,
        supervisor_pid=leader.pid if leader else None,
        total_processes=len(own) + sum(service.processes for service in services),
        total_memory_mb=round(
            processes.memory_bytes(own) / MEGABYTE + sum(each.memory_mb for each in services), 1
        ),
    )


def _status(home: Home, service: Service, info: ProcessInfo | None) -> ServiceStatus:
    running = processes.belonging_to(home, service.name)
    is_up = info is not None and info.is_up and info.pid is not None
    return ServiceStatus(
        name=service.name,
        state=_state(service, info, is_orphaned=bool(running) and not is_up),
        port=service.port,
        pid=info.pid if info else None,
        uptime_seconds=round(time.time() - info.started_at, 1) if info and is_up else None,
        processes=len(running),
        memory_mb=round(processes.memory_bytes(running) / MEGABYTE, 1),
    )


def _state(service: Service, info: ProcessInfo | None, *, is_orphaned: bool) -> str:
    if info is not None and info.state in {"STARTING", "RUNNING"}:
        try:
            if service.is_healthy(info.started_at):
                return "running"
        except StackError:
            return "unhealthy"
        return "starting" if info.state == "STARTING" else "unhealthy"
    if is_orphaned:
        return "orphaned"
    return SUPERVISOR_STATES.get(info.state, "stopped") if info else "stopped"
