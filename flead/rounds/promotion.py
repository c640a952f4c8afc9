"""The gate between an aggregate and the fleet: devices score it before it takes over."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from flead.contracts.messages import CANDIDATE_KEY, GLOBAL_KEY, GlobalModel, ModelStatus
from flead.contracts.topics import Topic
from flead.federation.artifact import artifact_bytes
from flead.federation.gate import (
    Comparison,
    Limits,
    PairedLoss,
    Verdict,
    compare,
    judge_candidate,
)
from flead.rounds.artifacts import artifact_path, write_artifact
from flead.rounds.lineage import Lineage
from flead.settings import Settings
from flead.storage import models, outbox, promotions
from flead.storage.connection import Cursor
from flead.storage.models import StoredModel
from flead.storage.outbox import OutboxMessage
from flead.storage.promotions import DecidedOn, Decision, DeviceLoss
from flead.storage.times import from_milliseconds

REACH_ROUNDS: Final = 50
"""How far back devices are counted and a head is compared, so that a round does not read ever more.
"""

logger = logging.getLogger(__name__)


def needs_judgement(lineage: Lineage, rows_labelled: int, settings: Settings) -> bool:
    """Whether an aggregate becomes a candidate first.

    The first version of a schema has nothing to be compared with, and a fleet without labels has
    nothing to compare by: there an aggregate is promoted at once, never by a loss.
    """
    return lineage.parent is not None and settings.gate_min_rows > 0 and rows_labelled > 0


def queue_candidate(cursor: Cursor, model: GlobalModel, settings: Settings) -> None:
    """Send an aggregate to the devices to be scored, and write its artifact.

    The artifact is of the model as it is once it is promoted: a verdict changes no file, and one
    of a version that never is promoted stays what its row says.
    """
    message = artifact_bytes(msgspec.structs.replace(model, status=ModelStatus.CANDIDATE))
    outbox.add(cursor, [OutboxMessage(Topic.GLOBAL_UPDATES, CANDIDATE_KEY, message.decode())])
    write_artifact(artifact_path(settings.global_models_dir, model.version), artifact_bytes(model))


def queue_promoted(cursor: Cursor, model: GlobalModel, settings: Settings) -> None:
    """Send a head to the devices to be used, and write its artifact, of the same bytes."""
    artifact = artifact_bytes(model)
    outbox.add(cursor, [OutboxMessage(Topic.GLOBAL_UPDATES, GLOBAL_KEY, artifact.decode())])
    write_artifact(artifact_path(settings.global_models_dir, model.version), artifact)


def judge_pending(
    cursor: Cursor, candidate: StoredModel, number: int, settings: Settings, now: datetime
) -> Verdict:
    """Decide on the candidate in this round, by the plausible updates since it was made.

    The updates of the round must be judged before. A promotion moves the head of the schema from
    the candidate's parent and queues the model. A candidate is rejected when it is still undecided
    after `gate_timeout_seconds`, and when its parent is not the head: it was never to follow it.

    Raises
    ------
    HeadMovedError
        When the head moves at the same time.
    """
    model = candidate.model
    comparison = compare(
        as_pairs(
            promotions.candidate_losses(
                cursor,
                model.feature_schema,
                model.version,
                model.parent_version,
                model.aggregation_round,
            )
        )
    )
    limits = gate_limits(cursor, model.feature_schema, settings, number)
    verdict = judge_candidate(comparison, limits)
    reason = "not worse than its parent on the same rows"
    if verdict is Verdict.REJECTED:
        reason = "worse than its parent on the same rows"
    waited = now - from_milliseconds(model.timestamp)
    if verdict is Verdict.UNDECIDED and waited > timedelta(seconds=settings.gate_timeout_seconds):
        verdict = Verdict.REJECTED
        reason = f"undecided after {waited.total_seconds():.0f} s"
    if (head := models.head(cursor, model.feature_schema)) != model.parent_version:
        verdict, reason = Verdict.REJECTED, f"its parent is not the head, version {head}"
    if verdict is Verdict.UNDECIDED:
        logger.info("Version %s waits for its verdict: %s", model.version, comparison)
        return verdict
    logger.info("Version %s is %s: %s, %s", model.version, verdict, reason, comparison)
    promotions.record(
        cursor,
        decided(
            model.version, model.parent_version, Decision(verdict.value), reason, comparison, number
        ),
    )
    if verdict is Verdict.PROMOTED:
        promote(cursor, model, settings, now)
    else:
        models.set_status(cursor, [model.version], ModelStatus.REJECTED)
    return verdict


def promote(cursor: Cursor, model: GlobalModel, settings: Settings, now: datetime) -> None:
    """Make a candidate the head, and queue it."""
    models.mark_promoted(cursor, model.version, now)
    models.advance_head(cursor, model.feature_schema, model.parent_version or None, model.version)
    queue_promoted(cursor, msgspec.structs.replace(model, status=ModelStatus.PROMOTED), settings)


def gate_limits(cursor: Cursor, feature_schema: str, settings: Settings, number: int) -> Limits:
    """Return what a verdict in a round needs; not more devices than can give any.

    A small fleet has no more, and where few devices have labels, the others measure nothing.
    """
    known = promotions.labelled_devices(cursor, feature_schema, number - REACH_ROUNDS)
    return Limits(
        min_rows=max(settings.gate_min_rows, 1),
        min_devices=max(1, min(settings.gate_min_devices, known)),
        alpha=settings.gate_alpha,
    )


def as_pairs(losses: Sequence[DeviceLoss]) -> list[PairedLoss]:
    """Take what is stored as what is compared."""
    return [
        PairedLoss(
            each.device_id,
            each.rows,
            each.log_loss_sum,
            each.reference_rows,
            each.reference_log_loss_sum,
        )
        for each in losses
    ]


def decided(
    version: int,
    reference: int | None,
    decision: Decision,
    reason: str,
    comparison: Comparison | None,
    number: int | None,
) -> DecidedOn:
    """Describe a decision with the comparison that it rests on."""
    if comparison is None:
        return DecidedOn(
            version=version,
            reference_version=reference,
            decision=decision,
            reason=reason,
            aggregation_round=number,
        )
    return DecidedOn(
        version=version,
        reference_version=reference,
        decision=decision,
        reason=reason,
        aggregation_round=number,
        devices=comparison.devices,
        rows=comparison.rows,
        mean_difference=comparison.mean_difference,
        p_value=comparison.p_value,
    )
