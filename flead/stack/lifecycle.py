"""Start and stop of the embedded stack."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass

from flead.federation.strategy import make_strategy
from flead.settings import Settings
from flead.stack import logs, ports, processes, streams, training
from flead.stack.addresses import Addresses
from flead.stack.environments import prepare_environment
from flead.stack.files import exclusive, write_file
from flead.stack.home import Home
from flead.stack.jars import fetch_jars
from flead.stack.launch import plan_of
from flead.stack.postgres import SHELTER, shelter_of
from flead.stack.service import Service, StackError
from flead.stack.services import (
    CLIENTS,
    FLEET,
    GUESTS,
    SERVERS,
    STREAM_STOP_SECONDS,
    all_services,
    belongs_to,
    selected,
)
from flead.stack.spark import STREAM
from flead.stack.supervision import NAME as SUPERVISOR
from flead.stack.supervision import ProcessInfo, Supervisor

POLL_SECONDS = 0.2
# Variables of an interpreter or server around us that would change the servers that we start.
FOREIGN_PREFIXES = (
    "PYTHON", "PYSPARK", "VIRTUAL_ENV", "AIRFLOW", "FLINK_", "SPARK_", "JAVA_", "JDK_", "KAFKA_",
    "PG",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that a service has made."""

    subject: str
    state: str
    """`preparing`, `starting`, `ready`, `failed`, `stopping` or `stopped`."""
    seconds: float = 0.0
    detail: str = ""


Report = Callable[[Progress], None]


class ServiceFailedError(StackError):
    """A service died or did not answer in time; the message ends with the end of its log."""


def prepare(home: Home, services: Iterable[Service], report: Report) -> None:
    """Install the environments and fetch the jars that services need; at most once each.

    Raises
    ------
    StackError, PreparationError
        Something could not be had.
    """
    needed = list(services)
    for name in dict.fromkeys(name for service in needed for name in service.environments):
        prepare_environment(
            home, name, lambda line: report(Progress("setup", "preparing", 0, line))
        )
    for name in dict.fromkeys(name for service in needed for name in service.jars):
        fetch_jars(home, name, lambda line: report(Progress("setup", "preparing", 0, line)))


def up(home: Home, names: Iterable[str], report: Report, *, resume: bool = True) -> None:
    """Start services and return when each answers its own health check.

    What runs already is left alone. Services start as soon as those that they depend on are ready.
    Once all but optional ones run, a training job and a stream analysis that were active when the
    stack went down are deployed again.

    Parameters
    ----------
    names : iterable of str
        Services, or the groups `flink` and `airflow`; none means all but optional ones.
    resume : bool
        Whether to take up the jobs that were active.

    Raises
    ------
    ServiceFailedError
        A service died at its start or did not answer; the others keep running.
    StackError
        The supervisor could not start, a port is taken, or a preparation failed.
    msgspec.ValidationError
        A setting is wrong: Airflow's tasks would find that out one by one.
    """
    settings = Settings.from_environment()
    make_strategy(settings.strategy, settings.strategy_options)
    services = all_services(home)
    wanted = selected(services, names)
    prepare(home, wanted, report)
    with _alone(home, report):
        supervisor = _running_supervisor(home, services, report)
        _Start(home, supervisor, report).run(wanted)
        if resume and _names(wanted) >= _names(selected(services, ())):
            training.resume(Addresses.of(home), _say(report))
            streams.resume(Addresses.of(home), _say(report))


def down(home: Home, report: Report, *, wipe: bool = False) -> None:
    """Stop everything that belongs to the home, also what lost its supervisor.

    Parameters
    ----------
    wipe : bool
        Also remove data, logs, configuration, ports and secrets; environments and jars stay.

    Raises
    ------
    StackError
        A process outlived its end.
    """
    services = all_services(home)
    with _alone(home, report):
        supervisor = Supervisor(home)
        processes.end(home, FLEET)
        _stop_groups(home, supervisor, services, CLIENTS, report)
        # Nothing begins any more, and the servers that a last batch or a savepoint needs still run.
        _end_stream(home, report)
        if not wipe:
            _suspend_training(home, report, "the stack went down")
        _stop_groups(home, supervisor, services, SERVERS, report)
        supervisor.shut_down()
        for name in (*services, *GUESTS, SUPERVISOR):
            if survivors := processes.belonging_to(home, name):
                raise StackError(f"Processes of {name} outlived their end: {survivors}")
    if wipe:
        _wipe(home)


def running_services(home: Home) -> frozenset[str]:
    """Return the names of the services that the supervisor keeps running."""
    supervisor = Supervisor(home)
    if not supervisor.is_running():
        return frozenset()
    return frozenset(name for name in all_services(home) if supervisor.info(name).is_up)


