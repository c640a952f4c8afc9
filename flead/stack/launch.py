"""The supervisor's child: ends what an earlier life of the service left, then becomes the service.

Usage: `python -m flead.stack.launch NAME`, with `FLEAD_HOME` set.
"""

import json
import os
import pwd
import sys
from pathlib import Path

from flead.stack import processes
from flead.stack.home import Home
from flead.stack.service import Service

STOP_SECONDS = 10.0
"""What a leader that lost its supervisor gets to stop before it is killed."""


def plan_of(service: Service) -> str:
    """Return what the launcher needs to know of a service, as JSON."""
    plan = {
        "command": service.command,
        "environment": dict(service.environment),
        "cwd": str(service.cwd),
        "user": service.user if os.geteuid() == 0 else None,
        "stop_signal": service.stop_signal,
        "stale_files": [str(file) for file in service.stale_files],
    }
    return json.dumps(plan, indent=1)


def launch(home: Home, name: str) -> None:
    """Replace this process by a service; does not return."""
    plan = json.loads(home.plan_file(name).read_text())
    command, cwd = plan["command"], Path(plan["cwd"])
    processes.end(home, name, plan["stop_signal"], STOP_SECONDS)
    processes.record(home, name, os.getpid(), command[0], cwd)
    for file in plan["stale_files"]:
        Path(file).unlink(missing_ok=True)
    environment = os.environ | home.variables | plan["environment"] | {processes.MARKER: name}
    if plan["user"] is not None:
        _become(plan["user"])
    os.chdir(cwd)
    os.execve(command[0], command, environment)  # noqa: S606


def _become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


if __name__ == "__main__":
    launch(Home.from_environment(), sys.argv[1])
