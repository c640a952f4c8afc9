"""What a decision is based on, as it is stored with it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from flead.tuning.deciding import Comparison
from flead.tuning.judging import Judgement, Watched


class StudyRecord(msgspec.Struct, frozen=True):
    """Where Optuna keeps the trials of a decision.

    `fleet_value` is that of what the fleet trains with by the decision; `numbers` are Optuna's, by
    trial. Values add up along a study: a trial's is the incumbent's plus its mean difference.
    """

    name: str
    incumbent_value: float
    fleet_value: float
    numbers: dict[str, int] = {}


class Answer(msgspec.Struct, frozen=True):
    """What a person said; "timeout" is who answers when nobody does, and does not approve."""

    approved: bool
    answered_by: str


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """By step: the comparison before, the study, the judgement of trials, the answer, the watch.

    `not_compared` says why there is no comparison.
    """

    comparison: Comparison | None = None
    not_compared: str | None = None
    study: StudyRecord | None = None
    judgement: Judgement | None = None
    answer: Answer | None = None
    watched: Watched | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Evidence":
        """Read what is stored."""
        return msgspec.convert(stored, cls)

    def stored(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return dict(msgspec.to_builtins(self))
