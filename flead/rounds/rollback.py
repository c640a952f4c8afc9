"""Back to good weights: a new version that carries those of an earlier one."""

import logging
from datetime import UTC, datetime

import msgspec

from flead.contracts.messages import GlobalModel, ModelStatus
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.gate import Comparison, Limits, compare, is_enough, is_worse
from flead.rounds.artifacts import artifact_path
from flead.rounds.lineage import Lineage, NothingDeployedError, current_lineage
from flead.rounds.promotion import (
    REACH_ROUNDS,
    as_pairs,
    decided,
    gate_limits,
    queue_promoted,
)
from flead.settings import Settings
from flead.storage import models, promotions
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, lock_for_transaction
from flead.storage.models import StoredModel
from flead.storage.promotions import Decision
from flead.storage.times import to_milliseconds

logger = logging.getLogger(__name__)


class RollbackError(Exception):
    """There is no such way back; the message says why."""


class HeadReplacedError(RollbackError):
    """Another version is the head by now: nothing was taken back."""


class WorseHead(msgspec.Struct, frozen=True):
    """A head that an evaluation found worse than its parent, the `good` version."""

    head: int
    good: int
    reason: str


def roll_back(
    database_url: str,
    settings: Settings,
    to_version: int | None,
    reason: str,
    request_id: str,
    *,
    head: int | None = None,
) -> int:
    """Take the head back on somebody's request; the caller publishes the outbox.

    Parameters
    ----------
    to_version
        A promoted version below the head of the schema in training; the head's parent for None,
        unless the head restores another already.
    request_id
        Names the request, so that one that is repeated changes nothing more.
    head
        The version that is to be taken back; None for whichever is the head.

    Returns
    -------
    int
        The version that carries the good weights.

    Raises
    ------
    HeadReplacedError
        When `head` is given and another version is the head.
    RollbackError
        When there is nothing to take back, or the version cannot be gone back to.
    NothingDeployedError
        When there is no feature list in training.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        if (done := promotions.restored_by(cursor, request_id)) is not None:
            return done
        lineage = current_lineage(cursor)
        if lineage.parent is None:
            raise RollbackError("no version was promoted yet: there is nothing to roll back")
        if head is not None and head != (current := lineage.parent.model.version):
            raise HeadReplacedError(f"the head is version {current}, no longer {head}")
        good = _target(cursor, lineage.parent.model, to_version)
        model = _restore(
            cursor, lineage.parent.model, good, settings, reason, None, None, request_id
        )
    return model.version


def roll_back_if_worse(
    cursor: Cursor, lineage: Lineage, settings: Settings, number: int
) -> GlobalModel | None:
    """Take the head back when it turns out worse than its parent; returns what replaces it.

    By the prequential loss, paired by the devices that scored both, or by a passed evaluation of
    both on the same window. The updates of the round must be judged before: those that find the
    candidate better than the head may find the head worse than its parent.

    A version that restores another is not taken back in turn: what made the loss rise then was not
    the model. For the same reason rounds and evaluations take back one head in
    `gate_timeout_seconds` at most.
    """
    pair = _head_and_good(cursor, lineage, settings)
    if pair is None:
        return None
    head, good = pair
    comparison = compare(
        as_pairs(
            promotions.prequential_losses(
                cursor,
                head.feature_schema,
                head.version,
                good.model.version,
                max(good.model.aggregation_round, number - REACH_ROUNDS),
            )
        )
    )
    limits = _limits(cursor, head.feature_schema, settings, number)
    if comparison is not None and is_enough(comparison, limits) and is_worse(comparison, limits):
        reason = "its prequential loss is worse than its parent's on the same devices"
        return _restore(cursor, head, good, settings, reason, comparison, number)
    if (evaluated := _evaluated_worse(cursor, head, good, settings)) is not None:
        return _restore(cursor, head, good, settings, evaluated, None, number)
    return None


def worse_by_evaluation(database_url: str, settings: Settings) -> WorseHead | None:
    """Return the head when a passed evaluation found it worse than its parent, by a round's rule.

    Changes nothing: `roll_back` takes it back.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        try:
            pair = _head_and_good(cursor, current_lineage(cursor), settings)
        except NothingDeployedError:
            return None
        if pair is None:
            return None
        head, good = pair
        reason = _evaluated_worse(cursor, head, good, settings)
    return None if reason is None else WorseHead(head.version, good.model.version, reason)


