"""CPU time and memory of groups of processes, sampled while they work."""

import threading
import time
from collections.abc import Callable

import numpy as np
import psutil

from flead.stack import processes

SAMPLE_SECONDS = 0.25
MEMORY_SECONDS = 2.0


class Usage:
    """Samples processes in a thread of its own until it is left.

    Parameters
    ----------
    belonging
        Returns the processes to sample now; children that ended in between are missed.
    memory_seconds
        Between two looks at their memory, and at which they are.
    """

    def __init__(
        self, belonging: Callable[[], list[psutil.Process]], memory_seconds: float = MEMORY_SECONDS
    ) -> None:
        self._belonging = belonging
        self._memory_seconds = memory_seconds
        self._times: list[float] = []
        self._cpu: list[float] = []
        self._by_process: dict[int, float] = {}
        self.peak_memory_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Usage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_seconds(self, start: float, end: float) -> float:
        """CPU seconds between two times since the epoch, by interpolation."""
        at = np.interp([start, end], self._times, self._cpu)
        return float(at[1] - at[0])

    def _run(self) -> None:
        memory_at = found_at = -np.inf
        found: list[psutil.Process] = []
        while not self._stop.wait(SAMPLE_SECONDS):
            now = time.monotonic()
            if now - found_at >= self._memory_seconds:
                found_at, found = now, self._belonging()
            for process in found:
                try:
                    used = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                self._by_process[process.pid] = used.user + used.system
            self._times.append(time.time())
            self._cpu.append(sum(self._by_process.values()))
            if now - memory_at >= self._memory_seconds:
                memory_at = now
                self.peak_memory_mb = max(self.peak_memory_mb, processes.memory_bytes(found) / 1e6)
