"""The loopback ports of the embedded servers: chosen once, then kept."""

import random
import socket
from collections.abc import Collection

import msgspec

from flead.stack.choices import kept
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
    spark_history: int

    @classmethod
    def of(cls, home: Home) -> "Ports":
        """Return the ports of a home; each is chosen and stored when it is first needed.

        Raises
        ------
        StackError
            `ports.json` was edited to something else.
        """
        return kept(
            cls,
            home.ports_file,
            home.run / "ports.lock",
            0o644,
            lambda _, chosen: _free_port(chosen.values()),
        )


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port(taken: Collection[int]) -> int:
    candidates = random.SystemRandom().sample(CANDIDATES, len(CANDIDATES))
    return next(port for port in candidates if port not in taken and is_free(port))
