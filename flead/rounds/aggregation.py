"""The work of a round: judge the candidate before it, and make the next of its updates."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from flead.contracts.messages import GlobalModel, Metrics, ModelStatus
from flead.federation.admission import AdmissionContext, judge
from flead.federation.artifact import artifact_bytes, artifact_sha256
from flead.federation.gate import Verdict
from flead.federation.round import JudgedUpdate, RoundResult, describe_model, run_round
from flead.federation.standardizer import merge_moments
from flead.federation.strategy import Strategy, make_strategy
from flead.rounds.artifacts import artifact_path
from flead.rounds.lineage import Lineage, current_lineage, highest_offsets, vectors
from flead.rounds.promotion import (
    decided,
    judge_pending,
    needs_judgement,
    queue_candidate,
    queue_promoted,
)
from flead.rounds.rollback import roll_back_if_worse
from flead.settings import Settings
from flead.storage import models, promotions, rounds, updates
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, lock_for_transaction
from flead.storage.models import StoredModel
from flead.storage.promotions import Decision
from flead.storage.rounds import Round, RoundState
from flead.storage.times import to_milliseconds
from flead.storage.updates import JudgedAs, Judgement, ReadUpdate

logger = logging.getLogger(__name__)


def aggregate(database_url: str, settings: Settings, number: int) -> Round:
    """Judge the updates of an open round, and with them the candidate; make the next version.

    The head is judged first, by the same updates: one that turns out worse than its parent is
    rolled back, not followed by a candidate that is only better than it. While the candidate is
    undecided, the updates are kept as its evidence and make no version. The next version is a
    candidate in turn, unless nothing was promoted yet or no row has a label.

    Judgements, versions, head, metrics of the versions that were scored, and the messages to the
    devices are written in one transaction. The artifact is written before it commits, under a name
    that only this version has, so a crash between the two leaves a file that the next attempt
    replaces by the same bytes.

    Returns
    -------
    Round
        The finished round; its `version` is None when no update was accepted or the candidate is
        undecided. A round that was finished before is returned as it is.

    Raises
    ------
    LookupError
        When there is no such round.
    NothingDeployedError
        When there is no feature list to aggregate for; the round stays open.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        opened = rounds.get(cursor, number)
        if opened.state is not RoundState.OPEN:
            return opened
        lineage = current_lineage(cursor)
        received = updates.updates_of_round(cursor, number)
        judged = _judged(received, _admission_context(cursor, lineage, settings))
        updates.record_judgements(cursor, number, judged)
        promoted = None
        if (restored := roll_back_if_worse(cursor, lineage, settings, number)) is not None:
            promoted = restored.version
            lineage = current_lineage(cursor)
        candidate = models.pending_candidate(cursor, lineage.feature_schema)
        if candidate is not None:
            verdict = judge_pending(cursor, candidate, number, settings, datetime.now(UTC))
            if verdict is Verdict.UNDECIDED:
                return _wait(cursor, number, judged, promoted)
            if verdict is Verdict.PROMOTED:
                promoted = candidate.model.version
                lineage = current_lineage(cursor)
        strategy = make_strategy(settings.strategy, settings.strategy_options)
        result = run_round(received, _admission_context(cursor, lineage, settings), strategy)
        updates.record_judgements(cursor, number, [_judgement(judged) for judged in result.judged])
        updates.record_newest_moments(cursor, number)
        models.add_metrics(cursor, sums_by_version(result.accepted))
        made = _make_version(cursor, opened, lineage, strategy, result, settings)
        if made is not None and made.status is ModelStatus.PROMOTED:
            promoted = made.version
        completed = rounds.complete(
            cursor,
            number,
            accepted=len(result.accepted),
            rejected=Counter(judged.reason.value for judged in result.judged if judged.reason),
            version=None if made is None else made.version,
            promoted_version=promoted,
            now=datetime.now(UTC),
        )
    logger.info(
        "Round %s promoted version %s, made version %s of %s updates, rejected %s",
        number,
        completed.promoted_version,
        completed.version,
        completed.accepted,
        completed.rejected,
    )
    return completed


def _admission_context(cursor: Cursor, lineage: Lineage, settings: Settings) -> AdmissionContext:
    bases = models.newest_promoted(
        cursor, lineage.feature_schema, lineage.parent_version, settings.max_staleness + 1
    )
    return AdmissionContext(
        feature_schema=lineage.feature_schema,
        dimension=lineage.inputs,
        parent_version=lineage.parent_version,
        bases=vectors(bases),
        max_staleness=settings.max_staleness,
        max_update_norm=settings.max_update_norm,
        rolled_back=models.rolled_back_versions(cursor, lineage.feature_schema),
    )


