"""Decisions of the DAG `deploy_training`: what to stop, what to start, and from which state.

Each function may run twice. The database holds the progress; Flink is asked what really runs.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx
import msgspec
from airflow.sdk.exceptions import AirflowFailException

from flead.contracts.deployment import TrainingDeployment, checkpoint_interval
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES
from flead.rounds.lineage import queue_head
from flead.storage import control, deployments, updates
from flead.storage.connection import Cursor, connect
from flead.storage.deployments import Attempt, AttemptStatus
from flead.storage.locks import Lock, hold, lock_for_transaction
from flead_airflow.connections import Servers, flink_kafka_properties
from flead_airflow.flink.checkpoints import StateDirectories, is_same_state, newest_state
from flead_airflow.flink.errors import FlinkRestError, FlinkStateError
from flead_airflow.flink.hook import FlinkRestHook

UNFINISHED: Final = (AttemptStatus.ACTIVE, AttemptStatus.SUBMITTING)
TO_RUN: Final = (AttemptStatus.ACTIVE, AttemptStatus.SUSPENDED)

logger = logging.getLogger(__name__)


class Submission(msgspec.Struct, frozen=True):
    """What is posted to Flink; `savepoint_path` is None for a job that starts from nothing."""

    job_id: str
    arguments: list[str]
    parallelism: int
    savepoint_path: str | None


def configuration_of(
    cursor: Cursor, params: Mapping[str, Any], servers: Servers, flink: FlinkRestHook
) -> TrainingDeployment:
    """Make the job's configuration out of the Params of a run and the addresses of today.

    A Param that is empty is as in the deployment before, with the hyperparameters that the fleet
    has now, tuned ones included; in the first deployment, and in one of other features, it is the
    default. Without a time between checkpoints it is the one for as many devices as the Param says,
    or else as the database knows to be active.

    Raises
    ------
    msgspec.ValidationError
        Names the Param that is out of range.
    ValueError
        When the Flink connection would give secrets away.
    """
    before, known = _before(cursor, params["features"]), control.newest_control(cursor)
    tuned = known.hyperparameters if before and known else None
    basis = before or TrainingDeployment(params["features"] or list(FEATURES), bootstrap_servers="")

    def chosen(name: str, otherwise: object) -> object:
        return otherwise if params[name] is None else params[name]

    hyperparameters = msgspec.structs.asdict(tuned or basis.hyperparameters)
    interval = params["checkpoint_interval_seconds"]
    if interval is None:
        devices = params["devices"] or updates.active_devices(cursor)
        interval = checkpoint_interval(devices)
        logger.info("A checkpoint every %g s, for %s devices", interval, f"{devices:,}")
    return msgspec.convert(
        {
            "features": basis.features,
            "hyperparameters": {name: chosen(name, now) for name, now in hyperparameters.items()},
            "parallelism": chosen("parallelism", basis.parallelism),
            "checkpoint_interval_seconds": interval,
            "device_ttl_days": chosen("device_ttl_days", basis.device_ttl_days),
            "bootstrap_servers": servers.bootstrap_servers,
            "kafka": flink_kafka_properties(flink.connection),
        },
        TrainingDeployment,
    )


def _before(cursor: Cursor, features: list[str] | None) -> TrainingDeployment | None:
    """Return the configuration that ran last, unless other features are asked for."""
    newest = deployments.last_that_ran(cursor)
    if newest is None or (features and features != newest.configuration.features):
        return None
    return newest.configuration


def check_params(params: Mapping[str, Any]) -> None:
    """Refuse Params that contradict each other.

    Raises
    ------
    ValueError
        A person names a state, and wants none of it.
    """
    others = [name for name in ("fresh", "resume") if params[name]]
    if _named_state(params) and others:
        raise ValueError(f"`{others[0]}` does not go with `restore_from`: set one of them only")


def find_running_job(
    servers: Servers, flink: FlinkRestHook, params: Mapping[str, Any]
) -> str | None:
    """Id of the training job that runs in Flink, None when none does.

    What would refuse the deployment that is to replace it is found here, while the job still runs.

    Raises
    ------
    msgspec.ValidationError, ValueError
        See `configuration_of`.
    FlinkStateError
        When no state could be found to continue from, though there may be one.
    """
    StateDirectories.of(flink.configuration())
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        configuration = configuration_of(cursor, params, servers, flink)
        chosen_state(cursor, configuration, flink, params)
        attempts = deployments.unfinished_attempts(cursor)
    for attempt in attempts:
        job = flink.find_job(attempt.job_id)
        if job and not job.state.ended:
            return attempt.job_id
    return None


def open_new(
    servers: Servers,
    flink: FlinkRestHook,
    *,
    deployment_id: str,
    params: Mapping[str, Any],
    stopped_job: str | None,
    savepoint: str | None,
) -> Submission:
    """Open an attempt of a new deployment, which continues from the state of the one before it.

    Its hyperparameters, and the newest model of its features if the devices could not find it, are
    queued for the fleet in the same transaction, once for each attempt. Where the fleet has these
    hyperparameters already, devices that go on keep their own rates. What was stopped for it, and
    what was to run and does not, is recorded as replaced: it comes back if this one does not start.

    Parameters
    ----------
    deployment_id : str
        The same each time this runs for one deployment.
    params : mapping
        Params of the run; with `fresh` the job starts from nothing, with `restore_from` from there.
    stopped_job, savepoint : str, optional
        The job that was stopped for this deployment, and the savepoint that it left.

    Raises
    ------
    AirflowFailException
        Another job runs: a task was cleared, say, after what had been stopped was restored.
    FlinkStateError
        See `restore_point`.
    """
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.SUBMISSIONS)
        _refuse_beside_another(cursor, flink, deployment_id, stopped_job)
        _give_up_others(cursor, flink, deployment_id, stopped_job)
        configuration = configuration_of(cursor, params, servers, flink)
        if stopped_job:
            _mark_replaced(cursor, flink, stopped_job, deployment_id, savepoint)
        restored_from = chosen_state(cursor, configuration, flink, params)
        down = deployments.resumable(cursor)
        if down and down.deployment_id != deployment_id and down.status in TO_RUN:
            _mark_replaced(cursor, flink, down.job_id, deployment_id)
        opened_before = {attempt.job_id for attempt in deployments.unfinished_attempts(cursor)}
        submission = _open(cursor, flink, deployment_id, configuration, restored_from)
        if submission.job_id not in opened_before:
            queue_head(cursor, configuration.features)
            known, wanted = control.newest_control(cursor), configuration.hyperparameters
            since = None
            if known and restored_from and known.hyperparameters == wanted:
                since = known.unchanged_since
            control.queue_hyperparameters(cursor, wanted, unchanged_since=since)
        return submission


def _refuse_beside_another(
    cursor: Cursor, flink: FlinkRestHook, deployment_id: str, stopped_job: str | None
) -> None:
    for attempt in deployments.unfinished_attempts(cursor):
        if attempt.job_id == stopped_job:
            continue
        if (attempt.deployment_id, attempt.status) == (deployment_id, AttemptStatus.SUBMITTING):
            continue  # it is taken up again
        job = flink.find_job(attempt.job_id)
        if job and not job.state.ended:
            raise AirflowFailException(
                f"job {attempt.job_id} of deployment {attempt.deployment_id} runs:"
                " trigger a new run of deploy_training"
            )


def _give_up_others(
    cursor: Cursor, flink: FlinkRestHook, deployment_id: str, stopped_job: str | None
) -> None:
    """Pass over what was cut off before it had started, with its state, features, hyperparameters.

    One whose state cannot be looked for is left as it is.
    """
    for attempt in deployments.unfinished_attempts(cursor):
        is_own = attempt.deployment_id == deployment_id or attempt.job_id == stopped_job
        if is_own or attempt.status is not AttemptStatus.SUBMITTING:
            continue
        if attempt.posted_at:
            flink.cancel(attempt.job_id)  # a script may run that would submit it only now
        with suppress(FlinkStateError):
            left = _own_state(flink, attempt) if attempt.posted_at else None
            stopped_for_it = deployments.give_up(cursor, attempt, deployment_id, left)
            if stopped_for_it:
                _send_back_hyperparameters(cursor, stopped_for_it)


def _mark_replaced(
    cursor: Cursor,
    flink: FlinkRestHook,
    job_id: str,
    deployment_id: str,
    savepoint: str | None = None,
) -> None:
    """Let a job that does not run come back if the deployment in its place does not start."""
    replaced = deployments.attempt_of(cursor, job_id)
    if replaced.status not in (*UNFINISHED, AttemptStatus.SUSPENDED):
        return  # it was recorded by an earlier try, or is of the past
    left = savepoint or replaced.savepoint_path or _state_left_by(cursor, flink, job_id)
    if replaced.status is AttemptStatus.ACTIVE and left is None:
        return  # it has left one: `restore_point` says that it is not found, while it is active
    control_before = control.newest_control(cursor)
    deployments.mark_replaced(cursor, job_id, deployment_id, left, control_before)


def open_resumed(servers: Servers, flink: FlinkRestHook) -> Submission | None:
    """Open an attempt of the deployment that ran when the stack went down, None without one.

    Its configuration is the stored one, with the addresses of today. A job that still runs is taken
    up as it is. Nothing is queued for the fleet, whose hyperparameters may have been tuned since.
    """
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.SUBMISSIONS)
        return _open_resumed(cursor, servers, flink)


def open_restored(
    servers: Servers,
    flink: FlinkRestHook,
    *,
    deployment_id: str,
    failed_job: str | None = None,
    stopped_job: str | None,
    savepoint: str | None,
) -> Submission | None:
    """Open an attempt of what was stopped for a deployment that did not start.

    It has its own parameters, and continues from the newest checkpoint of the job that did not
    start if that one made any, else from its own savepoint. The hyperparameters that the fleet had
    when it was stopped, tuned ones included, are queued under the next revision, with that since
    when it had them: devices that have trained with no others keep their own rates. What runs of it
    since is taken up as it is.

    Parameters
    ----------
    deployment_id, stopped_job, savepoint
        As for `open_new`, which may not have come to record them.
    failed_job : str, optional
        The job that did not start. It may be of an earlier deployment, which this one has resumed.

    Returns
    -------
    Submission or None
        None when nothing was stopped, so that there is nothing to go back to, when another
        deployment was opened since, or when the job is of one that had started before, which is
        still to run.
    """
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.SUBMISSIONS)
        if failed_job:
            deployment_id = deployments.attempt_of(cursor, failed_job).deployment_id
        active = deployments.active(cursor)
        # a deployment may have failed before it came to record that it had stopped another
        if active and active.job_id == stopped_job:
            _mark_replaced(cursor, flink, stopped_job, deployment_id, savepoint)
        before = deployments.replaced_by(cursor, deployment_id)
        if before is None:
            return None
        _reinstate(cursor, before, deployment_id)
        newest = deployments.resumable(cursor)
        has_started = newest is not None and newest.deployment_id == deployment_id
        if has_started and before.deployment_id != deployment_id:
            return None
        return _open_resumed(cursor, servers, flink, _not_started(deployment_id))


def _reinstate(cursor: Cursor, before: Attempt, deployment_id: str) -> None:
    """Let what was stopped for a deployment be what should run, unless it is that already."""
    if deployments.reinstate(cursor, before.job_id, _not_started(deployment_id)):
        queue_head(cursor, before.configuration.features)
        _send_back_hyperparameters(cursor, before)


def _send_back_hyperparameters(cursor: Cursor, replaced: Attempt) -> None:
    hyperparameters, since = deployments.trained_with(cursor, replaced)
    control.queue_hyperparameters(cursor, hyperparameters, unchanged_since=since)


def _not_started(deployment_id: str) -> str:
    return f"deployment {deployment_id}, which was to replace it, has not started"


def _open_resumed(
    cursor: Cursor, servers: Servers, flink: FlinkRestHook, reason: str | None = None
) -> Submission | None:
    attempt = deployments.resumable(cursor)
    if attempt is None:
        return None
    job = flink.find_job(attempt.job_id)
    if job and not job.state.ended:
        return _submission(attempt)
    configuration = msgspec.structs.replace(
        attempt.configuration,
        bootstrap_servers=servers.bootstrap_servers,
        kafka=flink_kafka_properties(flink.connection),
    )
    restored_from = restore_point(cursor, configuration, flink)
    return _open(cursor, flink, attempt.deployment_id, configuration, restored_from, reason)


def chosen_state(
    cursor: Cursor,
    configuration: TrainingDeployment,
    flink: FlinkRestHook,
    params: Mapping[str, Any],
) -> str | None:
    """Return what a new deployment continues from: what a person names, else the newest state.

    Raises
    ------
    FlinkStateError
        See `restore_point`.
    """
    if params["fresh"]:
        return None
    return _named_state(params) or restore_point(cursor, configuration, flink)


def _named_state(params: Mapping[str, Any]) -> str:
    return (params["restore_from"] or "").strip()


def restore_point(
    cursor: Cursor, configuration: TrainingDeployment, flink: FlinkRestHook
) -> str | None:
    """Savepoint or retained checkpoint that continues the newest attempt which got anywhere.

    A job commits its outputs with its checkpoints, so the state to continue from is always that of
    the last attempt that completed one. Another feature list or number of buckets has other state:
    then there is none, but an attempt that failed to start is passed over.

    Raises
    ------
    FlinkStateError
        When Flink does not say where the state is, or the state of a job that ran is gone.
    """
    schema = feature_schema(configuration.features)
    directories = StateDirectories.of(flink.configuration())
    attempt = deployments.last_with_progress(cursor, schema, configuration.buckets)
    if attempt is None or (attempt.feature_schema, attempt.configuration.buckets) != (
        schema,
        configuration.buckets,
    ):
        return None
    state = attempt.savepoint_path
    if state is None and attempt.posted_at is not None:
        # a stop that was cut short has left a savepoint which no row names
        state = newest_state(flink, directories, attempt.job_id)
        if state is None and attempt.status is AttemptStatus.ACTIVE and not _runs(flink, attempt):
            raise FlinkStateError(
                f"job {attempt.job_id} has completed a checkpoint, and none is to be found in"
                f" {directories.checkpoints}: mount the folder that Flink writes to where Airflow's"
                " tasks run, or deploy with `restore_from`, the path of a checkpoint, or `fresh`"
            )
    return state or attempt.restored_from


def _runs(flink: FlinkRestHook, attempt: Attempt) -> bool:
    """Tell whether the job of an attempt runs, whose newest checkpoint replaces those before."""
    job = flink.find_job(attempt.job_id)
    return job is not None and not job.state.ended


def _open(
    cursor: Cursor,
    flink: FlinkRestHook,
    deployment_id: str,
    configuration: TrainingDeployment,
    restored_from: str | None,
    reason: str | None = None,
) -> Submission:
    """Open an attempt; one that was opened before and runs, or never ran, is taken up again."""
    for attempt in deployments.unfinished_attempts(cursor):
        if attempt.deployment_id != deployment_id:
            continue
        job = flink.find_job(attempt.job_id)
        if job and not job.state.ended:
            return _submission(attempt)
        planned = (attempt.configuration, attempt.restored_from)
        if planned != (configuration, restored_from) or job:
            lost = "Flink has lost or ended the job"
            # Flink may not know it any more, and its files be out of reach, when it is needed again
            left = _state_left_by(cursor, flink, attempt.job_id)
            if attempt.status is AttemptStatus.ACTIVE:
                deployments.mark_suspended(cursor, attempt.job_id, lost, left)
            else:
                deployments.mark_failed(cursor, attempt.job_id, lost, left)
    return _submission(
        deployments.open_attempt(cursor, deployment_id, configuration, restored_from, reason)
    )


def record_active(database_url: str, job_id: str) -> None:
    """Record that a job has started."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.mark_active(cursor, job_id)
    logger.info("Deployment %s, attempt %s, is active", attempt.deployment_id, attempt.attempt)


