"""Small questions to servers on loopback, answered by a value or by None, never by an error."""

import socket
from typing import Any

import httpx

from flead.stack.ports import HOST

TIMEOUT_SECONDS = 3.0


def accepts_connections(port: int) -> bool:
    """Tell whether something listens on a loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def get_json(url: str) -> Any:
    """Return the JSON body of a successful answer to a GET, or None."""
    try:
        # A proxy of the environment has no business between two processes of one machine.
        response = httpx.get(url, timeout=TIMEOUT_SECONDS, trust_env=False)
        response.raise_for_status()
        return response.json()
    except (httpx.HTTPError, ValueError):
        return None
