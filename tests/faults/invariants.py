"""What holds at any moment, whatever was killed before."""

import os

import psutil

from flead.contracts.topics import Topic
from flead.messaging.reading import read_committed
from flead.rounds.opening import CONSUMER
from flead.stack.flink_rest import FlinkClient
from flead.stack.spark import STREAM
from flead.stack.supervision import NAME as SUPERVISOR
from flead.storage import deployments
from flead.storage.connection import connect
from flead.storage.offsets import next_offsets
from tests.accounting import assert_windows_account_for_rows
from tests.faults.stack import Stack


def assert_all_hold(stack: Stack) -> None:
    """Check rows, updates, versions, jobs and processes of the running stack."""
    assert_rows_are_in_windows(stack)
    assert_updates_are_in_rounds(stack)
    assert_versions_have_no_gap_and_no_fork(stack)
    assert_one_job_runs(stack)
    assert_nobody_is_orphaned(stack)


def assert_rows_are_in_windows(stack: Stack) -> None:
    """Each row until a device's last window is in one window; windows are consecutive."""
    # In this order: a row that an update covers was sent before it.
    updates = stack.ledger.updates()
    telemetry = stack.ledger.telemetry()
    assert_windows_account_for_rows(updates, telemetry.rows, to_the_end=False)


def assert_updates_are_in_rounds(stack: Stack) -> None:
    """Each update that rounds have read is in one of them, and judged once that is completed."""
    with connect(stack.addresses.database_url) as connection, connection.cursor() as cursor:
        # Rounds go on meanwhile: offsets and what was stored with them are read as of one moment.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ends = next_offsets(cursor, CONSUMER, Topic.LOCAL_UPDATES)
        cursor.execute(
            """
            SELECT kafka_partition, kafka_offset, state, status, reject_reason
            FROM local_models LEFT JOIN aggregation_rounds ON round = aggregation_round
            """
        )
        stored = cursor.fetchall()
        cursor.execute(
            """
            SELECT version, num_updates, total_samples, count(kafka_offset), sum(samples_processed)
            FROM federated_models LEFT JOIN local_models
                ON local_models.aggregation_round = federated_models.aggregation_round
                AND local_models.status = 'accepted'
            WHERE federated_models.aggregation_round IS NOT NULL
            GROUP BY version
            """
        )
        averaged = cursor.fetchall()
        cursor.execute("SELECT sum(dead_letters) FROM aggregation_rounds")
        [(dead_letters,)] = cursor.fetchall()
    sent = {
        (record.partition, record.offset)
        for record in read_committed(stack.kafka, Topic.LOCAL_UPDATES, {}, 10_000_000).records
        if record.offset < ends.get(record.partition, 0)
    }

    assert len(stored) == len({row[:2] for row in stored}), "an update is stored twice"
    assert {row[:2] for row in stored} == sent
    assert dead_letters == 0
    for partition, offset, state, status, reason in stored:
        where = (partition, offset, state, status, reason)
        assert state is not None, where
        assert (status == "pending") == (state == "open"), where
        assert (reason is not None) == (status == "rejected"), where
    for version, updates, samples, accepted, trained in averaged:
        assert (updates, samples) == (accepted, trained), version


def assert_versions_have_no_gap_and_no_fork(stack: Stack) -> None:
    """Versions are 1, 2, 3, …; each head was made from the head before it, the newest is the head.

    A candidate that was rejected has no successor.
    """
    with connect(stack.addresses.database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(
            "SELECT version, parent_version, promoted_at FROM federated_models ORDER BY version"
        )
        models = cursor.fetchall()
        cursor.execute("SELECT version FROM model_head")
        [(head,)] = cursor.fetchall()
    heads = [(version, parent) for version, parent, promoted_at in models if promoted_at]

    assert [version for version, *_ in models] == list(range(1, len(models) + 1))
    assert [parent for _, parent in heads] == [0, *(version for version, _ in heads[:-1])]
    assert heads[-1][0] == head


def assert_one_job_runs(stack: Stack) -> None:
    """Flink runs the job of the active deployment, and nothing else."""
    with connect(stack.addresses.database_url) as connection, connection.cursor() as cursor:
        active = deployments.active(cursor)

    assert active is not None
    assert FlinkClient(stack.addresses.flink_url).running_jobs() == [active.job_id]


def assert_nobody_is_orphaned(stack: Stack) -> None:
    """Whatever runs descends from the supervisor, but for the stream, which outlives Airflow."""
    [supervisor] = stack.members(SUPERVISOR)
    sessions = {session_of(process) for process in stack.members(STREAM)} - {None}
    assert len(sessions) == int(stack.has_stream), sessions
    for process in stack.processes_of_home():
        try:
            line = {process.pid, *(parent.pid for parent in process.parents())}
            command = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        belongs = supervisor.pid in line or session_of(process) in sessions | {None}
        assert belongs, (process.pid, command)


def session_of(process: psutil.Process) -> int | None:
    """Return the session of a process, None when it has ended."""
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
