"""The loopback ports of the embedded servers: chosen once, then kept."""

import random
import socket

import msgspec

from flead.stack.files import exclusive, write_file
from flead.stack.home import Home

HOST = "127.0.0.1"
# Below the range that Linux gives to outgoing connections, so none of them takes a port of ours.
CANDIDATES = range(20_000, 32_000)


class Ports(msgspec.Struct, frozen=True):
    """A port for each listener."""

    kafka: int
    kafka_controller: int
    postgres: int
    flink_rest: int
    flink_rpc: int
    airflow: int

    @classmethod
    def of(cls, home: Home) -> "Ports":
        """Return the ports of a home; free ones are chosen and stored at the first call.

        Raises
        ------
        msgspec.ValidationError
            `ports.json` was edited to something else.
        """
        with exclusive(home.run / "ports.lock"):
            if home.ports_file.exists():
                return msgspec.json.decode(home.ports_file.read_bytes(), type=cls)
            ports = cls(*_free_ports(len(cls.__struct_fields__)))
            content = msgspec.json.format(msgspec.json.encode(ports)).decode() + "\n"
            write_file(home.ports_file, content, mode=0o644)
            return ports


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    candidates = random.SystemRandom().sample(CANDIDATES, len(CANDIDATES))
    free = (port for port in candidates if is_free(port))
    return [next(free) for _ in range(count)]