def _head_and_good(
    cursor: Cursor, lineage: Lineage, settings: Settings
) -> tuple[GlobalModel, StoredModel] | None:
    """Return the head and its parent, None when it is not to be taken back without being asked."""
    if lineage.parent is None or lineage.parent.model.restored_version is not None:
        return None
    head = lineage.parent.model
    if promotions.restored_within(cursor, head.feature_schema, settings.gate_timeout_seconds):
        return None
    good = models.models(cursor, [head.parent_version]).get(head.parent_version)
    if good is None or good.model.status is not ModelStatus.PROMOTED:
        return None
    return head, good


def _evaluated_worse(
    cursor: Cursor, head: GlobalModel, good: StoredModel, settings: Settings
) -> str | None:
    """Return why a passed evaluation of both on the same window speaks against the head."""
    losses = promotions.evaluated_losses(
        cursor, head.version, good.model.version, max(settings.gate_min_rows, 1)
    )
    if losses is None:
        return None
    own, reference = losses
    margin = max(settings.rollback_margin, settings.rollback_relative_margin * reference)
    if own - reference <= margin:
        return None
    return f"evaluated log loss {own:.4f} against {reference:.4f} of its parent"


def _limits(cursor: Cursor, feature_schema: str, settings: Settings, number: int) -> Limits:
    return msgspec.structs.replace(
        gate_limits(cursor, feature_schema, settings, number),
        alpha=settings.rollback_alpha,
        margin=settings.rollback_margin,
        relative_margin=settings.rollback_relative_margin,
    )


def _target(cursor: Cursor, head: GlobalModel, to_version: int | None) -> StoredModel:
    if to_version is None and head.restored_version is not None:
        # The second of two requests, or somebody who wants to go further back: only they know.
        raise RollbackError(
            f"the head, version {head.version}, restores {head.restored_version} already: "
            "name the version to go back to"
        )
    version = head.parent_version if to_version is None else to_version
    found = models.models(cursor, [version]).get(version)
    if found is None:
        raise RollbackError(f"there is no version {version} to go back to")
    model = found.model
    if model.feature_schema != head.feature_schema or version >= head.version:
        raise RollbackError(
            f"version {version} is not an earlier one of the head, version {head.version}"
        )
    if model.status is not ModelStatus.PROMOTED:
        raise RollbackError(f"version {version} is {model.status}: go back to a promoted one")
    return found


def _restore(
    cursor: Cursor,
    head: GlobalModel,
    good: StoredModel,
    settings: Settings,
    reason: str,
    comparison: Comparison | None,
    number: int | None,
    decided_by: str = promotions.ROUND,
) -> GlobalModel:
    """Publish the good weights as the newest version, and take back what came after them."""
    now = datetime.now(UTC)
    schema, version = head.feature_schema, models.newest_version(cursor) + 1
    model = msgspec.structs.replace(
        good.model,
        version=version,
        parent_version=good.model.version,
        restored_version=good.model.version,
        aggregation_round=0,
        status=ModelStatus.PROMOTED,
        # Those of the good version are what its own parent was measured at.
        global_accuracy=None,
        global_loss=None,
        timestamp=to_milliseconds(now),
    )
    bad = models.promoted_above(cursor, schema, good.model.version)
    models.set_status(cursor, bad, ModelStatus.ROLLED_BACK)
    pending = models.pending_candidate(cursor, schema)
    made = [
        msgspec.structs.replace(
            decided(each, good.model.version, Decision.ROLLED_BACK, reason, comparison, number),
            decided_by=decided_by,
        )
        for each in bad
    ]
    if pending is not None:
        models.set_status(cursor, [pending.model.version], ModelStatus.REJECTED)
        made.append(
            msgspec.structs.replace(
                decided(
                    pending.model.version, head.version, Decision.REJECTED,
                    "its parent was rolled back", None, number,
                ),
                decided_by=decided_by,
            )
        )  # fmt: skip
    artifact = artifact_bytes(model)
    models.insert_model(
        cursor,
        StoredModel(
            model=model,
            options=good.options,
            input_offsets=good.input_offsets,
            hyperparameters_revision=good.hyperparameters_revision,
            artifact_path=str(artifact_path(settings.global_models_dir, version)),
            artifact_sha256=artifact_sha256(artifact),
        ),
    )
    models.advance_head(cursor, schema, head.version, version)
    restored = decided(version, good.model.version, Decision.RESTORED, reason, None, number)
    promotions.record(cursor, *made, msgspec.structs.replace(restored, decided_by=decided_by))
    queue_promoted(cursor, model, settings)
    logger.warning(
        "Version %s restores %s in place of %s: %s", version, good.model.version, bad, reason
    )
    return model
