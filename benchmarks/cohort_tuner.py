"""A tuner of the fleet's learning rate: Optuna proposes, cohorts try, a test judges."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import optuna
from scipy.stats import mannwhitneyu

from flead.contracts.messages import Hyperparameters, LocalUpdate, TrainingControl, Trial
from flead.learning.cohorts import assign
from flead.tuning.proposing import rate_by_devices

BOUNDS: Final = (1e-3, 10.0)
AROUND: Final = 4.0
"""Factor around the devices' own rates in which a rate is proposed."""

FRACTION: Final = 0.25
COMPARED_WINDOWS: Final = 20
"""Windows of a device in each of two periods that are compared: 10 versions of the offline loop."""

HORIZON_WINDOWS: Final = 10
"""Windows of a device in a trial, and before it."""

SIGNIFICANCE: Final = 0.05
LEAST_DEVICES: Final = 5
"""Devices of a trial that can be judged."""

IMPROVING: Final = 0.02
"""Share by which the loss of a period must be below the one before to be left alone."""

Losses = dict[str, tuple[float, int]]
"""Sum and rows of each device's personalized log loss."""


class CohortTuner:
    """Tries other rates on cohorts, and adopts one that beats the others' devices.

    The first of two trials is the median of the rates that the devices have moved to by themselves,
    and beyond it where that is as far as they may; the second is Optuna's, near it.

    The outcome of a device is its personalized prequential log loss in the trial less that of the
    period before; a trial is compared with the control by the test of Mann and Whitney (1947),
    one-sided, for losses have heavy tails, with Holm's correction. A clear winner is adopted; then
    it starts over. While the fleet's loss falls from one period to the next nothing is tried.

    Parameters
    ----------
    learning_rate
        The fleet's at the start.
    seed
        Of the proposals.
    """

    def __init__(self, learning_rate: float, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._control = TrainingControl(0, Hyperparameters(learning_rate=learning_rate))
        self._asked: list[optuna.Trial] = []
        self._before: Losses = {}
        self._losses: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._rates: dict[str, float] = {}

    def take(self, updates: Sequence[LocalUpdate]) -> TrainingControl | None:
        """Take further updates; return what the fleet shall train with if that has changed."""
        for update in updates:
            scored = update.personalized_metrics
            # What a window scored before its revision was trained with belongs to none.
            if scored is not None and update.hyperparameters_revision == self._control.revision:
                self._losses[update.device_id].append((scored.log_loss_sum, scored.rows))
                self._rates[update.device_id] = update.learning_rate
        counts = [len(of_device) for of_device in self._losses.values()]
        if not counts or np.median(counts) < (HORIZON_WINDOWS if self._asked else COMPARED_WINDOWS):
            return None
        losses = {name: _sum(each) for name, each in self._losses.items()}
        last = {name: _sum(each[-HORIZON_WINDOWS:]) for name, each in self._losses.items()}
        self._losses.clear()
        if self._asked:
            self._judge(losses)
            return self._control
        improving = self._before and _total(losses) < (1.0 - IMPROVING) * _total(self._before)
        started, self._before = bool(self._before), losses
        if improving or not started:
            return None
        self._before = last
        self._propose()
        return self._control

    def _propose(self) -> None:
        least, most = BOUNDS
        median = float(np.median(list(self._rates.values())))
        middle = rate_by_devices(median, self._control.hyperparameters.learning_rate)
        middle = min(max(middle, least), most)
        near = max(middle / AROUND, least), min(middle * AROUND, most)
        self._study.enqueue_trial({"learning_rate": middle})
        self._asked = [self._study.ask() for _ in range(2)]
        rates = [trial.suggest_float("learning_rate", *near, log=True) for trial in self._asked]
        trials = [
            Trial(f"rate-{number}", FRACTION, Hyperparameters(learning_rate=rate))
            for number, rate in enumerate(rates)
        ]
        self._publish(self._control.hyperparameters, trials)

    def _judge(self, losses: Losses) -> None:
        """Adopt the best trial that beats the control, and tell Optuna of all."""
        devices = sorted(losses.keys() & self._before.keys())
        cohort = assign(self._control, devices)
        change = np.array([_mean(losses[name]) - _mean(self._before[name]) for name in devices])
        control = change[cohort == 0]
        judged = []
        for number, asked in enumerate(self._asked):
            tried = change[cohort == number + 1]
            if len(tried) < LEAST_DEVICES:
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            self._study.tell(asked, float(tried.mean() - control.mean()))
            test = mannwhitneyu(tried, control, alternative="less")
            judged.append((float(test.pvalue), number, float(tried.mean())))
        self._asked = []
        hyperparameters = self._control.hyperparameters
        # Holm 1979: the smallest of k is held against a k-th of the level.
        significant = [
            (mean, number)
            for rank, (p, number, mean) in enumerate(sorted(judged))
            if p < SIGNIFICANCE / (len(judged) - rank)
        ]
        if significant:
            hyperparameters = self._control.trials[min(significant)[1]].hyperparameters
        self._before = {}
        self._publish(hyperparameters, [])

    def _publish(self, hyperparameters: Hyperparameters, trials: list[Trial]) -> None:
        """Send what the fleet trains with; devices keep their rates where that is what it was."""
        before = self._control
        is_same = hyperparameters == before.hyperparameters
        self._control = TrainingControl(
            before.revision + 1,
            hyperparameters,
            trials,
            fleet_revision=before.unchanged_since if is_same else None,
        )


def _mean(loss: tuple[float, int]) -> float:
    return loss[0] / loss[1]


def _sum(windows: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """Sum of losses and of rows."""
    return sum(loss for loss, _ in windows), sum(rows for _, rows in windows)


def _total(losses: Losses) -> float:
    """Mean loss of all rows."""
    return sum(loss for loss, _ in losses.values()) / sum(rows for _, rows in losses.values())
