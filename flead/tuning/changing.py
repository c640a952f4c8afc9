"""The life of a change: its trials, their judgement, an answer if it needs one, and the watch."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import msgspec

from flead.contracts.messages import Hyperparameters
from flead.settings import Settings
from flead.storage import control, decisions, outcomes
from flead.storage.connection import Cursor, connect
from flead.storage.decisions import DecisionStatus, TuningDecision
from flead.storage.locks import Lock, lock_for_transaction
from flead.tuning.bounds import factor
from flead.tuning.evidence import Answer, Evidence
from flead.tuning.judging import CONTROL, Judgement, judge, watch
from flead.tuning.measuring import changes_since_adoption, outcomes_by_cohort
from flead.tuning.opening import BY_ITSELF
from flead.tuning.proposing import tell

logger = logging.getLogger(__name__)


def begin_trials(database_url: str, revision: int, now: datetime) -> TuningDecision:
    """Let the trial period begin, once the message that proposes them was published."""
    with _locked(database_url, revision) as (cursor, decision):
        if decision.status is not DecisionStatus.PROPOSED:
            return decision
        return _update(cursor, decision, status=DecisionStatus.TRYING, trial_started_at=now)


def is_due(database_url: str, settings: Settings, revision: int, now: datetime) -> bool:
    """Whether the next step of a decision can be taken: what the trigger asks.

    A trial, and the watch of an adopted change, last `horizon_seconds`; then rounds must have read
    what was sent until its end, for which they have `max_wait_seconds`.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        decision = decisions.get(cursor, revision)
        if decision.settled_at is not None or not _is_current(cursor, decision):
            return True
        begin = {
            DecisionStatus.TRYING: decision.trial_started_at,
            DecisionStatus.ADOPTED: decision.decided_at,
        }.get(decision.status)
        if begin is None:
            return True
        end = begin + _horizon(decision)
        patience = timedelta(seconds=settings.max_wait_seconds)
        return now >= end and (outcomes.anything_sent_since(cursor, end) or now >= end + patience)


def judge_trials(
    database_url: str, settings: Settings, revision: int, now: datetime
) -> TuningDecision:
    """End the trials of a change, and adopt the one that beat the control cohort, if one did.

    One that is further from the incumbent than `settings.tuning_max_factor` awaits an approval.
    Until then, and if none won, the whole fleet trains with the incumbent again.
    """
    with _locked(database_url, revision) as (cursor, decision):
        if decision.status is not DecisionStatus.TRYING:
            judged = decision
        elif _is_current(cursor, decision):
            judged = _judge(cursor, decision, settings, now)
        else:
            judged = _expire(cursor, decision, now)
    _tell_study(database_url, judged)
    logger.info("Decision %s, %s: %s", revision, judged.status, judged.reason)
    return judged


def answer(database_url: str, revision: int, given: Answer, now: datetime) -> TuningDecision:
    """Adopt or drop a change that awaits an approval."""
    with _locked(database_url, revision) as (cursor, decision):
        if decision.status is not DecisionStatus.AWAITING_APPROVAL:
            return decision
        if not _is_current(cursor, decision):
            return _expire(cursor, decision, now)
        evidence = msgspec.structs.replace(Evidence.of(decision.evidence), answer=given)
        answered = dataclasses.replace(
            decision, evidence=evidence.stored(), decided_by=given.answered_by
        )
        if given.approved:
            return _adopt(cursor, answered, winner_of(answered), now)
        return _update(
            cursor,
            answered,
            status=DecisionStatus.REJECTED,
            reason=f"not approved: {decision.reason}",
            decided_at=now,
            settled_at=now,
        )


