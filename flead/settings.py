"""The one place for settings that operators change: environment variables `FLEAD_<NAME>`."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

PREFIX = "FLEAD_"
MODELS_VARIABLE = "GLOBAL_MODELS_DIR"
TRAINING_SCRIPT = Path(__file__).resolve().parents[1] / "jobs" / "flink" / "local_training.py"
FLINK_DEPLOYMENT = Path(__file__).resolve().parents[1] / "deploy/kubernetes/flink-deployment.yaml"
JSON_SETTINGS: Final = ("strategy_options", "tuning_bounds", "health_notifier_options")

AT_LEAST_AS_LONG: Final = (
    ("retention_updates_days", "retention_models_days"),
    ("retention_models_days", "retention_evaluations_days"),
    ("analysis_reference_days", "retention_batch_days"),
)
"""A replay needs the models that updates are based on; a version without evaluation is due for one;
drift is measured against the days before.
"""

PositiveFloat = Annotated[float, Meta(gt=0)]
PositiveInt = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
SPARK_SCRIPTS = Path(__file__).resolve().parents[1] / "jobs" / "spark"


class TrainingCluster(StrEnum):
    """Where the training job runs."""

    SESSION = "session"
    KUBERNETES = "kubernetes"


class TuningBounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lowest and highest value of each hyperparameter that is tuned."""

    learning_rate: tuple[PositiveFloat, PositiveFloat] = (0.001, 0.5)
    alpha: tuple[PositiveFloat, PositiveFloat] = (1e-6, 1e-2)
    window_rows: tuple[PositiveInt, PositiveInt] = (10, 200)
    local_epochs: tuple[PositiveInt, PositiveInt] = (1, 10)
    ditto_pull: tuple[Share, Share] = (0.0, 0.5)

    def __post_init__(self) -> None:
        for name, (low, high) in msgspec.structs.asdict(self).items():
            if low > high:
                raise ValueError(f"{name} has its lowest value, {low}, above its highest, {high}")


