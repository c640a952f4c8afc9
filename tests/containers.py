"""Runs services of docker-compose.yaml as processes that see what a container would.

There need not be a container engine: each process has the file's own command, environment, volumes,
secrets and configuration, and its account without a capability, in namespaces of its own, with this
checkout, its environments and jars where the images have them. Its system is this machine's, which
a container's is not.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flead.stack.home import CHECKOUT, Home
from flead.stack.secret_files import write_secret_files
from tests import compose

IMAGES = CHECKOUT / "deploy" / "images"
ENVIRONMENT = re.compile(r"([A-Z_]+)=(\S+)")
# A network of its own has a loopback interface that is down.
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
"""
UNSHARE = shutil.which("unshare") or "unshare"
LAYOUT = ("kafka", "flink", "spark")


def image_environment(target: str) -> dict[str, str]:
    """Return the variables that an image of the Dockerfile sets, and those of its bases."""
    text = (IMAGES / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stages = {
        match[2]: (match[1], match[3])
        for match in re.finditer(r"^FROM (\S+) AS (\S+)$(.*?)(?=^FROM |\Z)", text, re.M | re.S)
    }
    if target not in stages:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    base, body = stages[target]
    found = image_environment(base)
    for line in re.findall(r"^ENV (.*)$", body, re.MULTILINE):
        for name, value in ENVIRONMENT.findall(line):
            found[name] = value.replace("$PATH", found["PATH"])
    return found


@dataclass(frozen=True)
class Image:
    """What stands for an image that is not ours.

    Parameters
    ----------
    programs : Path
        The folder of its programs.
    entrypoint : tuple of str
        What it puts before a command.
    """

    programs: Path
    entrypoint: tuple[str, ...] = ()


class Containers:
    """Services of the file in a network of their own; `close` ends them.

    Parameters
    ----------
    folder : Path
        Empty; keeps volumes, secrets and logs.
    home : Home
        Whose environments and jars stand for those of the images.
    images : mapping, optional
        What stands for images that are not ours, by the name of their service.
    variables : mapping, optional
        Of the file, as the environment of Compose gives them.
    """

    def __init__(
        self,
        folder: Path,
        home: Home,
        images: Mapping[str, Image] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        made = write_secret_files(folder / "secrets", folder / ".env")
        for name in made.files:
            # The account of the containers is another name of this process's own.
            os.chown(folder / "secrets" / name, os.geteuid(), -1)
        self.stack = compose.read({**(variables or {}), "FLEAD_UID": str(made.user)})
        self._images = images or {}
        self.services: dict[str, Any] = self.stack["services"]
        self.addresses = {
            name: f"127.0.1.{number}" for number, name in enumerate(self.services, start=1)
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._world = self._make_world(home)

    def up(self, *names: str, seconds: float = 240) -> None:
        """Start services as `docker compose up --wait` does: each once those it needs are ready."""
        wanted = set(names)
        while needed := {each for name in wanted for each in self._needs(name)} - wanted:
            wanted |= needed
        ready: set[str] = set()
        deadline = time.monotonic() + seconds
        while waiting := sorted(wanted - ready):
            for name in waiting:
                if name in self._processes:
                    if self._is_ready(name):
                        ready.add(name)
                elif ready.issuperset(self._needs(name)):
                    self.start(name)
            late = [name for name in waiting if name in self._processes]
            assert time.monotonic() < deadline, "".join(map(self.log, late))
            time.sleep(0.5)

    def start(self, name: str) -> None:
        """Start a service."""
        image = self._images.get(name)
        entrypoint = image.entrypoint if image else ()
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._inside(name, [*entrypoint, *self.services[name]["command"]]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, name: str, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command as `docker compose exec` does, and return what it said."""
        return subprocess.run(
            self._inside(name, command), capture_output=True, text=True, check=False
        )

    def health(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Run the health check of a service once."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(name, command)

    def is_healthy(self, name: str) -> bool:
        """Tell whether a service is healthy: its check may fail fewer times than it is tried."""
        tries = self.services[name]["healthcheck"]["retries"]
        return any(self.health(name).returncode == 0 for _ in range(tries))

    def await_unhealthy(self, name: str, seconds: float = 120) -> None:
        """Return once the health check of a service fails, as it does when others miss it."""
        deadline = time.monotonic() + seconds
        while self.health(name).returncode == 0:
            assert time.monotonic() < deadline, f"{name} is dead and its health check succeeds"
            time.sleep(0.5)

    def _needs(self, name: str) -> list[str]:
        return list(self.services[name].get("depends_on", ()))

    def _is_ready(self, name: str) -> bool:
        """Tell whether a service is healthy, or has ended as one that runs once should."""
        status = self._processes[name].poll()
        if self.services[name]["restart"] == "no":
            assert status in {None, 0}, self.log(name)
            return status == 0
        assert status is None, self.log(name)
        has_check = "test" in self.services[name].get("healthcheck", {})
        return not has_check or self.health(name).returncode == 0

    def log(self, name: str, characters: int = 4_000) -> str:
        """Return the last of what a service said."""
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return text[-characters:]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a service with all of its processes."""
        process = self._processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, number)
            process.wait(timeout=60)

    def close(self) -> None:
        """End everything."""
        for name in list(self._processes):
            self.kill(name)
        self._world.kill()
        self._world.wait()

    def _make_world(self, home: Home) -> "subprocess.Popen[bytes]":
        """Make what all containers share: the network, and the files that images have."""
        image = self.folder / "root" / "opt" / "flead"
        for part in ("envs", "jars", "src", "airflow", "logs/flink", "config"):
            (image / part).mkdir(parents=True)
        for part in ("healthy.py", "kafka.sh"):
            shutil.copy(IMAGES / part, image / part)
        for part in ("var/lib/flead", "var/log/flead", "run/secrets"):
            (self.folder / "root" / part).mkdir(parents=True)
        for name in self.stack["volumes"]:
            (self.folder / "volumes" / name).mkdir(parents=True)
        hosts = "".join(f"{address} {name}\n" for name, address in self.addresses.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}", encoding="utf-8")
        tools = home.python("tools")
        lines = [
            "set -eu",
            *(f"mount --bind {home.envs} {image}/envs", f"mount --bind {home.jars} {image}/jars"),
            f"mount --bind {CHECKOUT} {image}/src",
            f"mount --bind {self.folder}/hosts /etc/hosts",
            *(f"mount --rbind {self.folder}/root/{part} /{part}" for part in ("opt", "run")),
            *(
                f"mount --rbind {self.folder}/root/var/{part} /var/{part}"
                for part in ("lib", "log")
            ),
            f"{shlex.quote(str(tools))} -c {shlex.quote(LOOPBACK_UP)}",
            *(
                f"FLEAD_HOME=/opt/flead {tools} {IMAGES}/lay_out.py {part} > /dev/null"
                for part in LAYOUT
            ),
            f"touch {self.folder}/ready",
            "exec sleep infinity",
        ]
        script = self.folder / "world.sh"
        script.write_text("\n".join(lines), encoding="utf-8")
        own = ["--map-root-user"] if os.geteuid() else []
        world = subprocess.Popen(
            [UNSHARE, *own, "--mount", "--net", "--kill-child", "--fork", "sh", str(script)],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not (self.folder / "ready").exists():
            assert world.poll() is None, "namespaces of its own are refused to this account"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return world

    def _inside(self, name: str, command: list[str]) -> list[str]:
        """Return what runs a command with all that the file gives to a service."""
        service = self.services[name]
        own = self.folder / "services" / name
        (own / "work").mkdir(parents=True, exist_ok=True)
        lines = ["set -eu", f"hostname {name}"]
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            where = (
                CHECKOUT / source if source.startswith(".") else self.folder / "volumes" / source
            )
            lines += [f"mkdir -p {target}", f"mount --bind {where} {target}"]
        for each in service.get("configs", ()):
            file = own / each["source"]
            file.write_text(self.stack["configs"][each["source"]]["content"], encoding="utf-8")
            lines += [f"touch {each['target']}", f"mount --bind {file} {each['target']}"]
        for secret in service.get("secrets", ()):
            file = f"/run/secrets/{secret}"
            lines += [f"touch {file}", f"mount --bind {self.folder}/secrets/{secret} {file}"]
        environment = self._environment(name) | {"TMPDIR": f"{own}/work"}
        user, group = service["user"].split(":")
        argv = [
            *(UNSHARE, "--user", f"--map-user={user}", f"--map-group={group}"),
            *("env", "--ignore-environment"),
            *(f"{variable}={value}" for variable, value in environment.items()),
            *command,
        ]
        lines.append(f"cd {own}/work && exec {shlex.join(argv)}")
        script = own / f"{abs(hash(tuple(argv)))}.sh"
        script.write_text("\n".join(lines), encoding="utf-8")
        world = self._pid_of_world()
        same = ["--user", "--preserve-credentials"] if os.geteuid() else []
        return [
            *("nsenter", "--target", str(world), *same, "--mount", "--net"),
            *("unshare", "--mount", "--uts", "sh", str(script)),
        ]

    def _environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        found = image_environment(service.get("build", {}).get("target", ""))
        if name in self._images:
            found["PATH"] = f"{self._images[name].programs}:{found['PATH']}"
        for file in service.get("env_file", ()):
            if isinstance(file, str):
                lines = (CHECKOUT / file).read_text(encoding="utf-8").splitlines()
                found |= dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        return found | service.get("environment", {})

    def _pid_of_world(self) -> int:
        """Return the process that `unshare --fork` has started in the namespaces."""
        children = Path(f"/proc/{self._world.pid}/task/{self._world.pid}/children")
        return int(children.read_text(encoding="ascii").split()[0])
