"""A round again, from what is stored of it."""

import numpy as np

from flead.contracts.messages import ModelStatus
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.round import describe_model
from flead.federation.standardizer import merge_moments
from flead.federation.strategy import make_strategy
from flead.rounds.lineage import Lineage, vectors
from flead.storage import models, rounds, updates
from flead.storage.connection import connect
from flead.storage.times import to_milliseconds


class ReplayMismatchError(Exception):
    """A round did not replay to the artifact that it made."""


def replay(database_url: str, number: int) -> bytes:
    """Recompute the model of a round from its accepted updates and its parent.

    Settings may have changed since, so the updates that count are those that were accepted, and the
    strategy has the options that are stored with the model.

    Returns
    -------
    bytes
        The artifact, of which the SHA-256 equals the stored one.

    Raises
    ------
    LookupError
        When there is no such round, it made no version, or its updates are past their retention.
    ReplayMismatchError
        When the bytes differ.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        replayed = rounds.get(cursor, number)
        if replayed.version is None:
            raise LookupError(f"round {number} made no version: it is {replayed.state}")
        made = models.models(cursor, [replayed.version])[replayed.version]
        accepted = updates.updates_of_round(cursor, number, accepted_only=True)
        if len(accepted) != made.model.num_updates:
            raise LookupError(
                f"round {number} had {made.model.num_updates} accepted updates, of which "
                f"{len(accepted)} are stored: the others are past their retention"
            )
        parent = made.model.parent_version
        bases = models.models(cursor, {parent, *(read.update.base_version for read in accepted)})
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
    if artifact_sha256(artifact) != made.artifact_sha256:
        raise ReplayMismatchError(
            f"round {number} does not replay to version {made.model.version}: SHA-256 "
            f"{artifact_sha256(artifact)} instead of {made.artifact_sha256}"
        )
    return artifact
