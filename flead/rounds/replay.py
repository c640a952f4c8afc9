"""A round again, from what is stored of it."""

from dataclasses import dataclass

import numpy as np

from flead.contracts.messages import ModelStatus
from flead.features.rows import Floats
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.round import describe_model
from flead.federation.standardizer import merge_moments
from flead.federation.strategy import Aggregate, Strategy, make_strategy
from flead.rounds.lineage import Lineage, vectors
from flead.storage import models, retention, rounds, updates
from flead.storage.connection import Cursor, connect
from flead.storage.models import StoredModel
from flead.storage.rounds import Round
from flead.storage.times import to_milliseconds
from flead.storage.updates import ReadUpdate


class ReplayMismatchError(Exception):
    """A round did not replay to the artifact that it made."""


class NotReplayableError(LookupError):
    """Nothing can be compared: no version was made, the round goes on, or is past retention."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a round comes to now, and the SHA-256 of what it came to then."""

    version: int
    artifact: bytes
    stored_sha256: str

    @property
    def sha256(self) -> str:
        """That of the artifact, in hex digits."""
        return artifact_sha256(self.artifact)

    @property
    def is_identical(self) -> bool:
        """Whether every byte is as it was."""
        return self.sha256 == self.stored_sha256


def replay(database_url: str, number: int) -> bytes:
    """Recompute the model of a round, which must be the one that it made.

    Returns
    -------
    bytes
        The artifact, of which the SHA-256 equals the stored one.

    Raises
    ------
    LookupError
        When there is no such round.
    NotReplayableError
        When it made no version, or is past its retention.
    ReplayMismatchError
        When the bytes differ.
    """
    replayed = recompute(database_url, number)
    if not replayed.is_identical:
        raise ReplayMismatchError(
            f"round {number} does not replay to version {replayed.version}: SHA-256 "
            f"{replayed.sha256} instead of {replayed.stored_sha256}"
        )
    return replayed.artifact


def recompute(database_url: str, number: int) -> Replayed:
    """Recompute the model of a round from its accepted updates and its parent.

    Settings may have changed since, so the updates that count are those that were accepted, and the
    strategy has the options that are stored with the model.

    Raises
    ------
    LookupError
        When there is no such round.
    NotReplayableError
        When it made no version, or is past its retention.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        stored = _load(cursor, number)
        made = stored.made
        if number <= retention.newest_expired_round(cursor, made.model.feature_schema):
            raise NotReplayableError(
                f"the moments of devices as of round {number} are past their retention"
            )
        moments = updates.newest_moments_as_of(cursor, made.model.feature_schema, number)
    strategy = make_strategy(made.model.strategy, made.options)
    lineage = stored.lineage
    artifact = artifact_bytes(
        describe_model(
            stored.aggregate(strategy).weights,
            stored.accepted,
            merge_moments(moments, lineage.inputs),
            strategy,
            version=made.model.version,
            parent_version=lineage.parent_version,
            aggregation_round=number,
            feature_schema=lineage.feature_schema,
            features=lineage.features,
            # As it was made; it may have been rolled back since.
            status=ModelStatus.PROMOTED,
            timestamp=to_milliseconds(stored.round.opened_at),
        )
    )
    return Replayed(made.model.version, artifact, made.artifact_sha256)


def weights_by(cursor: Cursor, number: int, strategy: Strategy) -> Floats:
    """Return what another strategy makes of the accepted updates of a round and its parent.

    Returns
    -------
    Weights of shape (inputs + 1,), the intercept last.

    Raises
    ------
    LookupError
        When there is no such round.
    NotReplayableError
        When it made no version, or is past its retention.
    """
    return _load(cursor, number).aggregate(strategy).weights


@dataclass(frozen=True, slots=True)
class _StoredRound:
    """A round that made a version, with all that it made it of."""

    round: Round
    made: StoredModel
    accepted: list[ReadUpdate]
    bases: dict[int, Floats]
    lineage: Lineage

    def aggregate(self, strategy: Strategy) -> Aggregate:
        parent = self.bases.get(self.lineage.parent_version)
        first = np.zeros(self.lineage.inputs + 1)
        return strategy.aggregate(first if parent is None else parent, self.accepted, self.bases)


def _load(cursor: Cursor, number: int) -> _StoredRound:
    found = rounds.get(cursor, number)
    if found.version is None:
        raise NotReplayableError(f"round {number} made no version: it is {found.state}")
    made = models.models(cursor, [found.version]).get(found.version)
    if made is None:
        raise NotReplayableError(f"version {found.version} of round {number} is past its retention")
    accepted = updates.updates_of_round(cursor, number, accepted_only=True)
    if len(accepted) != made.model.num_updates:
        raise NotReplayableError(
            f"round {number} had {made.model.num_updates} accepted updates, of which "
            f"{len(accepted)} are stored: the others are past their retention"
        )
    parent = made.model.parent_version
    needed = {parent, *(read.update.base_version for read in accepted)}
    bases = models.models(cursor, needed)
    if missing := sorted(needed - bases.keys() - {0}):
        raise NotReplayableError(
            f"round {number} builds on versions that are past their retention: {missing}"
        )
    lineage = Lineage(made.model.feature_names, bases.get(parent))
    return _StoredRound(found, made, accepted, vectors(bases.values()), lineage)
