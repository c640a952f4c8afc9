"""What a round continues: the feature list in training, the parent, and the bases of updates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flead.contracts.messages import GLOBAL_KEY
from flead.contracts.schema import feature_schema, input_names
from flead.contracts.topics import Topic
from flead.features.rows import Floats
from flead.federation.artifact import artifact_bytes
from flead.federation.updates import model_vector
from flead.storage import deployments, models, outbox
from flead.storage.connection import Cursor
from flead.storage.models import StoredModel
from flead.storage.outbox import OutboxMessage


class NothingDeployedError(Exception):
    """No training deployment was ever made, so there is no feature list to aggregate for."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The feature list that is in training and the head of its models, None before the first."""

    features: list[str]
    parent: StoredModel | None

    @property
    def feature_schema(self) -> str:
        """Fingerprint of the feature list."""
        return feature_schema(self.features)

    @property
    def inputs(self) -> int:
        """How many inputs a model of the feature list has."""
        return len(input_names(self.features))

    @property
    def parent_version(self) -> int:
        """Version of the parent, 0 before the first."""
        return 0 if self.parent is None else self.parent.model.version


def current_lineage(cursor: Cursor) -> Lineage:
    """Return what a round continues now.

    The feature list is that of the deployment in training; without one, that of the newest head.

    Raises
    ------
    NothingDeployedError
        When there is neither.
    """
    features = deployments.current_features(cursor)
    if features is not None:
        version = models.head(cursor, feature_schema(features))
        parent = None if version is None else models.models(cursor, [version])[version]
        return Lineage(features, parent)
    newest = models.newest_head(cursor)
    if newest is None:
        raise NothingDeployedError(
            "no training deployment is active and there is no model: run deploy_training"
        )
    parent = models.models(cursor, [newest])[newest]
    return Lineage(parent.model.feature_names, parent)


def queue_head(cursor: Cursor, features: Sequence[str]) -> int | None:
    """Queue the head of a feature list's models for devices that start from nothing.

    Their topic keeps the newest model alone, which may be one of another feature list. Devices
    that knew no model of theirs would send updates of base 0, too far behind the head for ever.

    Returns
    -------
    int or None
        The version; None when there is none, or the topic ends with it.
    """
    version = models.head(cursor, feature_schema(features))
    if version is None:
        return None
    model = models.models(cursor, [version])[version].model
    message = artifact_bytes(model).decode()
    if outbox.newest_value(cursor, Topic.GLOBAL_UPDATES, GLOBAL_KEY) == message:
        return None
    outbox.add(cursor, [OutboxMessage(Topic.GLOBAL_UPDATES, GLOBAL_KEY, message)])
    return version


def vectors(stored: Iterable[StoredModel]) -> dict[int, Floats]:
    """Return the weights of each version, the intercept last."""
    return {
        each.model.version: model_vector(each.model.weights, each.model.intercept)
        for each in stored
    }


def highest_offsets(
    before: Mapping[int, int], trained: Iterable[tuple[int, int]]
) -> dict[int, int]:
    """Merge (partition, offset) pairs into the highest offset of each partition, in its order."""
    highest = dict(before)
    for partition, offset in trained:
        highest[partition] = max(offset, highest.get(partition, offset))
    return dict(sorted(highest.items()))
