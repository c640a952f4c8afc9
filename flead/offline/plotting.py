"""Prequential curves as a picture."""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from flead.features.rows import Floats
from flead.offline.experiment import Experiment
from flead.offline.figures import measure

PIECES: Final = 60
"""Points of a curve: the stream is cut into so many parts of equal length."""

CURVES: Final = {
    "global_model": ("global", "C0", "-"),
    "local": ("local", "C1", "-"),
    "local_only": ("local only", "C1", ":"),
    "centralised": ("centralised", "C2", ":"),
    "majority": ("majority", "0.7", ":"),
    "zscore": ("z-score rule", "0.5", ":"),
}
"""Name, colour and line of each model."""


def plot_experiment(experiment: Experiment, file: Path) -> None:
    """Draw F1 and log loss of each model along the stream, each row scored before its training.

    The ending of the file's name says the format: png, svg, pdf.

    Raises
    ------
    ValueError
        When matplotlib knows no such format.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for name, (label, colour, line) in CURVES.items():
        middle, f1, log_loss = _curve(experiment, name)
        top.plot(middle, f1, line, color=colour, label=label)
        bottom.plot(middle, log_loss, line, color=colour, label=label)
    result = experiment.result
    figure.suptitle(f"{result.data.name}: test, then train, {result.data.devices} devices")
    top.set_ylabel("F1")
    top.set_ylim(0, 1)
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=len(CURVES))
    bottom.set_ylabel("log loss (nats)")
    bottom.set_yscale("log")
    bottom.set_xlabel("rows of the fleet")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(file)


def _curve(experiment: Experiment, name: str) -> tuple[Floats, Floats, Floats]:
    """Middle, F1 and log loss of each part of the stream; nan where a figure is not defined."""
    predictions, label = experiment.prequential[name], experiment.stream.label
    nobody = np.zeros(len(label), np.bool_)
    points = []
    for rows in np.array_split(np.arange(len(label)), PIECES):
        if len(rows):
            figures = measure(predictions.select(rows), label[rows], nobody[rows])
            points.append((rows.mean(), figures.f1, figures.log_loss))
    middle, f1, log_loss = np.array(points, np.float64).T
    return middle, f1, log_loss