@contextmanager
def submitting(database_url: str, flink: FlinkRestHook, job_id: str) -> Iterator[None]:
    """Hold the lock of submissions while the job of an attempt is looked for and posted.

    Raises
    ------
    AirflowFailException
        The attempt is over, so that its job must not run: its task was cleared, say, after another
        deployment has taken its place. Or the job had started and Flink has lost it, so that its
        rows since then would be trained twice.
    """
    with hold(database_url, Lock.SUBMISSIONS):
        with connect(database_url) as connection, connection.cursor() as cursor:
            attempt = deployments.attempt_of(cursor, job_id)
            if attempt.status not in UNFINISHED:
                raise AirflowFailException(
                    f"job {job_id} of deployment {attempt.deployment_id} is {attempt.status} in"
                    " training_deployments, and another may run: trigger a new run of"
                    " deploy_training"
                )
            if _is_lost(flink, attempt):
                raise AirflowFailException(
                    f"job {job_id} had started, and Flink has lost it: trigger a new run of"
                    " deploy_training, which continues from its newest checkpoint"
                )
            deployments.mark_posted(cursor, job_id)
        yield


def _is_lost(flink: FlinkRestHook, attempt: Attempt) -> bool:
    """Tell whether Flink does not know a job that it has run; what does not answer may know it."""
    try:
        if attempt.posted_at is None or flink.find_job(attempt.job_id):
            return False
    except (httpx.TransportError, FlinkRestError):
        return False
    if attempt.status is AttemptStatus.ACTIVE:
        return True
    with suppress(FlinkStateError):  # where nobody can look, a post that got lost is repeated
        return _own_state(flink, attempt) is not None
    return False


