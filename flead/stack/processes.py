"""Which processes belong to a service, across every way to lose their parent, and their end.

A process belongs to a service when it is in the process group that the launcher recorded, when its
environment carries the service's marker, or when it runs the service's program in its working
folder. One way alone is not enough: PostgreSQL's children leave the group, and Airflow's and
PostgreSQL's overwrite their environment.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flead.stack.files import write_file
from flead.stack.home import Home

MARKER = "FLEAD_SERVICE"
POLL_SECONDS = 0.1
KILL_SECONDS = 15.0
"""How long killed processes may take to vanish; one that waits for its disk may never."""


@dataclass(frozen=True, slots=True)
class Record:
    """The leader of a service's process group, recognisable after its id was used again."""

    pid: int
    start_ticks: int
    """Clock ticks between boot and its start."""
    boot_id: str
    executable: str
    cwd: str

    @classmethod
    def read(cls, home: Home, service: str) -> "Record | None":
        """Return the newest record of a service, or None when it has none from this boot."""
        try:
            record = cls(**json.loads(_record_file(home, service).read_text()))
        except FileNotFoundError:
            return None
        return record if record.boot_id == boot_id() else None

    def is_alive(self) -> bool:
        """Tell whether the recorded process itself still runs."""
        return start_ticks(self.pid) == self.start_ticks


def record(home: Home, service: str, pid: int, executable: str, cwd: Path) -> None:
    """Store the leader of a service's process group.

    Raises
    ------
    ProcessLookupError
        There is no such process.
    """
    ticks = start_ticks(pid)
    if ticks is None:
        raise ProcessLookupError(pid)
    entry = Record(pid, ticks, boot_id(), os.path.realpath(executable), str(cwd))
    write_file(_record_file(home, service), json.dumps(asdict(entry)))


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or a zombie.

    Unlike a time of day this does not move when the clock is set (`man 5 proc_pid_stat`, 22).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def belonging_to(home: Home, service: str) -> list[psutil.Process]:
    """Return the living processes of a service; never this process or its ancestors."""
    leader = Record.read(home, service)
    return [process for process in _others() if _belongs(process, home, service, leader)]


def end(home: Home, service: str, stop_signal: str = "TERM", stop_seconds: float = 0.0) -> int:
    """End every process of a service: a living leader by its signal, the rest at once.

    Parameters
    ----------
    stop_signal : str
        Name of the signal that asks the leader to stop.
    stop_seconds : float
        How long a living leader may take; 0 kills it.

    Returns
    -------
    int
        How many processes were killed because nobody was left to stop them. Those that outlive it
        still belong to the service.
    """
    leader = Record.read(home, service)
    if leader is not None and leader.is_alive() and stop_seconds > 0:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(leader.pid)
            process.send_signal(signal.Signals[f"SIG{stop_signal}"])
            psutil.wait_procs([process], timeout=stop_seconds)
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    while remaining := belonging_to(home, service):
        if time.monotonic() >= deadline:
            return len(killed)
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        killed.update(process.pid for process in remaining)
        psutil.wait_procs(remaining, timeout=1)
    _record_file(home, service).unlink(missing_ok=True)
    return len(killed)


def end_sessions(home: Home, service: str, stop_seconds: float) -> int:
    """End a service that has no record: its sessions are asked to stop, the rest is killed.

    A session's first process group is asked, not the processes that have left it to be stopped by
    their parents.

    Parameters
    ----------
    stop_seconds : float
        How long the service may take.

    Returns
    -------
    int
        How many processes were killed.
    """
    members = belonging_to(home, service)
    for process in members:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGTERM)
    # Not psutil's way to wait: an end that nobody has taken note of counts.
    deadline = time.monotonic() + stop_seconds
    while belonging_to(home, service) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return end(home, service)


def memory_bytes(processes: list[psutil.Process]) -> int:
    """Return the proportional set size of processes together: shared pages count once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _record_file(home: Home, service: str) -> Path:
    return home.run / f"{service}.json"


def _others() -> Iterator[psutil.Process]:
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid not in mine and start_ticks(process.pid) is not None:
            yield process


def _belongs(process: psutil.Process, home: Home, service: str, leader: Record | None) -> bool:
    try:
        if _carries_marker(process, home, service):
            return True
        if leader is None:
            return False
        in_its_folder = process.cwd() == leader.cwd
        if os.getpgid(process.pid) == leader.pid and (leader.is_alive() or in_its_folder):
            return True
        return in_its_folder and process.exe() == leader.executable
    except (psutil.Error, ProcessLookupError):
        return False


def _carries_marker(process: psutil.Process, home: Home, service: str) -> bool:
    try:
        environment = process.environ()
    except psutil.AccessDenied:
        return False
    return environment.get("FLEAD_HOME") == str(home.root) and environment.get(MARKER) == service