def settle(database_url: str, settings: Settings, revision: int, now: datetime) -> TuningDecision:
    """End the watch of an adopted change; publish what was before when devices became worse.

    Returns
    -------
    TuningDecision
        The change, or the decision of its own that takes it back.
    """
    with _locked(database_url, revision) as (cursor, decision):
        if decision.status is not DecisionStatus.ADOPTED or decision.settled_at is not None:
            return decision
        if not _is_current(cursor, decision):
            return _update(cursor, decision, settled_at=now)
        changes = changes_since_adoption(cursor, decision, settings.tuning_min_rows)
        watched = watch(
            changes, alpha=settings.tuning_alpha, min_devices=settings.tuning_min_devices
        )
        evidence = msgspec.structs.replace(Evidence.of(decision.evidence), watched=watched)
        settled = _update(cursor, decision, evidence=evidence.stored(), settled_at=now)
        return _revert(cursor, settled, evidence, now) if watched.is_worse else settled


def describe(decision: TuningDecision) -> dict[str, str]:
    """Return what a person is shown: status, and, of a change to approve, subject and body."""
    if decision.status is not DecisionStatus.AWAITING_APPROVAL:
        return {"status": decision.status.value, "reason": decision.reason}
    winner = msgspec.structs.asdict(winner_of(decision))
    before = msgspec.structs.asdict(decision.incumbent)
    rows = [f"| {name} | {before[name]:g} | {value:g} |" for name, value in winner.items()]
    return {
        "status": decision.status.value,
        "reason": decision.reason,
        "subject": f"Adopt the hyperparameters of tuning decision {decision.revision}?",
        "body": "\n".join([f"{decision.reason}.", "", "| | now | then |", "|---|---|---|", *rows]),
    }


def winner_of(decision: TuningDecision) -> Hyperparameters:
    """Return what won the trials of a change.

    Raises
    ------
    LookupError
        When nothing did.
    """
    judgement = Evidence.of(decision.evidence).judgement
    for trial in decision.trials:
        if judgement is not None and trial.trial == judgement.winner:
            return trial.hyperparameters
    raise LookupError(f"no trial of decision {decision.revision} has won")


@contextmanager
def _locked(database_url: str, revision: int) -> Iterator[tuple[Cursor, TuningDecision]]:
    # The lock of whoever queues hyperparameters: none can come between the look and the step.
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.CONTROL)
        yield cursor, decisions.get(cursor, revision)


def _update(cursor: Cursor, decision: TuningDecision, **changes: object) -> TuningDecision:
    changed = dataclasses.replace(decision, **changes)  # type: ignore[arg-type]
    decisions.update(cursor, changed)
    return changed


def _horizon(decision: TuningDecision) -> timedelta:
    return timedelta(seconds=decision.horizon_seconds)


def _is_current(cursor: Cursor, decision: TuningDecision) -> bool:
    """Whether nobody has given the fleet other hyperparameters since."""
    newest = control.newest_control(cursor)
    expected = decision.fleet_revision or decision.revision
    return newest is not None and newest.revision == expected


def _expire(cursor: Cursor, decision: TuningDecision, now: datetime) -> TuningDecision:
    return _update(
        cursor,
        decision,
        status=DecisionStatus.EXPIRED,
        reason="other hyperparameters were deployed meanwhile",
        decided_at=now,
        settled_at=now,
    )


def _judge(
    cursor: Cursor, decision: TuningDecision, settings: Settings, now: datetime
) -> TuningDecision:
    arms = outcomes_by_cohort(cursor, decision, settings.tuning_min_rows)
    judgement = judge(
        arms.pop(CONTROL),
        arms,
        alpha=settings.tuning_alpha,
        min_devices=settings.tuning_min_devices,
    )
    evidence = msgspec.structs.replace(Evidence.of(decision.evidence), judgement=judgement)
    judged = dataclasses.replace(decision, evidence=evidence.stored())
    if not judgement.is_conclusive:
        reason = (
            f"fewer than {settings.tuning_min_devices} devices of the cohorts had"
            f" {settings.tuning_min_rows} labelled rows in both periods"
        )
        return _drop(cursor, judged, DecisionStatus.EXPIRED, reason, now)
    if judgement.winner is None:
        reason = "no trial beat the control cohort"
        return _drop(cursor, judged, DecisionStatus.REJECTED, reason, now)
    won = dataclasses.replace(judged, reason=_describe(judgement))
    step = factor(won.incumbent, winner_of(won))
    if step <= settings.tuning_max_factor:
        return _adopt(cursor, won, winner_of(won), now)
    return _end_trials(
        cursor,
        won,
        status=DecisionStatus.AWAITING_APPROVAL,
        reason=f"{won.reason}; a step by a factor of {step:.3g} needs an approval",
    )