class Settings(msgspec.Struct, frozen=True):
    """Settings of rounds, models and limits; `FLEAD_ROUND_SECONDS=10` sets `round_seconds`.

    `global_models_dir` alone is `GLOBAL_MODELS_DIR`, for other programs read the artifacts too.

    Addresses and passwords are no settings: they come from Airflow connections (`flead_db`,
    `flead_kafka`, `flead_flink`) or, in the CLI, from the embedded stack.
    """

    round_seconds: Annotated[float, Meta(ge=0)] = 60.0
    """Least time between two rounds."""
    round_min_updates: Annotated[int, Meta(ge=1)] = 20
    """Readable updates that a round waits for."""
    max_wait_seconds: Annotated[float, Meta(gt=0)] = 600.0
    """How long a round waits for updates before it ends as skipped."""
    max_updates_per_round: Annotated[int, Meta(ge=1)] = 20_000
    """Updates that one round takes; those beyond wait for the next."""
    max_staleness: Annotated[int, Meta(ge=0)] = 10
    """Versions that the base of an update may lie behind the parent."""
    max_update_norm: Annotated[float, Meta(gt=0)] = 100.0
    """Largest Euclidean norm of an update's weight change that is plausible."""
    gate_min_rows: Annotated[int, Meta(ge=0)] = 200
    """Labelled rows that a candidate is scored on before it is judged; 0 promotes without.

    An evaluation of fewer rows takes no head back.
    """
    gate_min_devices: Annotated[int, Meta(ge=1)] = 20
    """Devices that must have scored it: all, where fewer have labels."""
    gate_alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Significance at which a candidate is worse than its parent."""
    gate_timeout_seconds: Annotated[float, Meta(gt=0)] = 600.0
    """How long a candidate may stay undecided before it is rejected."""
    rollback_margin: Annotated[float, Meta(gt=0)] = 0.1
    """Nats of log loss by which the head must be worse than its parent to be rolled back."""
    rollback_relative_margin: Annotated[float, Meta(ge=0)] = 0.25
    """The same as a share of its parent's log loss; both must be exceeded."""
    rollback_alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    """Significance at which it is."""
    strategy: str = "fedavg"
    """How updates are aggregated: `fedavg`, `fedmedian` or `fedtrimmedavg` (docs/federation.md)."""
    strategy_options: dict[str, Any] = {}
    """JSON, as `{"staleness_discount": 0.5}`: see docs/federation.md."""
    global_models_dir: str = "models"
    """Folder of the model artifacts, of candidates and rejected versions too."""
    job_start_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """How long a submitted job may take to run every vertex and complete its first checkpoint."""
    taskmanager_memory_mb: Annotated[int, Meta(ge=1_024)] = 2_048
    """Memory of the embedded stack's TaskManager; a checkpoint of 240,700 devices had 1.3 GB."""
    spark_master: str = "local[2]"
    """Where the embedded stack submits analyses; a cluster's `spark://` or `k8s://` address."""
    archive_uri: str = "file:///var/lib/flead/archive"
    """Where valid rows are archived, in a folder for each UTC day of their `event_time`."""
    archive_days: Annotated[int, Meta(ge=1)] = 30
    """Days of the archive that are kept."""
    stream_uri: str = "file:///var/lib/flead/stream"
    """Where the stream analysis keeps its checkpoints and the history of devices."""
    stream_log: str = "/var/log/flead/spark-stream.log"
    """What its driver says is added to this file, on the machine of the task that launches it."""
    stream_script: str = str(SPARK_SCRIPTS / "stream_analysis.py")
    """Path or URI of its job."""
    batch_script: str = str(SPARK_SCRIPTS / "batch_analysis.py")
    """Path or URI of the daily job."""
    evaluation_script: str = str(SPARK_SCRIPTS / "model_evaluation.py")
    """Path or URI of the job that evaluates models."""
    closing_lateness_seconds: Annotated[float, Meta(ge=0)] = 3_600.0
    """How long after a day's end its rows are not late yet."""
    analysis_reference_days: Annotated[int, Meta(ge=0)] = 7
    """Days before a day that its drift is measured against."""
    evaluation_interval_seconds: Annotated[float, Meta(ge=0)] = 600.0
    """Least time between two evaluations."""
    evaluation_min_rows: Annotated[int, Meta(ge=1)] = 2_000
    """Labelled rows beyond all that a version was trained on that its evaluation waits for."""
    evaluation_max_rows: Annotated[int, Meta(ge=1)] = 200_000
    """Messages of one evaluation."""
    evaluation_max_versions: Annotated[int, Meta(ge=1)] = 20
    """Due versions of one evaluation; the others, older ones, wait for the next."""
    evaluation_warm_up_rows: Annotated[int, Meta(ge=0)] = 500_000
    """Messages before an evaluation's window that are read for its rows' history at most."""
    feedback_rows: Annotated[int, Meta(ge=0)] = 5
    """Predictions of each device that an evaluation keeps."""
    round_quality_check: bool = True
    """Judge the updates of a round by the suite `local_models` before they are averaged."""
    data_docs_dir: str = "/var/lib/flead/data-docs"
    """Where the pages of quality checks are written, and served to who is logged in to Airflow."""
    web_libraries_dir: str = "/var/lib/flead/web/node_modules"
    """What `npm ci` has installed for the fleet pages, by the lock in `flead_airflow/pages`."""
    tuning_versions: Annotated[int, Meta(ge=1)] = 10
    """Promoted versions between two decisions about hyperparameters, and on each side of one."""
    tuning_min_improvement: Annotated[float, Meta(ge=0)] = 0.01
    """Relative fall of the log loss from which it still improves, and nothing is changed."""
    tuning_trials: Annotated[int, Meta(ge=1, le=3)] = 3
    """Hyperparameters that are tried at once."""
    tuning_fraction: Annotated[float, Meta(gt=0, le=0.25)] = 0.1
    """Part of the fleet that tries each."""
    tuning_horizon_seconds: Annotated[float, Meta(gt=0)] = 1_800.0
    """How long trials last, and how long an adopted change is watched."""
    tuning_min_rows: Annotated[int, Meta(ge=1)] = 30
    """Labelled rows before and after from which a device counts."""
    tuning_min_devices: Annotated[int, Meta(ge=2)] = 20
    """Devices from which a cohort counts."""
    tuning_alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Significance from which a trial has won, or an adopted change is worse."""
    tuning_bounds: TuningBounds = TuningBounds()
    """JSON, as `{"learning_rate": [0.01, 0.1]}`."""
    tuning_max_factor: Annotated[float, Meta(ge=1)] = 3.0
    """A larger step of learning rate, window or epochs waits for an approval."""
    tuning_approval_seconds: Annotated[float, Meta(gt=0)] = 86_400.0
    """How long it waits; then it is rejected."""
    health_window_seconds: Annotated[float, Meta(gt=0)] = 600.0
    """How far back the health gate looks for restarts and for failed checkpoints."""
    health_checkpoint_age_seconds: Annotated[float, Meta(gt=0)] = 45.0
    """Longest time since a checkpoint completed; three intervals, where these are longer."""
    health_failed_checkpoints: Annotated[int, Meta(ge=0)] = 5
    """Checkpoints that may fail within the window."""
    health_restarts: Annotated[int, Meta(ge=0)] = 3
    """Failures with a restart that a job may have within the window."""
    health_lag_growing_seconds: Annotated[float, Meta(gt=0)] = 30.0
    """How long rows may wait while more and more do; three intervals are added."""
    health_lag_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """How long rows may wait while they become no fewer; three intervals are added."""
    health_back_pressure_ratio: Share = 0.95
    """Share of its time that a subtask of a job that falls behind may wait for those behind it."""
    health_updates_stalled_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """How long rows may be read without an update; `window_seconds` of the deployment are added."""
    health_dead_letters_per_minute: Annotated[float, Meta(ge=0)] = 1_000.0
    """Dead letters of all topics together."""
    health_batch_age_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """Longest time since the stream analysis committed a batch while rows wait for it."""
    healing_attempts_per_hour: Annotated[int, Meta(ge=0)] = 3
    """How often a dead job or stream is deployed again before a person is asked; 0 asks at once."""
    healing_backoff_seconds: Annotated[float, Meta(ge=0)] = 60.0
    """Pause after the first attempt; it doubles with each."""
    health_notifier: str = "flead_airflow.notifying.LogNotifier"
    """Import path of the Airflow notifier that is told of each failed task of the health gate."""
    health_notifier_options: dict[str, Any] = {}
    """JSON, its arguments, as `{"to": "operators@example.org"}` for an e-mail."""
    retention_updates_days: Annotated[int, Meta(ge=1)] = 7
    """Days that updates of devices (`local_models`) are kept: as long, rounds can be replayed."""
    retention_rounds_days: Annotated[int, Meta(ge=1)] = 90
    """Days that rounds are kept."""
    retention_models_days: Annotated[int, Meta(ge=1)] = 90
    """Days that global models, decisions on them and their artifacts are kept."""
    retention_versions: Annotated[int, Meta(ge=1)] = 100
    """Promoted versions of each feature list that are kept before those, whatever their age."""
    retention_outbox_days: Annotated[int, Meta(ge=1)] = 7
    """Days that published messages are kept in the database."""
    retention_deployments_days: Annotated[int, Meta(ge=1)] = 90
    """Days that deployments of training and stream analysis are kept after their end."""
    retention_states: Annotated[int, Meta(ge=1)] = 20
    """Newest attempts of the training job whose savepoint and retained checkpoints are kept."""
    retention_evaluations_days: Annotated[int, Meta(ge=1)] = 90
    """Days that evaluations are kept."""
    retention_feedback_days: Annotated[int, Meta(ge=1)] = 30
    """Days that predictions of evaluations (`model_feedback`) are kept."""
    retention_stream_days: Annotated[int, Meta(ge=1)] = 30
    """Days that results of the stream analysis are kept, and the status of silent devices."""
    retention_batch_days: Annotated[int, Meta(ge=1)] = 365
    """Days that results of the daily analysis are kept."""
    retention_quality_days: Annotated[int, Meta(ge=1)] = 90
    """Days that results of quality checks are kept."""
    retention_health_days: Annotated[int, Meta(ge=1)] = 30
    """Days that readings of the health gate are kept."""
    retention_tuning_days: Annotated[int, Meta(ge=1)] = 365
    """Days that settled decisions about hyperparameters are kept."""
    retention_logs_days: Annotated[int, Meta(ge=1)] = 14
    """Days that logs of Airflow's tasks and event logs of Spark are kept after the last change."""
    retention_airflow_days: Annotated[int, Meta(ge=1)] = 30
    """Days that Airflow's metadata (DAG runs, XComs, log entries) is kept."""
    training_cluster: TrainingCluster = TrainingCluster.SESSION
    """`session`: the Flink cluster of `flead_flink`; `kubernetes`: one that is made for the job."""
    kubernetes_manifest: str = str(FLINK_DEPLOYMENT)
    """Path of the FlinkDeployment that the training job is deployed with on Kubernetes."""
    training_script: str = str(TRAINING_SCRIPT)
    """Path of the training job on the JobManager's machine; this checkout's, when they share it."""

    def __post_init__(self) -> None:
        for shorter, longer in AT_LEAST_AS_LONG:
            if getattr(self, longer) < getattr(self, shorter):
                raise ValueError(
                    f"{longer} is {getattr(self, longer)}, shorter than {shorter}, "
                    f"{getattr(self, shorter)}"
                )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings from `FLEAD_*` variables; other variables are ignored.

        Raises
        ------
        msgspec.ValidationError
            Names the setting whose value is of the wrong type or out of range.
        """
        known = {field.name: PREFIX + field.name.upper() for field in msgspec.structs.fields(cls)}
        known["global_models_dir"] = MODELS_VARIABLE
        given: dict[str, Any] = {
            name: environ[variable] for name, variable in known.items() if variable in environ
        }
        for name in given.keys() & JSON_SETTINGS:
            try:
                given[name] = msgspec.json.decode(given[name])
            except msgspec.DecodeError as error:
                raise msgspec.ValidationError(f"{known[name]} is no JSON: {error}") from None
        return msgspec.convert(given, cls, strict=False)
