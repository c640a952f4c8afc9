"""What the simulated fleet measures; cheap to import, for a DAG offers it as its default."""

from typing import Final

FEATURES: Final = ("temperature", "vibration", "current", "pressure", "throughput")
"""Features of a simulated device in order: °C, mm/s, A, bar, kB/s."""
