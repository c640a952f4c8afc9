"""The main job from nothing to global models, through Airflow, with what it did counted."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator

import httpx
import msgspec
import psycopg2
from confluent_kafka import KafkaException

from flead.contracts.deployment import TRAINING_GROUP
from flead.contracts.messages import Hyperparameters
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic, dead_letter_topic
from flead.messaging.lag import consumer_lag
from flead.messaging.reading import end_offsets, read_committed
from flead.messaging.topics import create_topics
from flead.stack import processes, training
from flead.stack.addresses import Addresses
from flead.stack.analysis import Analysis
from flead.stack.decision import Decision
from flead.stack.files import exclusive
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import CHECKOUT, Home
from flead.stack.service import StackError
from flead.stack.services import FLEET
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.models import newest_version
from flead.storage.progress import (
    Analysed,
    Decided,
    MadeVersion,
    analysed_since,
    collected_since,
    database_time,
    decided_since,
    versions_after,
)

POLL_SECONDS = 2.0
MEMORY_SECONDS = 10.0
MAX_DEAD_LETTERS = 100_000
HEALTHY_STATES = frozenset({"CREATED", "INITIALIZING", "RUNNING", "RESTARTING"})


class DemonstrationError(StackError):
    """The demonstration cannot go on; the message says what stopped."""


class DemonstrationOptions(msgspec.Struct, frozen=True):
    """What the demonstration runs: the fleet and when to stop (None: when interrupted).

    It does not stop by itself before rounds have heard of every device of the fleet. With the
    analysis it does not stop before each of Spark's jobs has written something, and the
    runs that it has started have ended; until a decision, not before evaluations were checked and
    one was taken on other hyperparameters that devices have tried. They are asked to
    `seconds_before_trials` after the first version.
    """

    devices: int = 2407
    rate: str = "31000/min"
    anomaly_rate: float = 0.15
    seed: int = 7
    until_version: int | None = None
    timeout_seconds: float = 1800.0
    with_analysis: bool = False
    until_decision: bool = False
    seconds_before_trials: float = 60.0
    hyperparameters: Hyperparameters = Hyperparameters()

    @property
    def has_end(self) -> bool:
        """Whether it stops by itself."""
        return self.until_version is not None or self.until_decision


class Progress(msgspec.Struct, frozen=True):
    """What this run has done so far.

    `versions` are those that it made, oldest first; `devices` are those of which rounds have read
    an update about rows of this run.
    """

    seconds: float
    rows: int
    local_updates: int
    versions: list[MadeVersion]
    flink_job_state: str | None
    checkpoints_completed: int
    dead_letters: int
    seconds_to_first_version: float | None
    consumer_lag_rows_max: int
    consumer_lag_rows_end: int
    peak_memory_mb: float
    devices: int
    evaluations: int
    feedback_rows: int
    stream_windows: int
    batch_rows: int
    quality_results: int
    checked_evaluations: int
    tuning_decisions: int
    decisions_on_trials: int
    trial_updates: int


@contextlib.contextmanager
def only_stream(home: Home) -> Iterator[None]:
    """Hold a home for one demonstration or replay; a killed one holds it no longer.

    Raises
    ------
    DemonstrationError
        Another one runs.
    """

    def refuse() -> None:
        raise DemonstrationError(
            f"another demonstration or replay runs in {home.root}: end it first"
        )

    with exclusive(home.run / "demo.lock", refuse):
        yield


class Demonstration:
    """One run of the main job on an embedded stack that is up.

    Attributes
    ----------
    deployment_id : str or None
        The deployment of the training job that the run has started.

    Parameters
    ----------
    home, addresses
        The stack.
    options
        The fleet, the training and the stop condition.
    memory_mb
        Returns the stack's memory now, in MB.
    """

    def __init__(
        self,
        home: Home,
        addresses: Addresses,
        options: DemonstrationOptions,
        memory_mb: Callable[[], float],
    ) -> None:
        self.deployment_id: str | None = None
        self._home = home
        self._addresses = addresses
        self._options = options
        self._memory_mb = memory_mb
        self._kafka = {"bootstrap.servers": addresses.kafka_bootstrap}
        self._flink = FlinkClient(addresses.flink_url)
        self._lag_max = 0
        self._memory_max = 0.0
        self._memory_at = -MEMORY_SECONDS
        self._dead_letters = 0
        self._first_version_after: float | None = None

    def run(self, say: Callable[[str], None]) -> Generator[Progress, None, None]:
        """Start the fleet and the training job, then report progress every other second.

        Ends once the stop condition holds; closing the generator stops the fleet.

        Raises
        ------
        DemonstrationError
            When the fleet's process or the Flink job ended, or the time was up.
        StackError
            When the deployment failed.
        """
        migrate(self._addresses.database_url)
        create_topics(self._kafka)
        self._mark_beginning()
        other = training.running_deployment(self._addresses)
        job_id = None
        if other is not None and other.configuration.features != list(FEATURES):
            # It would set the fleet's rows aside as dead letters.
            job_id = self._deploy(say)
        say("starting the fleet")
        with self._fleet() as fleet:
            job_id = job_id or self._deploy(say)
            say("training: the first windows close within a minute")
            analysis = Analysis(self._addresses, say) if self._options.with_analysis else None
            if analysis is not None:
                analysis.begin()
            decision = self._decision(say) if self._options.until_decision else None
            while True:
                with _answering_servers():
                    progress = self._measure(job_id)
                yield progress
                with _answering_servers():
                    if analysis is not None:
                        analysis.go_on(progress.stream_windows)
                    if decision is not None:
                        decision.go_on(progress)
                if self._is_done(progress) and (analysis is None or analysis.is_over):
                    return
                self._check(progress, fleet)
                time.sleep(POLL_SECONDS)

    def _mark_beginning(self) -> None:
        """Remember where everything stands, to count only what this run makes."""
        self._began = time.monotonic()
        self._telemetry_start = end_offsets(self._kafka, Topic.TELEMETRY)
        self._updates_start = end_offsets(self._kafka, Topic.LOCAL_UPDATES)
        self._dead_letters_from = end_offsets(self._kafka, dead_letter_topic(Topic.TELEMETRY))
        with connect(self._addresses.database_url) as connection, connection.cursor() as cursor:
            self._version_start = newest_version(cursor)
            self._start = database_time(cursor)

    def _decision(self, say: Callable[[str], None]) -> Decision:
        return Decision(self._addresses, say, self._start, self._options.seconds_before_trials)

    def _deploy(self, say: Callable[[str], None]) -> str:
        """Deploy the training job, in the place of any that runs; return the id of Flink's job."""
        features = list(FEATURES)
        if other := training.running_deployment(self._addresses):
            training.make_way(self._addresses, other, features, say)
        params = {"features": features, **msgspec.to_builtins(self._options.hyperparameters)}
        self.deployment_id = training.start_deployment(self._addresses, params)
        return training.finish_deployment(self._addresses, self.deployment_id, say).job_id

    @contextlib.contextmanager
    def _fleet(self) -> Iterator[subprocess.Popen[bytes]]:
        options = self._options
        # What a killed demonstration has left would send rows that are not of this fleet.
        processes.end(self._home, FLEET)
        with self._home.log_file(FLEET).open("wb") as output:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "flead.cli", "simulate",
                    "--devices", str(options.devices), "--rate", options.rate,
                    "--anomaly-rate", str(options.anomaly_rate), "--seed", str(options.seed),
                    # The demonstration deploys the job itself.
                    "--bootstrap-servers", self._addresses.kafka_bootstrap,
                ],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=CHECKOUT,
                env=os.environ | self._home.variables | {processes.MARKER: FLEET},
                start_new_session=True,
            )  # fmt: skip
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _measure(self, job_id: str) -> Progress:
        seconds = time.monotonic() - self._began
        with connect(self._addresses.database_url) as connection, connection.cursor() as cursor:
            versions = versions_after(cursor, self._version_start)
            collected = collected_since(
                cursor, Topic.LOCAL_UPDATES, self._updates_start, self._telemetry_start
            )
            analysed = analysed_since(cursor, self._start)
            decided = decided_since(cursor, self._start)
        if versions and self._first_version_after is None:
            self._first_version_after = round(seconds, 1)
        lag = sum(consumer_lag(self._kafka, TRAINING_GROUP, Topic.TELEMETRY).values())
        self._lag_max = max(self._lag_max, lag)
        self._sample_memory(seconds)
        return Progress(
            seconds=round(seconds, 1),
            devices=collected.devices,
            rows=sum(end_offsets(self._kafka, Topic.TELEMETRY).values())
            - sum(self._telemetry_start.values()),
            local_updates=collected.updates,
            versions=versions,
            flink_job_state=self._flink.job_state(job_id),
            checkpoints_completed=self._flink.completed_checkpoints(job_id),
            dead_letters=self._count_dead_letters(),
            seconds_to_first_version=self._first_version_after,
            consumer_lag_rows_max=self._lag_max,
            consumer_lag_rows_end=lag,
            peak_memory_mb=round(self._memory_max, 1),
            **msgspec.structs.asdict(analysed),
            **msgspec.structs.asdict(decided),
        )

    def _sample_memory(self, seconds: float) -> None:
        """Sum the stack's memory now and then: it takes the kernel a while to count."""
        if seconds - self._memory_at >= MEMORY_SECONDS:
            self._memory_at = seconds
            self._memory_max = max(self._memory_max, self._memory_mb())

    def _count_dead_letters(self) -> int:
        """Count on from the last count: offsets of a transactional topic are no message counts."""
        topic = dead_letter_topic(Topic.TELEMETRY)
        reading = read_committed(self._kafka, topic, self._dead_letters_from, MAX_DEAD_LETTERS)
        self._dead_letters += len(reading.records)
        self._dead_letters_from = reading.next_offsets
        return self._dead_letters

    def _is_done(self, progress: Progress) -> bool:
        options = self._options
        if not options.has_end or len(progress.versions) < (options.until_version or 0):
            return False
        return progress.devices >= options.devices and all(self._awaited(progress).values())

    def _awaited(self, progress: Progress) -> dict[str, int]:
        """Return the counts that the demonstration does not stop before, by name."""
        analysed = analysis_of(progress) if self._options.with_analysis else {}
        decided = decisions_of(progress) if self._options.until_decision else {}
        return analysed | decided

    def _check(self, progress: Progress, fleet: subprocess.Popen[bytes]) -> None:
        if fleet.poll() is not None:
            log = self._home.log_file(FLEET)
            raise DemonstrationError(f"the fleet stopped with {fleet.returncode}; see {log}")
        if progress.flink_job_state not in HEALTHY_STATES:
            raise DemonstrationError(
                f"the Flink job is {progress.flink_job_state}; see `flead logs flink-taskmanager`"
            )
        options, limit = self._options, self._options.timeout_seconds
        if options.has_end and progress.seconds > limit:
            awaited = "".join(f", {name}: {n}" for name, n in self._awaited(progress).items())
            raise DemonstrationError(
                f"{len(progress.versions)} of {options.until_version or 0} versions,"
                f" {progress.devices} of {options.devices} devices{awaited} after {limit:g} s;"
                f" see the runs of the DAGs in Airflow ({self._addresses.airflow_url})"
            )


@contextlib.contextmanager
def _answering_servers() -> Iterator[None]:
    try:
        yield
    except (KafkaException, psycopg2.OperationalError, httpx.HTTPError) as error:
        raise DemonstrationError(
            f"a server no longer answers ({error}); see `flead status`"
        ) from error


def analysis_of(progress: Progress) -> dict[str, int]:
    """Return what the analysis has written, by name."""
    return {name: getattr(progress, name) for name in Analysed.__struct_fields__}


def decisions_of(progress: Progress) -> dict[str, int]:
    """Return what was decided and on what, by name."""
    return {name: getattr(progress, name) for name in Decided.__struct_fields__}
