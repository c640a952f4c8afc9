"""A round again, from what is stored of it."""

from dataclasses import dataclass

import numpy as np

from flead.contracts.messages import ModelStatus
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.round import describe_model
from flead.federation.standardizer import merge_moments
from flead.federation.strategy import make_strategy
from flead.rounds.lineage import Lineage, vectors
from flead.storage import models, retention, rounds, updates
from flead.storage.connection import connect
from flead.storage.times import to_milliseconds


class ReplayMismatchError(Exception):
    """A round did not replay to the artifact that it made."""


class NotReplayableError(LookupError):
    """There is nothing to replay: the round made no version, or is past its retention."""


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
        replayed = rounds.get(cursor, number)
        if replayed.version is None:
            raise NotReplayableError(f"round {number} made no version: it is {replayed.state}")
        made = models.models(cursor, [replayed.version]).get(replayed.version)
        if made is None:
            raise NotReplayableError(
                f"version {replayed.version} of round {number} is past its retention"
            )
        accepted = updates.updates_of_round(cursor, number, accepted_only=True)
        if len(accepted) != made.model.num_updates:
            raise NotReplayableError(
                f"round {number} had {made.model.num_updates} accepted updates, of which "
                f"{len(accepted)} are stored: the others are past their retention"
            )
        if number <= retention.newest_expired_round(cursor, made.model.feature_schema):
            raise NotReplayableError(
                f"the moments of devices as of round {number} are past their retention"
            )
        parent = made.model.parent_version
        needed = {parent, *(read.update.base_version for read in accepted)}
        bases = models.models(cursor, needed)
        if missing := sorted(needed - bases.keys() - {0}):
            raise NotReplayableError(
                f"round {number} builds on versions that are past their retention: {missing}"
            )
        moments = updates.newest_moments_as_of(cursor, made.model.feature_schema, number)
    lineage = Lineage(made.model.feature_names, bases.get(parent))
    strategy = make_strategy(made.model.strategy, made.options)
    known = vectors(bases.values())
    aggregate = strategy.aggregate(known.get(parent, np.zeros(lineage.inputs + 1)), accepted, known)
    artifact = artifact_bytes(
        describe_model(
            aggregate.weights,
            accepted,
            merge_moments(moments, lineage.inputs),
            strategy,
            version=made.model.version,
            parent_version=parent,
            aggregation_round=number,
            feature_schema=lineage.feature_schema,
            features=lineage.features,
            # As it was made; it may have been rolled back since.
            status=ModelStatus.PROMOTED,
            timestamp=to_milliseconds(replayed.opened_at),
        )
    )
    return Replayed(made.model.version, artifact, made.artifact_sha256)
