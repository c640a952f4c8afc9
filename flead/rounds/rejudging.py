"""The judgements of a round that made no version again, from what is stored of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flead.contracts.schema import feature_schema, input_names
from flead.federation.admission import AdmissionContext, RejectReason, judge
from flead.rounds.lineage import vectors
from flead.rounds.replay import NotReplayableError
from flead.settings import Settings
from flead.storage import deployments, models, rounds, updates
from flead.storage.connection import Cursor, connect
from flead.storage.rounds import RoundState
from flead.storage.updates import JudgedAs, Judgement, ReadUpdate


@dataclass(frozen=True, slots=True)
class Rejudged:
    """The judgements of a round: what is stored, and those that come out otherwise now."""

    stored: Sequence[Judgement]
    differing: Sequence[tuple[Judgement, Judgement]]

    @property
    def is_identical(self) -> bool:
        """Whether every update is judged as it was."""
        return not self.differing


def rejudge(database_url: str, settings: Settings, number: int) -> Rejudged:
    """Judge the updates of a round that made no version against the versions of its time.

    Rounds do not store the two limits of admission: they are judged by those of `settings`.

    Raises
    ------
    LookupError
        When there is no such round.
    NotReplayableError
        When it has not ended, or is past its retention.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        ended = rounds.get(cursor, number)
        if ended.completed_at is None:
            raise NotReplayableError(f"round {number} has not ended: it is {ended.state}")
        stored = updates.judgements_of_round(cursor, number)
        if len(stored) != ended.updates:
            raise NotReplayableError(
                f"round {number} had {ended.updates} updates, of which {len(stored)} are stored: "
                "the others are past their retention"
            )
        if not stored:
            return Rejudged(stored, [])
        context = _context_of(cursor, number, ended.completed_at, stored, settings)
    plausible = JudgedAs.SUPERSEDED if ended.state is RoundState.WAITING else JudgedAs.ACCEPTED
    pairs = [(each, _judgement(each.read, context, plausible)) for each in stored]
    return Rejudged(
        stored,
        [
            (before, now)
            for before, now in pairs
            if (before.status, before.reason) != (now.status, now.reason)
        ],
    )


def _judgement(read: ReadUpdate, context: AdmissionContext, plausible: JudgedAs) -> Judgement:
    reason = judge(read.update, context)
    if reason is None:
        return Judgement(read, plausible)
    return Judgement(read, JudgedAs.REJECTED, reason=reason.value)


def _context_of(
    cursor: Cursor, number: int, at: datetime, stored: Sequence[Judgement], settings: Settings
) -> AdmissionContext:
    features = _features_of(cursor, stored, at)
    if features is None:
        raise NotReplayableError(f"the deployment of round {number} is past its retention")
    schema = feature_schema(features)
    bases = models.newest_promoted_as_of(cursor, schema, number, at, settings.max_staleness + 1)
    parent = bases[0].model.version if bases else 0
    named = {each.read.update.base_version for each in stored}
    named = {version for version in named if 0 < version <= parent}
    if missing := sorted(named - models.models(cursor, named).keys()):
        raise NotReplayableError(
            f"updates of round {number} build on versions that are past their retention: {missing}"
        )
    return AdmissionContext(
        feature_schema=schema,
        dimension=len(input_names(features)),
        parent_version=parent,
        bases=vectors(bases),
        max_staleness=settings.max_staleness,
        max_update_norm=settings.max_update_norm,
        rolled_back=models.rolled_back_as_of(cursor, schema, number, at),
    )


def _features_of(cursor: Cursor, stored: Sequence[Judgement], at: datetime) -> Sequence[str] | None:
    """Return the feature list that a round was of, None where no deployment tells it any more.

    Updates of another one were rejected for that; where all were, it is that of the deployment of
    the time.
    """
    for each in stored:
        if each.reason != RejectReason.UNKNOWN_SCHEMA:
            return deployments.features_of(cursor, each.read.update.feature_schema)
    return deployments.features_as_of(cursor, at)