def running_variables(home: Home) -> dict[str, str]:
    """Return the variables that the services of a running stack inherit; none when none runs."""
    return Supervisor(home).environment()


def give_back(
    home: Home, before: Collection[str], deployment_id: str | None, report: Report
) -> None:
    """Stop what was started on a stack of which some services ran before.

    Parameters
    ----------
    before : collection of str
        The services that ran before, and go on; with none, the whole stack goes down.
    deployment_id : str, optional
        The deployment of the training job that was started meanwhile: its job is suspended.

    Raises
    ------
    StackError
        A process outlived its end.
    """
    if not before:
        down(home, report)
        return
    started = {name: service for name, service in all_services(home).items() if name not in before}
    with _alone(home, report):
        supervisor = Supervisor(home)
        processes.end(home, FLEET)
        if deployment_id is not None:
            _settle_deployment(home, report, deployment_id)
        _stop_groups(home, supervisor, started, CLIENTS, report)
        if started.keys() & {"kafka", "postgres"}:
            _end_stream(home, report)
        if deployment_id is not None:
            _suspend_training(home, report, "the demonstration ended", deployment_id)
        _stop_groups(home, supervisor, started, SERVERS, report)


class _Start:
    """One start of several services: a thread for each, which waits for those it depends on."""

    def __init__(self, home: Home, supervisor: Supervisor, report: Report) -> None:
        self._home = home
        self._supervisor = supervisor
        self._report = report
        self._given_up = threading.Event()
        self._cause: Exception | None = None

    def run(self, services: list[Service]) -> None:
        ready: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max_workers=len(services)) as pool:
            try:
                for service in services:
                    dependencies = [ready[name] for name in service.depends_on]
                    ready[service.name] = pool.submit(self._bring_up, service, dependencies)
                wait(ready.values())
            finally:
                self._given_up.set()
        if self._cause is not None:
            raise self._cause

    def _bring_up(self, service: Service, dependencies: list[Future[None]]) -> None:
        for dependency in dependencies:
            dependency.result()
        began = time.monotonic()
        try:
            self._make_healthy(service)
            service.on_ready()
        except Exception as error:
            if not self._given_up.is_set():
                self._given_up.set()
                self._cause = error
                self._report(Progress(service.name, "failed", time.monotonic() - began))
            raise
        address = "" if service.port is None else f"{ports.HOST}:{service.port}"
        self._report(Progress(service.name, "ready", time.monotonic() - began, address))

    def _make_healthy(self, service: Service) -> None:
        if self._supervisor.info(service.name).is_up:
            # It may have begun before what it needs was ready, and die of that: its supervisor
            # starts each service by itself, in no order.
            with contextlib.suppress(ServiceFailedError):
                self._wait_until_healthy(service)
                return
        self._start(service)
        self._wait_until_healthy(service)

    def _start(self, service: Service) -> None:
        self._report(Progress(service.name, "starting"))
        processes.end(self._home, service.name, service.stop_signal, service.stop_seconds)
        service.prepare()
        service.cwd.mkdir(parents=True, exist_ok=True)
        if service.port is not None and not ports.is_free(service.port):
            raise StackError(
                f"Port {service.port} of {service.name} is taken by another program: end it, or "
                f"change the port in {self._home.ports_file}"
            )
        write_file(self._home.plan_file(service.name), plan_of(service))
        self._supervisor.start_service(service.name)

    def _wait_until_healthy(self, service: Service) -> None:
        deadline = time.monotonic() + service.start_seconds
        first_pid = None
        while True:
            if self._given_up.is_set():
                raise StackError(f"Stopped waiting for {service.name}, since another failed")
            info = self._supervisor.info(service.name)
            first_pid = first_pid or info.pid
            if info.state not in {"STARTING", "RUNNING"} or info.pid != first_pid:
                raise self._failure(service, info, "died while starting")
            try:
                if service.is_healthy(info.started_at):
                    return
            except StackError as reason:
                raise self._failure(service, info, str(reason)) from reason
            if time.monotonic() > deadline:
                waited = f"did not answer within {service.start_seconds} s"
                raise self._failure(service, info, waited)
            time.sleep(POLL_SECONDS)

    def _failure(self, service: Service, info: ProcessInfo, what: str) -> ServiceFailedError:
        self._supervisor.stop_service(service.name)
        log = self._home.log_file(service.name)
        tail = "\n".join(logs.tail(log, 30))
        return ServiceFailedError(
            f"{service.name} {what} ({info.description}). The end of {log}:\n{tail}"
        )


def _alone(home: Home, report: Report) -> AbstractContextManager[None]:
    waiting = Progress("setup", "preparing", detail="another start or stop is at work; waiting")
    return exclusive(home.run / "lifecycle.lock", lambda: report(waiting))


