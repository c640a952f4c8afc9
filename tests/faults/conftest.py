"""The training job through Airflow under load, while one thing after another is broken."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from flead.contracts.messages import Anomaly, LocalUpdate
from flead.contracts.topics import Topic, dead_letter_topic
from flead.stack import streams, training
from flead.stack.home import Home
from tests.accounting import Judged, Letter, dead_letters, messages_of
from tests.conftest import run_flead, start
from tests.faults.catalogue import FAULTS, QUICK, Fault, small_disk
from tests.faults.load import Fleet, Follower, Ledger, messages_in
from tests.faults.stack import Stack
from tests.running_stack import answered, wait_until

IS_QUICK = bool(os.environ.get("FLEAD_QUICK"))
REPETITIONS = int(os.environ.get("FLEAD_FAULT_REPETITIONS", "1"))
ONLY = os.environ.get("FLEAD_FAULTS", "").split()
"""Numbers of the faults to do; all when there are none."""
DEPLOYMENT = {"checkpoint_interval_seconds": 2, "window_seconds": 4}
STREAM = {"trigger_seconds": 5}
OUTPUTS = (Topic.LOCAL_UPDATES, Topic.ANOMALIES, dead_letter_topic(Topic.TELEMETRY))
STEADY_SECONDS = 5.0
RECOVERY_SECONDS = 420.0
PARTS = ("job", "updates", "rounds", "stream", "Airflow")
NOT_WELL, BROKEN, WELL = "not well again", "a promise broken", "well"
TABLE = pytest.StashKey[list["Recovery"]]()
COUNTS = pytest.StashKey[str]()


@dataclass
class Recovery:
    """How long after the harm ended, or a user began to mend it, each part was well again.

    Parameters
    ----------
    seconds
        By part: `job` has completed a checkpoint that began since, `updates` that were made since
        can be read from every partition, `rounds` that were opened since have made a version,
        `stream` has committed a batch that began since, `Airflow` reports healthy.
    longest_wait_seconds
        Of a reader of one partition's committed updates, from the job's checkpoint on.
    messages_before, messages_after
        What the fleet had sent when the harm began, and when everything was well again.
    outcome
        `NOT_WELL` until every part is well, then `BROKEN` until all that must hold was seen to.
    """

    fault: Fault
    seconds: dict[str, float] = field(default_factory=dict)
    longest_wait_seconds: float | None = None
    messages_before: int | None = None
    messages_after: int | None = None
    outcome: str = NOT_WELL


@dataclass(frozen=True)
class Aftermath:
    """What the topics hold after all faults, and what the fleet had sent.

    `aborted` counts the messages of transactions that a fault has cut off.
    """

    recoveries: list[Recovery]
    aborted: int
    telemetry: Judged
    updates: list[LocalUpdate]
    anomalies: list[Anomaly]
    letters: list[Letter]


def chosen() -> list[Fault]:
    """Return the faults to do, in their order, the whole list again for each repetition."""
    faults = [each for each in FAULTS if not ONLY or each.number in ONLY]
    return list(QUICK) if IS_QUICK else faults * REPETITIONS


@pytest.fixture(scope="session")
def stack(make_home: Callable[[], Home]) -> Iterator[Stack]:
    """Start all servers, the job and, unless quick, the stream analysis; a fleet sends rows."""
    home = make_home()
    with contextlib.ExitStack() as ending, pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLEAD_ROUND_SECONDS", "5")
        environment.setenv("FLEAD_GATE_MIN_ROWS", "60")
        # Each fault is one of many in the hour.
        environment.setenv("FLEAD_HEALING_ATTEMPTS_PER_HOUR", "1000")
        environment.setenv("FLEAD_HEALING_BACKOFF_SECONDS", "1")
        environment.setenv("FLEAD_TUNING_VERSIONS", "100000")
        if not IS_QUICK:
            ending.enter_context(small_disk(home))
            # Before the disk goes away.
            ending.callback(run_flead, home, "down")
        addresses = start(home)
        run_id = training.start_deployment(addresses, dict(DEPLOYMENT))
        training.finish_deployment(addresses, run_id, say=lambda _: None)
        fleet = Fleet(home)
        ending.callback(fleet.stop)
        follower = Follower({"bootstrap.servers": addresses.kafka_bootstrap})
        ending.callback(follower.stop)
        if not IS_QUICK:
            streams.deploy(addresses, dict(STREAM), say=lambda _: None)
        ledger = Ledger({"bootstrap.servers": addresses.kafka_bootstrap})
        made = Stack(home, addresses, fleet, follower, ledger, has_stream=not IS_QUICK)
        start_ms = time.time() * 1000
        wait_until(lambda: is_well(made, start_ms), "rounds follow each other")
        yield made


@pytest.fixture(scope="session")
def recoveries(request: pytest.FixtureRequest) -> list[Recovery]:
    """Return what was seen of each fault so far."""
    return request.config.stash.setdefault(TABLE, [])


@pytest.fixture
def broken(request: pytest.FixtureRequest, stack: Stack, recoveries: list[Recovery]) -> Recovery:
    """Let a fault happen, and wait until everything is well again."""
    fault: Fault = request.param
    recovery = Recovery(fault)
    # One that does not come to its end is in the table, too.
    recoveries.append(recovery)
    recovery.messages_before = stack.messages_sent()
    ended = fault.happen(stack)
    ended_ms = (time.time() - (time.monotonic() - ended)) * 1000
    parts: dict[str, Callable[[], bool]] = {
        "job": lambda: stack.training_goes_on_since(ended_ms),
        "updates": lambda: stack.follower.has_news_since(ended_ms),
        "rounds": lambda: stack.version_was_made_since(ended_ms),
        "Airflow": stack.airflow_is_well,
    }
    if stack.has_stream:
        parts["stream"] = lambda: stack.batch_began_since(ended_ms)
    while parts:
        stack.fleet.keep_running()
        for part, is_back in list(parts.items()):
            if answered(is_back):
                recovery.seconds[part] = time.monotonic() - ended
                del parts[part]
        assert time.monotonic() - ended < RECOVERY_SECONDS, f"not well again: {', '.join(parts)}"
        time.sleep(0.2)
    time.sleep(STEADY_SECONDS)
    recovery.messages_after = stack.messages_sent()
    recovery.longest_wait_seconds = stack.follower.longest_wait(ended + recovery.seconds["job"])
    recovery.outcome = BROKEN
    return recovery


@pytest.fixture(scope="session")
def aftermath(
    request: pytest.FixtureRequest, stack: Stack, recoveries: list[Recovery]
) -> Aftermath:
    """Let the fleet end and all of its rows be trained, and read what there is."""
    stack.fleet.stop()
    telemetry = stack.ledger.telemetry()
    wait_until(
        lambda: sum(each.rows for each in stack.ledger.updates()) >= len(telemetry.rows),
        "all rows are trained",
        poll_seconds=2,
    )
    stack.follower.stop()
    found = Aftermath(
        recoveries,
        sum(messages_in(stack.kafka, topic, "read_uncommitted") for topic in OUTPUTS)
        - sum(messages_in(stack.kafka, topic, "read_committed") for topic in OUTPUTS),
        telemetry,
        stack.ledger.updates(),
        list(messages_of(stack.kafka, Topic.ANOMALIES, Anomaly)),
        dead_letters(stack.kafka, Topic.TELEMETRY),
    )
    request.config.stash[COUNTS] = (
        f"{telemetry.messages:,} messages: {len(telemetry.rows):,} rows in"
        f" {len(found.updates):,} windows, {len(found.letters):,} dead letters;"
        f" {len(found.anomalies):,} anomalies; {found.aborted:,} messages of transactions that"
        " were cut off, which no reader got"
    )
    return found


def is_well(stack: Stack, since_ms: float) -> bool:
    """Tell whether rounds, and the stream if there is one, have gone on since a moment."""
    streams_on = not stack.has_stream or stack.batch_began_since(since_ms)
    return streams_on and stack.version_was_made_since(since_ms)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table of faults, as docs/reliability.md has it."""
    seen = config.stash.get(TABLE, [])
    if not seen:
        return
    parts = tuple(f"{part} after" for part in PARTS)
    header = ("", "Fault", "Expected", "Outcome", *parts, "Readers waited")
    rows = [header, ("---",) * len(header)]
    for each in seen:
        after = [_seconds(each.seconds.get(part)) for part in PARTS]
        waited = _seconds(each.longest_wait_seconds)
        fault = each.fault
        rows.append((fault.number, fault.what, fault.expected, each.outcome, *after, waited))
    terminalreporter.section("faults")
    terminalreporter.write("".join(f"| {' | '.join(row)} |\n" for row in rows))
    if counts := config.stash.get(COUNTS, ""):
        terminalreporter.write(f"\n{counts}\n")


def _seconds(duration: float | None) -> str:
    return "not seen" if duration is None else f"{duration:.0f} s"
