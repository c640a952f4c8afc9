"""What closing the loop is worth: the same rows with and without feedback, offline.

Three variants learn from the same simulated fleets by the live code: (a) open loop, every device
trains on every window with the fleet's rate; (b) device feedback, each device moves its own rate
and rests on a plateau; (c) both, and the fleet's rate is tuned by trials on cohorts. Two troubles:
a drift of the simulator, and a start at 100 times the default rate.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
from matplotlib.figure import Figure

from benchmarks.cohort_tuner import CohortTuner
from flead.contracts.messages import Hyperparameters, LocalUpdate, TrainingControl
from flead.contracts.simulation import FEATURES
from flead.features.rows import Floats, RowBatch
from flead.federation.strategy import FedAvg
from flead.fleet.simulator import Simulator
from flead.learning.adaptation import CLOSED_LOOP, OPEN_LOOP, Adaptation
from flead.learning.trainer import Outcome
from flead.offline.figures import Predictions, measure
from flead.offline.learners import RowLogits
from flead.offline.loop import OfflineLoop
from flead.settings import Settings

SEEDS: Final = (1, 2, 3, 4, 5)
DEVICES: Final = 60
ROWS_OF_A_DEVICE: Final = 3_000
ROWS_BEFORE_DRIFT: Final = 1_500
ANOMALY_RATE: Final = 0.15
PERIOD_SECONDS: Final = 60.0 / 13.0
BAD_LEARNING_RATE: Final = 100 * Hyperparameters().learning_rate
BATCH_ROWS_OF_A_DEVICE: Final = 5
WINDOWS_OF_A_ROUND: Final = 2

PIECES: Final = 30
"""Pieces of a curve: 100 rows of each device."""

OLD_PIECES: Final = 5
"""Pieces before the drift whose mean F1 is the old one."""

FINAL_PIECES: Final = 5
"""Pieces at the end whose mean log loss is the final one."""

OPEN, DEVICE, BOTH = "open_loop", "device_feedback", "device_feedback_and_tuning"
DRIFT, BAD_RATE = "drift", "bad_rate"

Say = Callable[[str], None]


class Tuner(Protocol):
    """Decides what the fleet trains with, from the updates that its devices send."""

    def take(self, updates: Sequence[LocalUpdate]) -> TrainingControl | None:
        """Take further updates; return what the fleet shall train with if that has changed."""


class Curve(msgspec.Struct, frozen=True):
    """Figures of the personalized models in each piece of the stream, means over the seeds."""

    f1: list[float]
    log_loss: list[float]


class ClosedLoopResult(msgspec.Struct, frozen=True):
    """What came out; ratios are (c) to (a), those of `_device_feedback` (b) to (a).

    `recovery_rows` are those of the fleet after the drift until the F1 of a piece is what the same
    variant had before, summed over the seeds, all rows where that does not happen; in
    `recovery_rows_to_open_f1` what the open loop had. `log_loss_ratio` is of the final log loss
    from the bad rate. `communication_saving` is 1 less the bytes of all updates and models over
    those of all rows, as JSON on the topics, of (c) with the drift.
    """

    seeds: list[int]
    devices: int
    rows: int
    recovery_rows: dict[str, int]
    recovery_rows_to_open_f1: dict[str, int]
    recovery_rows_ratio: float
    recovery_rows_ratio_device_feedback: float
    recovery_rows_to_open_f1_ratio: float
    final_log_loss: dict[str, float]
    log_loss_ratio: float
    log_loss_ratio_device_feedback: float
    communication_saving: float
    updates_untrained: dict[str, float]
    adopted_learning_rates: list[float]
    curves: dict[str, dict[str, Curve]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Played:
    """One fleet after one variant: figures of each piece, and what was sent."""

    f1: Floats
    log_loss: Floats
    sent_bytes: int
    updates: int
    untrained: int
    learning_rate: float
    """The fleet's at the end."""


@dataclass(slots=True)
class Fleet:
    """The rows of a simulated fleet, in batches, and their bytes as messages."""

    batches: list[RowBatch] = field(default_factory=list)
    message_bytes: int = 0

    @property
    def label(self) -> Floats:
        """Labels of all rows in their order."""
        return np.concatenate([batch.label for batch in self.batches])


