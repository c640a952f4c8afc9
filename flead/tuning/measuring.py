"""Outcomes of devices around a change, from their stored windows."""

from datetime import timedelta

import numpy as np

from flead.contracts.messages import TrainingControl
from flead.features.rows import Floats
from flead.learning.cohorts import assign, cohorts_of
from flead.storage.connection import Cursor
from flead.storage.decisions import TuningDecision
from flead.storage.outcomes import DeviceLoss, device_losses
from flead.tuning.judging import CONTROL, outcomes


def outcomes_by_cohort(
    cursor: Cursor, decision: TuningDecision, min_rows: int
) -> dict[str, Floats]:
    """Return the outcome of each device in the trial period, by the trial of its cohort.

    `CONTROL` names the cohort without a trial. A device is in the cohort that its name puts it in;
    windows that say otherwise are left out. Of the period before, those of an earlier trial are.

    Raises
    ------
    LookupError
        When the trials have not begun.
    """
    begin = decision.trial_started_at
    if begin is None:
        raise LookupError(f"the trials of decision {decision.revision} have not begun")
    horizon = timedelta(seconds=decision.horizon_seconds)
    schema, revision = decision.feature_schema, decision.revision
    before = _of_the_fleet(device_losses(cursor, schema, (0, revision - 1), begin - horizon, begin))
    during = device_losses(cursor, schema, (revision, revision), begin, begin + horizon)
    sent = TrainingControl(revision, decision.incumbent, decision.trials)
    devices = sorted({loss.device_id for loss in during})
    cohorts = cohorts_of(sent)
    member = {
        device: cohorts[cohort].trial
        for device, cohort in zip(devices, assign(sent, devices).tolist(), strict=True)
    }
    honest = [loss for loss in during if loss.trial == member[loss.device_id]]
    changes = outcomes(before, honest, min_rows)
    return {
        cohort.trial or CONTROL: np.array(
            [change for device, change in changes.items() if member[device] == cohort.trial]
        )
        for cohort in cohorts
    }


def _of_the_fleet(losses: list[DeviceLoss]) -> list[DeviceLoss]:
    return [loss for loss in losses if loss.trial is None]


def changes_since_adoption(cursor: Cursor, decision: TuningDecision, min_rows: int) -> Floats:
    """Return how the mean log loss of each device has changed, of shape (devices,), in nats a row.

    The period before the adoption leaves out devices in a trial, which had the change already.

    Raises
    ------
    LookupError
        When the decision was not adopted.
    """
    begin, adopted = decision.decided_at, decision.fleet_revision
    if begin is None or adopted is None:
        raise LookupError(f"decision {decision.revision} was not adopted")
    horizon, schema = timedelta(seconds=decision.horizon_seconds), decision.feature_schema
    before = device_losses(cursor, schema, (0, adopted - 1), begin - horizon, begin)
    after = device_losses(cursor, schema, (adopted, adopted), begin, begin + horizon)
    changes = outcomes(_of_the_fleet(before), after, min_rows)
    return np.array(list(changes.values()))