def _judged(received: Sequence[ReadUpdate], context: AdmissionContext) -> list[Judgement]:
    """Judge updates that make no version: the plausible ones are superseded by the next round's."""
    reasons = [judge(read.update, context) for read in received]
    return [
        Judgement(read, JudgedAs.SUPERSEDED)
        if reason is None
        else Judgement(read, JudgedAs.REJECTED, reason=reason.value)
        for read, reason in zip(received, reasons, strict=True)
    ]


def _wait(
    cursor: Cursor, number: int, judged: Sequence[Judgement], promoted_version: int | None
) -> Round:
    """Close a round that found the candidate undecided."""
    return rounds.complete(
        cursor,
        number,
        is_waiting=True,
        accepted=0,
        rejected=Counter(each.reason for each in judged if each.reason),
        version=None,
        promoted_version=promoted_version,
        now=datetime.now(UTC),
    )


def _judgement(judged: JudgedUpdate[ReadUpdate]) -> Judgement:
    if judged.reason is None:
        return Judgement(judged.received, JudgedAs.ACCEPTED, weight=judged.share)
    return Judgement(judged.received, JudgedAs.REJECTED, reason=judged.reason.value)


def sums_by_version(accepted: Sequence[ReadUpdate]) -> list[Metrics]:
    """Add up the metrics of each global model version that accepted updates scored."""
    scores: dict[int, list[Metrics]] = defaultdict(list)
    for read in accepted:
        for metrics in (read.update.global_metrics, read.update.candidate_metrics):
            if metrics is not None:
                scores[metrics.version].append(metrics)
    return [
        Metrics(
            version=version,
            rows=sum(score.rows for score in found),
            log_loss_sum=math.fsum(score.log_loss_sum for score in found),
            tp=sum(score.tp for score in found),
            fp=sum(score.fp for score in found),
            tn=sum(score.tn for score in found),
            fn=sum(score.fn for score in found),
        )
        for version, found in sorted(scores.items())
    ]


def _make_version(
    cursor: Cursor,
    opened: Round,
    lineage: Lineage,
    strategy: Strategy,
    result: RoundResult[ReadUpdate],
    settings: Settings,
) -> GlobalModel | None:
    """Store the outcome of a round, on its way to the devices: a candidate, or the head at once."""
    if result.weights is None:
        return None
    moments = updates.newest_moments(cursor, lineage.feature_schema)
    model = describe_model(
        result.weights,
        result.accepted,
        merge_moments(moments, lineage.inputs),
        strategy,
        version=models.newest_version(cursor) + 1,
        parent_version=lineage.parent_version,
        aggregation_round=opened.number,
        feature_schema=lineage.feature_schema,
        features=lineage.features,
        status=ModelStatus.PROMOTED,
        # The round's own time: a second attempt gives the same bytes.
        timestamp=to_milliseconds(opened.opened_at),
    )
    parent = lineage.parent
    rows_labelled = sum(read.update.rows_labelled for read in result.accepted)
    is_candidate = needs_judgement(lineage, rows_labelled, settings)
    stored = msgspec.structs.replace(model, status=ModelStatus.CANDIDATE) if is_candidate else model
    models.insert_model(
        cursor,
        StoredModel(
            model=stored,
            options=msgspec.to_builtins(strategy.options),
            input_offsets=highest_offsets(
                {} if parent is None else parent.input_offsets,
                (
                    (read.update.input_partition, read.update.last_offset)
                    for read in result.accepted
                ),
            ),
            hyperparameters_revision=max(
                read.update.hyperparameters_revision for read in result.accepted
            ),
            artifact_path=str(artifact_path(settings.global_models_dir, model.version)),
            artifact_sha256=artifact_sha256(artifact_bytes(model)),
        ),
    )
    if is_candidate:
        queue_candidate(cursor, model, settings)
        return stored
    expected = None if parent is None else parent.model.version
    models.advance_head(cursor, lineage.feature_schema, expected, model.version)
    reason = "the first of its schema" if parent is None else "not judged: no labels, or no gate"
    promotions.record(
        cursor,
        decided(model.version, expected, Decision.PROMOTED, reason, None, opened.number),
    )
    queue_promoted(cursor, model, settings)
    return model