def simulate(seed: int, *, drifts: bool) -> Fleet:
    """Draw the rows of a fleet; they are the same for every variant."""
    simulator = Simulator(
        devices=DEVICES,
        rate_per_minute=DEVICES * 60.0 / PERIOD_SECONDS,
        anomaly_rate=ANOMALY_RATE,
        seed=seed,
        drift_at_seconds=ROWS_BEFORE_DRIFT * PERIOD_SECONDS if drifts else None,
    )
    fleet, offset, left = Fleet(), 0, DEVICES * ROWS_OF_A_DEVICE
    for drawn in simulator.batches():
        rows = drawn[:left]
        count = len(rows)
        fleet.message_bytes += sum(len(value or b"") for _, value in rows.encode())
        whole = RowBatch(
            devices=rows.device_names,
            device_index=rows.device_index.astype(np.int32),
            partition=np.zeros(count, np.int32),
            offset=np.arange(offset, offset + count),
            event_time=rows.event_time,
            label=rows.label.astype(np.float64),
            values=rows.values,
        )
        size = BATCH_ROWS_OF_A_DEVICE * DEVICES
        starts = range(0, count, size)
        fleet.batches += [whole.select(np.arange(s, min(s + size, count))) for s in starts]
        offset, left = offset + count, left - count
        if not left:
            break
    return fleet


def play(fleet: Fleet, learning_rate: float, adaptation: Adaptation, tuner: Tuner | None) -> Played:
    """Let the devices learn from all rows, and measure each piece before its training."""
    label = fleet.label
    recorder = RowLogits(len(label))
    loop = OfflineLoop(
        FEATURES,
        TrainingControl(0, Hyperparameters(learning_rate=learning_rate)),
        FedAvg(),
        Settings(round_min_updates=WINDOWS_OF_A_ROUND * DEVICES),
        recorder,
        adaptation,
    )
    updates: list[LocalUpdate] = []
    for outcome in _outcomes(loop, fleet):
        updates += outcome.updates
        control = None if tuner is None else tuner.take(outcome.updates)
        if control is not None:
            loop.adopt(control)
            learning_rate = control.hyperparameters.learning_rate
    sent_bytes = sum(len(msgspec.json.encode(sent)) for sent in (*updates, *loop.models))
    f1, log_loss = _figures(recorder.personalized, label)
    untrained = sum(not update.trained for update in updates)
    return Played(f1, log_loss, sent_bytes, len(updates), untrained, learning_rate)


def _outcomes(loop: OfflineLoop, fleet: Fleet) -> Iterator[Outcome]:
    for batch in fleet.batches:
        yield loop.process(batch, 0)
    yield loop.finish(0)


def _figures(logits: Floats, label: Floats) -> tuple[Floats, Floats]:
    """F1 and mean log loss of each piece."""
    f1, loss = np.empty(PIECES), np.empty(PIECES)
    for piece, rows in enumerate(np.array_split(np.arange(len(label)), PIECES)):
        odds = logits[rows]
        sure = Predictions(odds, 0.5 * (1.0 + np.tanh(0.5 * odds)), odds >= 0.0)
        of_piece = measure(sure, label[rows], np.zeros(len(rows), np.bool_))
        f1[piece] = of_piece.f1 or 0.0
        # From the log-odds: probabilities of a far too high rate are 0 and 1.
        loss[piece] = (np.logaddexp(0.0, odds) - label[rows] * odds).mean()
    return f1, loss


def recovery_rows(f1: Floats, old_f1: float) -> int:
    """Rows of the fleet after the drift up to the end of the first piece as good as before."""
    first = PIECES * ROWS_BEFORE_DRIFT // ROWS_OF_A_DEVICE
    regained = np.flatnonzero(f1[first:] >= old_f1)
    pieces = int(regained[0]) + 1 if len(regained) else PIECES - first
    return pieces * DEVICES * ROWS_OF_A_DEVICE // PIECES


def old_f1(f1: Floats) -> float:
    """Mean F1 of the pieces before the drift."""
    first = PIECES * ROWS_BEFORE_DRIFT // ROWS_OF_A_DEVICE
    return float(f1[first - OLD_PIECES : first].mean())