def failed_job(database_url: str, flink: FlinkRestHook, job_id: str | None) -> str:
    """Return the job of an attempt that has never started, or that has ended since, else ""."""
    if job_id is None:
        return ""
    with connect(database_url) as connection, connection.cursor() as cursor:
        attempt = deployments.attempt_of(cursor, job_id)
    if attempt.status is AttemptStatus.SUBMITTING:
        return job_id
    job = flink.find_job(job_id) if attempt.status is AttemptStatus.ACTIVE else None
    return job_id if job and job.state.ended else ""


def record_failure(database_url: str, flink: FlinkRestHook, job_id: str, reason: str) -> None:
    """Record that a job did not start, and the state that it left if it got that far.

    What was stopped for it should run from now on, though nobody comes to open it. A job that runs
    is left alone. One that had started before, and has ended since it was taken up again, is
    followed by another attempt of its deployment, which the health gate deploys.
    """
    job = flink.find_job(job_id)
    if job and not job.state.ended:
        return
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.SUBMISSIONS)
        attempt = deployments.attempt_of(cursor, job_id)
        left = _state_left_by(cursor, flink, job_id)
        if attempt.status is AttemptStatus.SUBMITTING:
            deployments.mark_failed(cursor, job_id, reason, left)
            before = deployments.replaced_by(cursor, attempt.deployment_id)
            if before:
                _reinstate(cursor, before, attempt.deployment_id)
        elif attempt.status is AttemptStatus.ACTIVE and job:
            deployments.mark_suspended(cursor, job_id, reason, left)
            deployments.open_attempt(
                cursor,
                attempt.deployment_id,
                attempt.configuration,
                left or attempt.restored_from,
                f"job {job_id} had started before and was ended",
            )