def _drop(
    cursor: Cursor, decision: TuningDecision, status: DecisionStatus, reason: str, now: datetime
) -> TuningDecision:
    return _end_trials(
        cursor, decision, status=status, reason=reason, decided_at=now, settled_at=now
    )


def _describe(judgement: Judgement) -> str:
    arm = next(arm for arm in judgement.arms if arm.trial == judgement.winner)
    return (
        f"trial {arm.trial} beat the control cohort by {-(arm.mean_difference or 0.0):.4f} nats a"
        f" row on {arm.devices} devices (p = {arm.p_holm:.2g})"
    )


def _end_trials(cursor: Cursor, decision: TuningDecision, **changes: object) -> TuningDecision:
    trying = control.newest_control(cursor)
    sent = control.queue_hyperparameters(
        cursor,
        decision.incumbent,
        unchanged_since=None if trying is None else trying.unchanged_since,
    )
    return _update(cursor, decision, fleet_revision=sent.revision, **changes)


def _adopt(
    cursor: Cursor, decision: TuningDecision, winner: Hyperparameters, now: datetime
) -> TuningDecision:
    evidence = Evidence.of(decision.evidence)
    judgement, study = evidence.judgement, evidence.study
    if judgement is not None and judgement.winner is not None and study is not None:
        value = study.incumbent_value + (judgement.effect_of(judgement.winner) or 0.0)
        study = msgspec.structs.replace(study, fleet_value=value)
    sent = control.queue_hyperparameters(cursor, winner)
    return _update(
        cursor,
        decision,
        status=DecisionStatus.ADOPTED,
        hyperparameters=winner,
        fleet_revision=sent.revision,
        evidence=msgspec.structs.replace(evidence, study=study).stored(),
        decided_at=now,
    )


def _revert(
    cursor: Cursor, adopted: TuningDecision, evidence: Evidence, now: datetime
) -> TuningDecision:
    sent = control.queue_hyperparameters(cursor, adopted.incumbent)
    study, watched = evidence.study, evidence.watched
    if study is not None:
        study = msgspec.structs.replace(study, fleet_value=study.incumbent_value, numbers={})
    reverted = TuningDecision(
        revision=sent.revision,
        parent_revision=adopted.revision,
        status=DecisionStatus.REVERTED,
        reason=f"devices became worse after decision {adopted.revision} was adopted",
        feature_schema=adopted.feature_schema,
        model_version=adopted.model_version,
        hyperparameters=adopted.incumbent,
        incumbent=adopted.hyperparameters,
        trials=[],
        horizon_seconds=adopted.horizon_seconds,
        fleet_revision=sent.revision,
        evidence=Evidence(study=study, watched=watched).stored(),
        decided_by=BY_ITSELF,
        created_at=now,
        decided_at=now,
        settled_at=now,
    )
    decisions.insert(cursor, reverted)
    logger.warning("Decision %s: %s", reverted.revision, reverted.reason)
    return reverted


def _tell_study(database_url: str, decision: TuningDecision) -> None:
    """Tell Optuna what the trials were worth; after the transaction, and again after a crash."""
    evidence = Evidence.of(decision.evidence)
    if evidence.study is None or not evidence.study.numbers:
        return
    if evidence.judgement is None and decision.status is not DecisionStatus.EXPIRED:
        return
    base = evidence.study.incumbent_value
    effects = {
        number: None if evidence.judgement is None else evidence.judgement.effect_of(trial)
        for trial, number in evidence.study.numbers.items()
    }
    values = {
        number: None if effect is None else base + effect for number, effect in effects.items()
    }
    tell(database_url, evidence.study.name, values)