def run(say: Say, tuner: Callable[[float, int], Tuner] = CohortTuner) -> ClosedLoopResult:
    """Play all seeds, troubles and variants.

    Parameters
    ----------
    say
        Takes lines of progress.
    tuner
        Makes the tuner of (c) of the learning rate at the start and a seed.
    """
    began = time.monotonic()
    played: dict[str, dict[str, list[Played]]] = {
        trouble: {variant: [] for variant in (OPEN, DEVICE, BOTH)} for trouble in (DRIFT, BAD_RATE)
    }
    raw_bytes = 0
    for seed in SEEDS:
        for trouble, each in played.items():
            fleet = simulate(seed, drifts=trouble == DRIFT)
            raw_bytes += fleet.message_bytes if trouble == DRIFT else 0
            rate = Hyperparameters().learning_rate if trouble == DRIFT else BAD_LEARNING_RATE
            each[OPEN].append(play(fleet, rate, OPEN_LOOP, None))
            each[DEVICE].append(play(fleet, rate, CLOSED_LOOP, None))
            each[BOTH].append(play(fleet, rate, CLOSED_LOOP, tuner(rate, seed)))
            losses = ", ".join(f"{name} {of[-1].log_loss.mean():.4f}" for name, of in each.items())
            say(f"seed {seed}, {trouble}: mean log loss {losses}")
    return _result(played, raw_bytes, time.monotonic() - began)


def _result(
    played: dict[str, dict[str, list[Played]]], raw_bytes: int, seconds: float
) -> ClosedLoopResult:
    drift, bad = played[DRIFT], played[BAD_RATE]
    own = {v: sum(recovery_rows(p.f1, old_f1(p.f1)) for p in of) for v, of in drift.items()}
    to_open = {
        variant: sum(
            recovery_rows(p.f1, old_f1(o.f1)) for p, o in zip(of, drift[OPEN], strict=True)
        )
        for variant, of in drift.items()
    }
    final = {
        variant: float(np.mean([p.log_loss[-FINAL_PIECES:].mean() for p in of]))
        for variant, of in bad.items()
    }
    return ClosedLoopResult(
        seeds=list(SEEDS),
        devices=DEVICES,
        rows=DEVICES * ROWS_OF_A_DEVICE,
        recovery_rows=own,
        recovery_rows_to_open_f1=to_open,
        recovery_rows_ratio=own[BOTH] / own[OPEN],
        recovery_rows_ratio_device_feedback=own[DEVICE] / own[OPEN],
        recovery_rows_to_open_f1_ratio=to_open[BOTH] / to_open[OPEN],
        final_log_loss=final,
        log_loss_ratio=final[BOTH] / final[OPEN],
        log_loss_ratio_device_feedback=final[DEVICE] / final[OPEN],
        communication_saving=1.0 - sum(p.sent_bytes for p in drift[BOTH]) / raw_bytes,
        updates_untrained={
            variant: sum(p.untrained for p in of) / sum(p.updates for p in of)
            for variant, of in drift.items()
        },
        adopted_learning_rates=[p.learning_rate for p in bad[BOTH]],
        curves={
            trouble: {
                variant: Curve(
                    np.mean([p.f1 for p in of], axis=0).tolist(),
                    np.mean([p.log_loss for p in of], axis=0).tolist(),
                )
                for variant, of in each.items()
            }
            for trouble, each in played.items()
        },
        seconds=seconds,
    )


def draw(result: ClosedLoopResult, file: Path) -> None:
    """Draw F1 and log loss along the stream; the ending of the name says the format."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    rows = (np.arange(PIECES) + 0.5) * result.rows / PIECES
    for column, (trouble, variants) in enumerate(result.curves.items()):
        for variant, curve in variants.items():
            axes[0, column].plot(rows, curve.f1, label=variant.replace("_", " "))
            axes[1, column].plot(rows, curve.log_loss)
        axes[0, column].set(title=trouble.replace("_", " "), ylabel="F1", ylim=(0, 1))
        axes[1, column].set(xlabel="rows of the fleet", ylabel="log loss (nats)", yscale="log")
    for each in axes[:, 0]:
        each.axvline(result.rows * ROWS_BEFORE_DRIFT / ROWS_OF_A_DEVICE, color="0.5", ls=":")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for each in axes.flat:
        each.grid(alpha=0.3)
    figure.savefig(file)
