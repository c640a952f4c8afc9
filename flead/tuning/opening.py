"""The start of a decision: keep what the fleet trains with, or try something else."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from flead.contracts.messages import TrainingControl, Trial
from flead.contracts.schema import feature_schema
from flead.settings import Settings
from flead.storage import control, decisions, deployments, outcomes
from flead.storage.connection import Cursor, connect
from flead.storage.decisions import DecisionStatus, TuningDecision
from flead.storage.locks import Lock, lock_for_transaction
from flead.tuning.deciding import Comparison, NotEnoughError, compare
from flead.tuning.evidence import Evidence, StudyRecord
from flead.tuning.proposing import Incumbent, propose, rate_by_devices

logger = logging.getLogger(__name__)

BY_ITSELF: Final = "flead"
"""Stands in `decided_by` for a decision that no person took."""


class NothingToDecideError(Exception):
    """No decision is due or possible; the message says why, and nothing was written."""


class _Fleet(NamedTuple):
    """What a decision is about: models of a schema, oldest first, and what they trained with."""

    feature_schema: str
    versions: list[int]
    control: TrainingControl


def decide_or_resume(
    database_url: str, settings: Settings, *, forced_by: str | None = None
) -> TuningDecision:
    """Return the decision in flight, or take the next one.

    Every `settings.tuning_versions` promoted versions the error of the last is compared with that
    of as many before. When they improve, what the fleet trains with is kept. When they do not,
    trials are proposed; their message waits in the outbox.

    Parameters
    ----------
    forced_by
        The person who wants something else to be tried now, whatever the evaluations say.

    Raises
    ------
    NothingToDecideError
        When it is not time, the fleet has no labels, or the evaluations allow no comparison.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.CONTROL)
        if (resumed := decisions.in_flight(cursor)) is not None:
            logger.info("Resuming decision %s, %s", resumed.revision, resumed.status)
            return resumed
        fleet = _fleet(cursor, settings)
        evidence = _evidence(cursor, fleet, settings, is_forced=forced_by is not None)
        compared = evidence.comparison
        if forced_by is None and compared is not None and _improves(compared, settings):
            decision = _keep(cursor, fleet, compared, evidence, settings)
        else:
            decision = _try(cursor, database_url, fleet, evidence, settings, forced_by)
        decisions.insert(cursor, decision)
    logger.info("Decision %s, %s: %s", decision.revision, decision.status, decision.reason)
    return decision


def _fleet(cursor: Cursor, settings: Settings) -> _Fleet:
    features = deployments.current_features(cursor)
    current = control.newest_control(cursor)
    if features is None or current is None:
        raise NothingToDecideError("no training job is deployed")
    schema = feature_schema(features)
    versions = outcomes.newest_promoted_versions(cursor, schema, 2 * settings.tuning_versions)
    if not versions:
        raise NothingToDecideError("there is no promoted model yet")
    if not outcomes.labelled_rows(cursor, versions):
        raise NothingToDecideError(
            f"versions {versions[0]} to {versions[-1]} were trained without labels: nothing says"
            " which hyperparameters are better"
        )
    return _Fleet(schema, versions, current)


def _evidence(cursor: Cursor, fleet: _Fleet, settings: Settings, *, is_forced: bool) -> Evidence:
    """Compare the versions.

    Raises
    ------
    NothingToDecideError
        When it is not time or not possible, and nobody has forced it.
    """
    try:
        _check_due(cursor, fleet, settings)
        errors = outcomes.fleet_errors(cursor, fleet.versions)
        return Evidence(comparison=compare(fleet.versions, errors))
    except (NotEnoughError, NothingToDecideError) as reason:
        if not is_forced:
            raise NothingToDecideError(str(reason)) from None
        return Evidence(not_compared=str(reason))


