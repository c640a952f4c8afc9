"""Decisions about hyperparameters along the days: one of each kind, the last awaits approval."""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from flead.contracts.messages import CONTROL_KEY, Hyperparameters, TrainingControl, Trial
from flead.contracts.topics import Topic
from flead.storage import decisions
from flead.storage.connection import Cursor
from flead.storage.copying import copy_rows
from flead.storage.decisions import DecisionStatus, TuningDecision

HORIZON_MINUTES: Final = 30
FRACTION: Final = 0.1
COMPARED: Final = 10
"""Versions that are compared with as many before."""

TRIAL_ENDED_AGO: Final = 10
"""Minutes between the end of the last trials and the end of all."""

BY_ITSELF: Final = "flead"
MILD: Final = 1.6
WILD: Final = 4.0
"""Factors of the learning rate that need no approval, and one."""


class Sent(NamedTuple):
    """A message to the fleet, sent at the end of a minute."""

    minute: int
    control: TrainingControl


class Tuning:
    """What the fleet was told to train with, and what led to it.

    Attributes
    ----------
    sent : list of Sent
        Revisions, the first at the start.
    trying : list of range
        Minutes in which parts of the fleet tried something else.
    """

    def __init__(self, minutes: int, devices: int) -> None:
        self._devices = devices
        self._made: list[_Made] = []
        self._fleet = Hyperparameters()
        self.sent = [Sent(0, TrainingControl(1, self._fleet))]
        self.trying: list[range] = []
        self._revision = 1
        self._keep(minutes // 6)
        self._try(2 * minutes // 6, DecisionStatus.REJECTED, MILD)
        self._try(3 * minutes // 6, DecisionStatus.ADOPTED, MILD)
        self._try(4 * minutes // 6, DecisionStatus.EXPIRED, MILD)
        last = minutes - HORIZON_MINUTES - TRIAL_ENDED_AGO
        self._try(last, DecisionStatus.AWAITING_APPROVAL, WILD)

    def control_at(self, minute: int) -> TrainingControl:
        """Return what the fleet trains with in a minute."""
        at = bisect_right(self.sent, minute, key=lambda each: each.minute) - 1
        return self.sent[max(at, 0)].control

    def write(self, cursor: Cursor, schema: str, at_ms: Callable[[int], int], head_at: Any) -> None:
        """Write the decisions, and the messages to the fleet as published.

        Parameters
        ----------
        at_ms, head_at
            When a minute begins, and which version was the head in it.
        """
        for made in self._made:
            decisions.insert(cursor, made.decision(schema, at_ms, int(head_at[made.minute])))
        copy_rows(
            cursor,
            "outbox",
            ("topic", "key", "value", "state", "created_at", "published_at"),
            (
                (
                    Topic.CONTROL.value,
                    CONTROL_KEY,
                    msgspec.json.encode(each.control).decode(),
                    "published",
                    _time(at_ms(each.minute)),
                    _time(at_ms(each.minute) + 1_000),
                )
                for each in self.sent
            ),
        )

    def _keep(self, minute: int) -> None:
        self._made.append(
            _Made(
                minute, self._next(), 1, DecisionStatus.KEPT, "the log loss still falls, by 4.21%",
                self._fleet, self._fleet, [], None, {"improvement": 0.0421},
            )
        )  # fmt: skip

    def _try(self, minute: int, status: DecisionStatus, factor: float) -> None:
        parent = self.sent[-1].control.revision
        revision, incumbent = self._next(), self._fleet
        trials = [
            Trial(
                f"{revision}-{number}",
                FRACTION,
                msgspec.structs.replace(incumbent, learning_rate=incumbent.learning_rate * step),
            )
            for number, step in enumerate((factor, factor**0.5, 1.0 / factor), 1)
        ]
        self.sent.append(Sent(minute, TrainingControl(revision, incumbent, trials)))
        ended = minute + HORIZON_MINUTES
        self.trying.append(range(minute, ended))
        won = status in {DecisionStatus.ADOPTED, DecisionStatus.AWAITING_APPROVAL}
        evidence = self._evidence(parent, trials, status, has_winner=won)
        if status is DecisionStatus.ADOPTED:
            self._fleet = trials[0].hyperparameters
        after = self._next()
        self.sent.append(Sent(ended, TrainingControl(after, self._fleet)))
        reason = {
            DecisionStatus.REJECTED: "no trial beat the control cohort",
            DecisionStatus.EXPIRED: "fewer than 20 devices of the cohorts had 30 labelled rows in"
            " both periods",
        }.get(status, f"trial {trials[0].trial} beat the control cohort by 0.0153 nats a row")
        if status is DecisionStatus.AWAITING_APPROVAL:
            reason += f"; a step by a factor of {factor:.3g} needs an approval"
        self._made.append(
            _Made(
                minute, revision, parent, status, reason, self._fleet, incumbent, trials, after,
                evidence,
            )
        )  # fmt: skip

    def _evidence(
        self, parent: int, trials: list[Trial], status: DecisionStatus, *, has_winner: bool
    ) -> dict[str, Any]:
        of_trial = round(FRACTION * self._devices)
        evidence: dict[str, Any] = {
            "improvement": 0.0013,
            "study": {
                "name": f"simulated/{parent}", "incumbent_value": 0.0, "fleet_value": 0.0,
                "numbers": {each.trial: number for number, each in enumerate(trials, 1)},
            },
        }  # fmt: skip
        if status is not DecisionStatus.EXPIRED:
            arms = [
                {
                    "trial": each.trial, "devices": of_trial,
                    "mean_difference": -0.0153 if has_winner and not number else 0.004 * number,
                    "p_value": 0.0011 if has_winner and not number else 0.41,
                    "p_holm": 0.0033 if has_winner and not number else 0.82,
                }
                for number, each in enumerate(trials)
            ]  # fmt: skip
            evidence["judgement"] = {
                "control_devices": self._devices - len(trials) * of_trial, "control_mean": -0.0021,
                "arms": arms, "winner": trials[0].trial if has_winner else None,
            }  # fmt: skip
        if status is DecisionStatus.ADOPTED:
            evidence["watched"] = {
                "devices": self._devices, "mean_change": -0.0117, "p_value": 0.97,
                "is_worse": False,
            }  # fmt: skip
        return evidence

    def _next(self) -> int:
        self._revision += 1
        return self._revision


class _Made(NamedTuple):
    """A decision, by minutes."""

    minute: int
    revision: int
    parent: int
    status: DecisionStatus
    reason: str
    hyperparameters: Hyperparameters
    incumbent: Hyperparameters
    trials: list[Trial]
    fleet_revision: int | None
    evidence: Mapping[str, Any]

    def decision(self, schema: str, at_ms: Callable[[int], int], head: int) -> TuningDecision:
        horizon = timedelta(minutes=HORIZON_MINUTES)
        begun = _time(at_ms(self.minute))
        ended = begun + horizon if self.trials else begun
        is_open = self.status is DecisionStatus.AWAITING_APPROVAL
        watched = horizon if self.status is DecisionStatus.ADOPTED else timedelta()
        return TuningDecision(
            revision=self.revision,
            parent_revision=self.parent,
            status=self.status,
            reason=self.reason,
            feature_schema=schema,
            model_version=head,
            hyperparameters=self.hyperparameters,
            incumbent=self.incumbent,
            trials=self.trials,
            horizon_seconds=horizon.total_seconds(),
            fleet_revision=self.fleet_revision,
            evidence=_compared(self.evidence, head),
            decided_by=BY_ITSELF,
            created_at=begun,
            trial_started_at=begun if self.trials else None,
            decided_at=None if is_open else ended,
            settled_at=None if is_open else ended + watched,
        )


def _compared(evidence: Mapping[str, Any], head: int) -> dict[str, Any]:
    """Return evidence with the comparison of the versions up to the head of its time."""
    others = dict(evidence)
    improvement, earlier = others.pop("improvement"), 0.2204
    versions = list(range(max(head - 2 * COMPARED + 1, 1), head + 1))
    comparison = {
        "earlier": versions[:-COMPARED], "later": versions[-COMPARED:], "scored": len(versions),
        "windows": 2, "earlier_error": earlier, "later_error": earlier * (1.0 - improvement),
        "improvement": improvement,
    }  # fmt: skip
    return {"comparison": comparison, **others}


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)
