"""Whether this machine can carry the embedded stack: processor, memory, disk, free ports."""

import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from flead.stack.findings import Finding, Verdict
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports, is_free

GIGABYTE = 1e9
STACK_BYTES = 4.5 * GIGABYTE
"""The whole stack with a fleet of 2,407 devices at its peak: docs/performance.md."""
ANALYSES_BYTES = 3.0 * GIGABYTE
"""What Spark's analyses take besides."""
SPARE_BYTES = 0.5 * GIGABYTE
"""What has to be left while the stack runs."""
INSTALLED_BYTES = 5 * GIGABYTE
"""All environments and jars."""
DATA_BYTES = 2 * GIGABYTE
CGROUP = Path("/sys/fs/cgroup")
SERVICE_OF_PORT = {
    "kafka": "kafka",
    "kafka_controller": "kafka",
    "postgres": "postgres",
    "flink_rest": "flink-jobmanager",
    "flink_rpc": "flink-jobmanager",
    "airflow": "airflow-api-server",
    "spark_history": "spark-history",
}
AREA = "machine"


def system() -> Finding:
    """Say which system this is: the stack's servers are started as on Linux."""
    said = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if platform.system() != "Linux":
        fix = "use Linux, or a virtual machine or container of it"
        return Finding(AREA, "system", Verdict.WRONG, said, fix)
    return Finding(AREA, "system", Verdict.OK, said)


def memory(*, is_running: bool) -> Finding:
    """Judge the memory that is free, within the limit of this process's control group."""
    available = min(psutil.virtual_memory().available, room_in_group(CGROUP))
    return judged_memory(available, is_running=is_running)


def judged_memory(available: float, *, is_running: bool) -> Finding:
    """Judge bytes of free memory, before the stack starts or while it runs."""
    said = f"{available / GIGABYTE:.1f} GB free"
    if is_running and available < SPARE_BYTES:
        fix = "end other programs, or stop what you do not need: `flead down`"
        return Finding(AREA, "memory", Verdict.WRONG, f"{said} while the stack runs", fix)
    if not is_running and available < STACK_BYTES:
        fix = (
            "end other programs, or start a part of the stack: `flead up kafka postgres`;"
            " FLEAD_TASKMANAGER_MEMORY_MB lowers Flink's"
        )
        need = f"{said}, and the whole stack takes {STACK_BYTES / GIGABYTE:.1f} GB"
        return Finding(AREA, "memory", Verdict.WRONG, need, fix)
    if not is_running and available < STACK_BYTES + ANALYSES_BYTES:
        need = f"{said}: enough for the stack, too little for Spark's analyses beside it"
        return Finding(AREA, "memory", Verdict.NOTE, need, "`flead demo` without --with-analysis")
    return Finding(AREA, "memory", Verdict.OK, said)


def room_in_group(folder: Path) -> float:
    """Return the bytes that a control group (version 2) leaves; infinite without a limit.

    Pages of files that nobody uses now are counted as left: the kernel gives them up first.
    """
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = dict(line.split() for line in lines).get("inactive_file", "0")
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if limit == "max" else max(0, int(limit) - used + int(cached))


def disk(home: Home, *, is_installed: bool) -> Finding:
    """Judge the space below the home, or where it will be."""
    folder = next(path for path in (home.root, *home.root.parents) if path.exists())
    return judged_disk(psutil.disk_usage(str(folder)).free, folder, is_installed=is_installed)


def judged_disk(free: float, folder: Path, *, is_installed: bool) -> Finding:
    """Judge bytes of free space for the data and what is still to be installed."""
    needed = DATA_BYTES + (0 if is_installed else INSTALLED_BYTES)
    said = f"{free / GIGABYTE:.0f} GB free at {folder}"
    if free < needed:
        fix = "make room, or set FLEAD_HOME to a folder on another disk"
        return Finding(
            AREA, "disk", Verdict.WRONG, f"{said}, {needed / GIGABYTE:.0f} GB are needed", fix
        )
    return Finding(AREA, "disk", Verdict.OK, said)


def taken_ports(home: Home, ports: Ports, running: Collection[str]) -> list[Finding]:
    """Judge the chosen ports of servers that do not run: somebody else may listen there by now."""
    found = []
    for name, port in _numbers(ports).items():
        if SERVICE_OF_PORT.get(name, name) in running or is_free(port):
            continue
        fix = (
            f"end that program, or choose other ports: `flead down`, then delete {home.ports_file}"
        )
        said = f"{HOST}:{port} is taken{_listener(port)}"
        found.append(Finding("ports", name, Verdict.WRONG, said, fix))
    if found:
        return found
    listed = ", ".join(f"{name} {port}" for name, port in _numbers(ports).items())
    return [Finding("ports", "ports", Verdict.OK, f"free or used by the stack: {listed}")]


def _numbers(ports: Ports) -> Mapping[str, int]:
    return {name: getattr(ports, name) for name in ports.__struct_fields__}


def _listener(port: int) -> str:
    """Name the program that listens on a port, where this user may know it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    for each in connections:
        listens = each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port
        if listens and each.pid:
            try:
                return f" by {psutil.Process(each.pid).name()}, process {each.pid}"
            except psutil.NoSuchProcess:
                return ""
    return ""