def _check_due(cursor: Cursor, fleet: _Fleet, settings: Settings) -> None:
    count = settings.tuning_versions
    if len(fleet.versions) < 2 * count:
        raise NothingToDecideError(
            f"{len(fleet.versions)} of {2 * count} versions have been promoted"
        )
    last = decisions.newest(cursor, fleet.feature_schema)
    since = 0 if last is None else last.model_version
    new = sum(version > since for version in fleet.versions)
    if new < count:
        raise NothingToDecideError(
            f"{new} of {count} versions have been promoted since version {since}, of the last"
            " decision"
        )


def _improves(compared: Comparison, settings: Settings) -> bool:
    return compared.improvement >= settings.tuning_min_improvement


def _keep(
    cursor: Cursor, fleet: _Fleet, compared: Comparison, evidence: Evidence, settings: Settings
) -> TuningDecision:
    now = datetime.now(UTC)
    return TuningDecision(
        revision=control.next_revision(cursor),
        parent_revision=fleet.control.revision,
        status=DecisionStatus.KEPT,
        reason=f"the log loss still falls, by {compared.improvement:.2%}",
        feature_schema=fleet.feature_schema,
        model_version=fleet.versions[-1],
        hyperparameters=fleet.control.hyperparameters,
        incumbent=fleet.control.hyperparameters,
        trials=[],
        horizon_seconds=settings.tuning_horizon_seconds,
        fleet_revision=None,
        evidence=evidence.stored(),
        decided_by=BY_ITSELF,
        created_at=now,
        decided_at=now,
        settled_at=now,
    )


def _try(
    cursor: Cursor,
    database_url: str,
    fleet: _Fleet,
    evidence: Evidence,
    settings: Settings,
    forced_by: str | None,
) -> TuningDecision:
    revision = control.next_revision(cursor)
    study = _study_of(cursor, fleet)
    now = datetime.now(UTC)
    horizon = timedelta(seconds=settings.tuning_horizon_seconds)
    median = outcomes.median_learning_rate(
        cursor, fleet.feature_schema, fleet.control.unchanged_since, now - horizon
    )
    incumbent = fleet.control.hyperparameters
    proposals = propose(
        database_url,
        study.name,
        Incumbent(incumbent, study.fleet_value),
        settings.tuning_bounds,
        count=settings.tuning_trials,
        seed=revision,
        first_rate=None if median is None else rate_by_devices(median, incumbent.learning_rate),
    )
    if not proposals:
        raise NothingToDecideError("the bounds leave nothing else to try")
    proposed = {f"{revision}-{index}": each for index, each in enumerate(proposals, 1)}
    trials = [
        Trial(name, settings.tuning_fraction, each.hyperparameters)
        for name, each in proposed.items()
    ]
    control.queue_hyperparameters(
        cursor,
        incumbent,
        trials,
        unchanged_since=fleet.control.unchanged_since,
    )
    numbers = {name: each.number for name, each in proposed.items()}
    compared = evidence.comparison
    return TuningDecision(
        revision=revision,
        parent_revision=fleet.control.revision,
        status=DecisionStatus.PROPOSED,
        reason=f"{forced_by} wanted others to be tried"
        if compared is None or _improves(compared, settings)
        else f"the log loss falls no longer: by {compared.improvement:.2%}",
        feature_schema=fleet.feature_schema,
        model_version=fleet.versions[-1],
        hyperparameters=incumbent,
        incumbent=incumbent,
        trials=trials,
        horizon_seconds=settings.tuning_horizon_seconds,
        fleet_revision=None,
        evidence=msgspec.structs.replace(
            evidence, study=msgspec.structs.replace(study, numbers=numbers)
        ).stored(),
        decided_by=forced_by or BY_ITSELF,
        created_at=now,
    )


def _study_of(cursor: Cursor, fleet: _Fleet) -> StudyRecord:
    """Return the study to continue; what a person has set begins another, at value 0."""
    behind = decisions.behind(cursor, fleet.control.revision)
    known = None if behind is None else Evidence.of(behind.evidence).study
    if known is None:
        name = f"{fleet.feature_schema[:16]}/{fleet.control.revision}"
        return StudyRecord(name, incumbent_value=0.0, fleet_value=0.0)
    return msgspec.structs.replace(known, incumbent_value=known.fleet_value)
