"""The supervisor of the services: its configuration, its start, and calls to it."""

import contextlib
import hashlib
import os
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from flead.stack import processes
from flead.stack.files import write_file
from flead.stack.home import Home
from flead.stack.service import Service, StackError

NAME = "supervisord"
PRIVATE = 0o700
UP_STATES = frozenset({"STARTING", "RUNNING", "BACKOFF", "STOPPING"})
# The kernel's limit for the path of a Unix socket, less the suffix that supervisor adds to bind it.
LONGEST_SOCKET_PATH = 108 - 12


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What the supervisor knows of a service."""

    state: str
    """Supervisor's word: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN."""
    pid: int | None
    started_at: float
    """Seconds since the epoch."""
    description: str

    @property
    def is_up(self) -> bool:
        """Whether the supervisor keeps it running, or tries to."""
        return self.state in UP_STATES


class Supervisor:
    """One supervisord for a home, reached through a Unix socket that only its user may open."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._config_file = home.config / "supervisord.conf"
        self._pid_file = home.run / "supervisord.pid"

    def is_running(self) -> bool:
        """Tell whether the supervisor answers."""
        try:
            with self._calls() as calls:
                return bool(calls.getState()["statename"] == "RUNNING")
        except StackError:
            return False

    def start(self, services: Iterable[Service], environment: Mapping[str, str]) -> None:
        """Write the configuration and start the supervisor; it starts no service by itself.

        Raises
        ------
        StackError
            It did not start, with what it said.
        """
        write_file(self._config_file, _configuration(self.home, self.socket, services))
        self.socket.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        # This looks at the folder again, now that there is one.
        self.socket.unlink(missing_ok=True)
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config_file)],
            cwd=self.home.run,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if started.returncode != 0:
            raise StackError(f"The supervisor did not start:\n{started.stdout}{started.stderr}")
        deadline = time.monotonic() + 20
        while not self.is_running():
            if time.monotonic() > deadline:
                raise StackError(f"The supervisor does not answer; see {self.home.log_file(NAME)}")
            time.sleep(0.05)
        pid = int(self._pid_file.read_text(encoding="ascii"))
        try:
            processes.record(self.home, NAME, pid, psutil.Process(pid).exe(), self.home.run)
        except (psutil.NoSuchProcess, ProcessLookupError) as error:
            raise StackError(f"The supervisor died; see {self.home.log_file(NAME)}") from error

    def shut_down(self) -> None:
        """Stop the supervisor, and kill it when it does not answer."""
        with contextlib.suppress(StackError), self._calls() as calls:
            calls.shutdown()
        processes.end(self.home, NAME, "TERM", stop_seconds=20)
        self.socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """Return the variables that it was started with, which its services inherit."""
        leader = processes.Record.read(self.home, NAME)
        if leader is None or not leader.is_alive():
            return {}
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(leader.pid).environ()
        return {}

    def info(self, service: str) -> ProcessInfo:
        """Return the state of a service.

        Raises
        ------
        StackError
            The supervisor does not answer.
        """
        with self._calls() as calls:
            found: dict[str, Any] = calls.getProcessInfo(service)
        return ProcessInfo(
            state=found["statename"],
            pid=found["pid"] or None,
            started_at=float(found["start"]),
            description=found["spawnerr"] or found["description"],
        )

    def start_service(self, service: str) -> None:
        """Start a service without waiting; nothing happens when it runs."""
        with self._calls() as calls, _ignoring(Faults.ALREADY_STARTED):
            calls.startProcess(service, False)

    def stop_service(self, service: str) -> None:
        """Stop a service and wait; the supervisor kills one that takes too long."""
        with self._calls() as calls, _ignoring(Faults.NOT_RUNNING):
            calls.stopProcess(service, True)

    @property
    def socket(self) -> Path:
        """The supervisor's socket: in the home, or where the path is short enough to bind.

        Raises
        ------
        StackError
            Somebody else could have made the folder that it would be in.
        """
        beside_the_rest = self.home.run / "supervisor.sock"
        if len(os.fsencode(beside_the_rest)) <= LONGEST_SOCKET_PATH:
            return beside_the_rest
        digest = hashlib.sha256(os.fsencode(self.home.root)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"flead-{os.geteuid()}-{digest}"
        _refuse_foreign(folder)
        return folder / "supervisor.sock"

    @contextlib.contextmanager
    def _calls(self) -> Iterator[Any]:
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        try:
            # The host is never looked up: the transport goes to the socket.
            yield xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor
        except (OSError, xmlrpc.client.ProtocolError) as error:
            raise StackError("The supervisor does not answer: bin/flead up") from error
        finally:
            transport.close()


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that anyone else could have put where all may write.

    Raises
    ------
    StackError
        It exists, and is no folder that this user alone can enter.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    is_private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == PRIVATE
    if not is_private or found.st_uid != os.geteuid():
        raise StackError(
            f"{folder} is not a folder of yours with mode 0700, and the supervisor's socket would "
            "be in it: remove it, or set FLEAD_HOME to a shorter path"
        )


@contextlib.contextmanager
def _ignoring(fault_code: int) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != fault_code:
            raise StackError(fault.faultString) from fault


def _configuration(home: Home, socket_file: Path, services: Iterable[Service]) -> str:
    sections = {
        "unix_http_server": {"file": str(socket_file), "chmod": "0700"},
        "supervisord": {
            "logfile": str(home.log_file(NAME)),
            "logfile_maxbytes": "10MB",
            "logfile_backups": "1",
            "pidfile": str(home.run / "supervisord.pid"),
            "childlogdir": str(home.logs),
            "nocleanup": "true",
            # What the servers write is for their user alone.
            "umask": "077",
        }
        | ({"user": "root"} if os.geteuid() == 0 else {}),
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for service in services:
        launcher = [sys.executable, "-P", "-m", "flead.stack.launch", service.name]
        sections[f"program:{service.name}"] = {
            "command": shlex.join(launcher),
            "directory": str(home.run),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "5",
            "startretries": "10",
            "stopsignal": service.stop_signal,
            "stopwaitsecs": str(service.stop_seconds),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(home.log_file(service.name)),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "2",
        }
    return "\n".join(_section(title, options) for title, options in sections.items())


def _section(title: str, options: Mapping[str, str]) -> str:
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in options.items()]
    return "\n".join([f"[{title}]", *lines, ""])