def outcome_of_failure(
    database_url: str, flink: FlinkRestHook, deployment_id: str, reason: str
) -> str:
    """Say for people what runs after a deployment has failed, and why it has."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        active = deployments.active(cursor)
        expected = deployments.expected(cursor)
    job = flink.find_job(active.job_id) if active else None
    if active and job and not job.state.ended:
        configuration = active.configuration
        now = (
            f"deployment {active.deployment_id} runs with its parameters as before"
            f" (job {active.job_id}, parallelism {configuration.parallelism},"
            f" from {active.restored_from or 'nothing'})"
        )
    elif expected:
        now = (
            f"deployment {expected.deployment_id} should run and does not;"
            " monitor_training deploys it again"
        )
    else:
        now = "no training job runs now, for none ran before it"
    return f"{deployment_id} has failed, and {now}. Why it failed: {reason}"


def _state_left_by(cursor: Cursor, flink: FlinkRestHook, job_id: str) -> str | None:
    """Newest state of a job that has just ended, None when there is none to be found."""
    try:
        return _own_state(flink, deployments.attempt_of(cursor, job_id))
    except FlinkStateError:
        logger.warning("Cannot tell what state job %s left", job_id, exc_info=True)
        return None


def _own_state(flink: FlinkRestHook, attempt: Attempt) -> str | None:
    """Newest state of an attempt's job, None when it left none.

    That from which it was started is another job's, and may be older than what that has left since.
    """
    newest = newest_state(flink, StateDirectories.of(flink.configuration()), attempt.job_id)
    return None if is_same_state(newest, attempt.restored_from) else newest


def _submission(attempt: Attempt) -> Submission:
    configuration = msgspec.json.encode(attempt.configuration).decode()
    return Submission(
        job_id=attempt.job_id,
        arguments=["--training-config", configuration],
        parallelism=attempt.configuration.parallelism,
        savepoint_path=attempt.restored_from,
    )