def _running_supervisor(home: Home, services: dict[str, Service], report: Report) -> Supervisor:
    """Return a supervisor that answers; when it is new, nothing from before it still runs."""
    supervisor = Supervisor(home)
    if supervisor.is_running():
        return supervisor
    processes.end(home, FLEET)
    for group in CLIENTS:
        _end_leftovers(home, _members(services, group), report)
    _end_stream(home, report)
    for group in SERVERS:
        _end_leftovers(home, _members(services, group), report)
    processes.end(home, SUPERVISOR)
    for folder in (home.data, home.logs, home.models):
        folder.mkdir(parents=True, exist_ok=True)
    supervisor.start(services.values(), inherited_variables(os.environ) | home.variables)
    return supervisor


def inherited_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what servers inherit of an environment; no proxy comes between those of one machine.

    Programs differ in whether they read `NO_PROXY` or `no_proxy`: both hold what either held.
    """
    inherited = {
        name: value for name, value in environ.items() if not name.startswith(FOREIGN_PREFIXES)
    }
    given = [environ.get("NO_PROXY", ""), environ.get("no_proxy", "")]
    hosts = [host.strip() for value in given for host in value.split(",") if host.strip()]
    direct = ",".join(dict.fromkeys([*hosts, ports.HOST, "localhost"]))
    return inherited | {"NO_PROXY": direct, "no_proxy": direct}


def _names(services: Iterable[Service]) -> set[str]:
    return {service.name for service in services}


def _members(services: dict[str, Service], group: str) -> list[Service]:
    return [service for service in services.values() if belongs_to(service.name, group)]


def _stop_groups(
    home: Home,
    supervisor: Supervisor,
    services: dict[str, Service],
    groups: Iterable[str],
    report: Report,
) -> None:
    for group in groups:
        if members := _members(services, group):
            _stop(home, supervisor, members, report)


def _stop(home: Home, supervisor: Supervisor, services: list[Service], report: Report) -> None:
    """Stop services side by side, then end what they left."""

    def stop(service: Service) -> None:
        if not supervisor.info(service.name).is_up:
            return
        began = time.monotonic()
        report(Progress(service.name, "stopping"))
        supervisor.stop_service(service.name)
        report(Progress(service.name, "stopped", time.monotonic() - began))

    if supervisor.is_running():
        with ThreadPoolExecutor(max_workers=len(services)) as pool:
            list(pool.map(stop, services))
    _end_leftovers(home, services, report)


def _end_leftovers(home: Home, services: list[Service], report: Report) -> None:
    for service in services:
        if processes.belonging_to(home, service.name):
            began = time.monotonic()
            killed = processes.end(home, service.name, service.stop_signal, service.stop_seconds)
            detail = f"leftover processes killed: {killed}" if killed else ""
            report(Progress(service.name, "stopped", time.monotonic() - began, detail))


def _end_stream(home: Home, report: Report) -> None:
    """Let the stream finish its batch; killed, it would only repeat it at the next start."""
    if processes.belonging_to(home, STREAM):
        began = time.monotonic()
        report(Progress(STREAM, "stopping"))
        processes.end_sessions(home, STREAM, STREAM_STOP_SECONDS)
        report(Progress(STREAM, "stopped", time.monotonic() - began))


def _say(report: Report) -> training.Say:
    return lambda line: report(Progress("training", "preparing", 0, line))


def _settle_deployment(home: Home, report: Report, deployment_id: str) -> None:
    """Let an interrupted deployment end: cut short, it could leave a job that no row calls active.

    One that fails leaves no job, and whatever goes wrong keeps nothing from being stopped.
    """
    try:
        training.settle_deployment(Addresses.of(home), deployment_id, _say(report))
    except Exception as error:
        report(Progress("training", "failed", 0, str(error).strip()))


def _suspend_training(
    home: Home, report: Report, reason: str, deployment_id: str | None = None
) -> None:
    """Leave a savepoint; when there can be none, the next start has the newest checkpoint.

    Whatever goes wrong is reported and keeps nothing from being stopped.
    """
    # Without these two nothing is in training, or nothing can be known of it.
    if not all(processes.belonging_to(home, name) for name in ("flink-jobmanager", "postgres")):
        return
    try:
        training.suspend(Addresses.of(home), _say(report), reason, deployment_id)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip()}"
        detail = f"not stopped with a savepoint ({said}); its newest checkpoint remains"
        report(Progress("training", "failed", 0, detail))


def _wipe(home: Home) -> None:
    for folder in (home.data, home.config, home.logs, home.run, shelter_of(home)):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (home.ports_file, home.secrets_file):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        SHELTER.rmdir()
