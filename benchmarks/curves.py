"""Curves of the training job by devices, each point a run of its own.

    python -m benchmarks.curves [FOLDER]

Writes one JSON line a run to `benchmarks/results/training.jsonl` and draws the curves.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import msgspec
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from benchmarks.training import Options, TrainingResult, run

RESULTS = Path(__file__).parent / "results" / "training.jsonl"
IMAGES = Path(__file__).parents[1] / "docs" / "images"

BY_DEVICES = [
    Options(devices=240),
    Options(devices=2_407),
    Options(devices=24_070, memory_mb=4_096, latency_seconds=0),
    Options(
        devices=240_700,
        rows=6_000_000,
        memory_mb=9_216,
        latency_seconds=0,
    ),
]
"""A fleet of 240,700 devices has a state of gigabytes and a checkpoint a minute: more rows."""


def measure(say: Callable[[str], None]) -> list[TrainingResult]:
    """Run all points, and append each to the results as it is done."""
    results = []
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("wb") as file:
        for options in BY_DEVICES:
            say(f"--- {options.devices:,} devices")
            results.append(run(options, say))
            file.write(msgspec.json.encode(results[-1]) + b"\n")
            file.flush()
    return results


def draw(results: list[TrainingResult], folder: Path) -> None:
    """Draw throughput, cost and memory against devices."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    _curve(left, results, "rows_per_second", "rows a second")
    _curve(left, results, "rows_per_cpu_second", "rows a CPU second")
    _curve(left, results, "plain_rows_per_cpu_second", "plain consumer, a CPU second")
    left.set(title="Rows by devices", xlabel="devices", xscale="log", ylim=(0, None))
    _curve(right, results, "peak_memory_mb", "memory of Flink, MB")
    right.plot(
        [result.devices for result in results],
        [result.checkpoint_bytes / 1e6 for result in results],
        marker="o",
        label="checkpoint, MB",
    )
    right.set(title="Memory by devices", xlabel="devices", xscale="log", yscale="log")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(folder / "performance.svg", metadata={"Date": None})


def _curve(axes: Axes, results: list[TrainingResult], figure: str, label: str) -> None:
    axes.plot(
        [result.devices for result in results],
        [getattr(result, figure) for result in results],
        marker="o",
        label=label,
    )


if __name__ == "__main__":
    draw(
        measure(lambda line: print(line, file=sys.stderr)),
        Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES,
    )
