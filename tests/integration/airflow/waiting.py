"""Wait for what a server comes to by itself."""

import time

SECONDS = 120


def wait_for(condition):
    """Wait until something holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.2)
