"""Answers of Flink's REST API: the fields that are read, decoded by msgspec.

Source: Flink documentation, "REST API", v1 (Flink 2.3).
"""

from enum import StrEnum

import msgspec


class JobStatus(StrEnum):
    """State of a job."""

    INITIALIZING = "INITIALIZING"
    CREATED = "CREATED"
    RUNNING = "RUNNING"
    FAILING = "FAILING"
    FAILED = "FAILED"
    CANCELLING = "CANCELLING"
    CANCELED = "CANCELED"
    FINISHED = "FINISHED"
    RESTARTING = "RESTARTING"
    SUSPENDED = "SUSPENDED"
    RECONCILING = "RECONCILING"

    @property
    def ended(self) -> bool:
        """Whether the job will never run again under its id."""
        return self in {JobStatus.FAILED, JobStatus.CANCELED, JobStatus.FINISHED}


class JarUpload(msgspec.Struct, frozen=True):
    """Answer of `POST /jars/upload`; the id of the jar is the last part of `filename`."""

    filename: str


class Jar(msgspec.Struct, frozen=True):
    """One uploaded jar; `uploaded` is in milliseconds since the epoch."""

    id: str
    name: str
    uploaded: int


class Jars(msgspec.Struct, frozen=True):
    """Answer of `GET /jars`."""

    files: list[Jar]


class ClusterOverview(msgspec.Struct, frozen=True, rename="kebab"):
    """Answer of `GET /overview`; a slot runs one subtask of each vertex."""

    taskmanagers: int
    slots_total: int
    slots_available: int
    jobs_running: int
    flink_version: str


class Metric(msgspec.Struct, frozen=True):
    """One metric; Flink writes numbers as text."""

    id: str
    value: str


class JobSummary(msgspec.Struct, frozen=True):
    """One job of the overview."""

    jid: str
    name: str
    state: JobStatus


class JobsOverview(msgspec.Struct, frozen=True):
    """Answer of `GET /jobs/overview`."""

    jobs: list[JobSummary]


class Vertex(msgspec.Struct, frozen=True):
    """One vertex of a job graph; `status` is the state that its tasks share."""

    id: str
    name: str
    parallelism: int
    status: str


class Job(msgspec.Struct, frozen=True):
    """Answer of `GET /jobs/:jobid`; times are the JobManager's, in milliseconds since the epoch."""

    jid: str
    name: str
    state: JobStatus
    vertices: list[Vertex]
    now: int
    start_time: int = msgspec.field(name="start-time")

    @property
    def waiting_vertices(self) -> list[Vertex]:
        """Vertices that do not run yet; a job that is RUNNING may have some."""
        return [vertex for vertex in self.vertices if vertex.status != "RUNNING"]

    @property
    def runs_every_vertex(self) -> bool:
        """Whether the job and each of its vertices are RUNNING."""
        return self.state is JobStatus.RUNNING and not self.waiting_vertices


class CheckpointCounts(msgspec.Struct, frozen=True):
    """Checkpoints of a job; some of the first ones fail while its tasks start."""

    restored: int
    total: int
    in_progress: int
    completed: int
    failed: int


class CompletedCheckpoint(msgspec.Struct, frozen=True):
    """A completed checkpoint or savepoint; a `discarded` one has no files any more.

    It began at `trigger_timestamp` and was complete at `latest_ack_timestamp`, in milliseconds
    since the epoch.
    """

    id: int
    external_path: str
    discarded: bool
    trigger_timestamp: int
    latest_ack_timestamp: int


class FailedCheckpoint(msgspec.Struct, frozen=True):
    """A failed checkpoint."""

    id: int
    failure_message: str | None = None


class RestoredCheckpoint(msgspec.Struct, frozen=True):
    """What the job started from."""

    id: int
    is_savepoint: bool
    external_path: str | None = None


class LatestCheckpoints(msgspec.Struct, frozen=True):
    """The newest checkpoint of each kind."""

    completed: CompletedCheckpoint | None
    savepoint: CompletedCheckpoint | None
    failed: FailedCheckpoint | None
    restored: RestoredCheckpoint | None


class Checkpoints(msgspec.Struct, frozen=True):
    """Answer of `GET /jobs/:jobid/checkpoints`."""

    counts: CheckpointCounts
    latest: LatestCheckpoints


class JobException(msgspec.Struct, frozen=True, rename="camel"):
    """One failure of a job; a Python traceback is inside `stacktrace`."""

    exception_name: str
    stacktrace: str
    timestamp: int
    task_name: str | None = None


class ExceptionHistory(msgspec.Struct, frozen=True):
    """Failures of a job, newest first."""

    entries: list[JobException]


class JobExceptions(msgspec.Struct, frozen=True, rename="camel"):
    """Answer of `GET /jobs/:jobid/exceptions`."""

    exception_history: ExceptionHistory


class SubtaskBackPressure(msgspec.Struct, frozen=True):
    """Share of its time, 0 to 1, that a subtask waits for those behind it."""

    subtask: int
    ratio: float


class BackPressure(msgspec.Struct, frozen=True):
    """Answer of `GET /jobs/:jobid/vertices/:vertexid/backpressure`."""

    status: str
    subtasks: list[SubtaskBackPressure] | None = None


class SavepointProgress(msgspec.Struct, frozen=True):
    """`IN_PROGRESS` or `COMPLETED`; a failed savepoint is completed as well."""

    id: str


class FailureCause(msgspec.Struct, frozen=True, rename="kebab"):
    """Why a savepoint failed."""

    stack_trace: str


class SavepointOperation(msgspec.Struct, frozen=True, rename="kebab"):
    """Outcome of a savepoint: one of the two is there."""

    location: str | None = None
    failure_cause: FailureCause | None = None


class SavepointStatus(msgspec.Struct, frozen=True):
    """Answer of `GET /jobs/:jobid/savepoints/:triggerid`."""

    status: SavepointProgress
    operation: SavepointOperation | None


class Triggered(msgspec.Struct, frozen=True, rename="kebab"):
    """Answer of what takes a while, such as `POST /savepoint-disposal`: the id to follow it by."""

    request_id: str


class ConfigEntry(msgspec.Struct, frozen=True):
    """One setting of the JobManager."""

    key: str
    value: str


class Thread(msgspec.Struct, frozen=True):
    """A thread of the JobManager."""

    name: str = msgspec.field(name="threadName")


class ThreadDump(msgspec.Struct, frozen=True, rename="camel"):
    """Answer of `GET /jobmanager/thread-dump`."""

    thread_infos: list[Thread]


class RefusedRequest(msgspec.Struct, frozen=True):
    """Body of an error answer."""

    errors: list[str]
