"""Typed messages of every topic, decoded and validated by msgspec.

Times are integer milliseconds since the epoch. Arrays of a model (`weights`, `moments`) are in
*input order*: see `flead.contracts.schema.input_names`.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SCHEMA_VERSION: Final = 1

DeviceId = Annotated[str, Meta(min_length=1, max_length=256)]
# Until the year 9999, which 64-bit integers and PostgreSQL's timestamps hold.
Milliseconds = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Version = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Probability = Annotated[float, Meta(ge=0, le=1)]
# Sums of products with larger ones would not be finite.
Weight = Annotated[float, Meta(ge=-1e100, le=1e100)]

MAX_TRIALS: Final = 100


class Telemetry(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One row of a device on `edge-iiot-stream`, keyed by `device_id`.

    Unknown fields are refused because the decoder would not check the encoding of what it skips.
    """

    device_id: DeviceId
    event_time: Milliseconds
    features: dict[str, float | None]
    label: Literal[0, 1] | None = None
    attack_type: str | None = None
    schema_version: Literal[1] = SCHEMA_VERSION


class Moments(msgspec.Struct, frozen=True):
    """Running moments of each input: arrays of one length, in input order.

    `count` counts the rows that had the input, `m2` is the sum of squared deviations from `mean`.
    """

    count: list[float]
    mean: list[float]
    m2: list[float]


class Metrics(msgspec.Struct, frozen=True):
    """Sums of one model version over labelled rows, scored before it was trained on them."""

    version: Count
    rows: Count
    log_loss_sum: float
    tp: Count
    fp: Count
    tn: Count
    fn: Count


class UpdateStatus(StrEnum):
    """What the device's training is doing."""

    TRAINING = "training"
    CONVERGED = "converged"
    DRIFTING = "drifting"
    PAUSED = "paused"


class LabelSource(StrEnum):
    """Where a window's targets came from: labels, the z-score rule, or both."""

    LABEL = "label"
    ZSCORE = "zscore"
    MIXED = "mixed"


class ClosedBy(StrEnum):
    """Why a window closed: full, its oldest row had waited long enough, or the input ended."""

    COUNT = "count"
    TIME = "time"
    FLUSH = "flush"


class LocalUpdate(msgspec.Struct, frozen=True):
    """One closed window of one device on `local-model-updates`, keyed by `device_id`.

    `samples_processed` counts the rows trained in this window only. `first_offset`, `last_offset`
    and `offset_sum` cover every valid row of the window, so that consecutive windows account for
    the topic.
    """

    device_id: DeviceId
    model_version: Count
    base_version: Count
    feature_schema: str
    trained: bool
    status: UpdateStatus
    samples_processed: Count
    weights: list[float] | None
    intercept: float | None
    moments: Moments
    global_metrics: Metrics | None
    candidate_metrics: Metrics | None
    personalized_metrics: Metrics | None
    accuracy: Probability | None
    rows: Count
    rows_labelled: Count
    rows_pseudo_labelled: Count
    label_source: LabelSource
    input_partition: Count
    first_offset: Count
    last_offset: Count
    offset_sum: Count
    window_start: Milliseconds
    window_end: Milliseconds
    closed_by: ClosedBy
    learning_rate: float
    hyperparameters_revision: Count
    trial: str | None
    timestamp: Milliseconds
    schema_version: Literal[1] = SCHEMA_VERSION


class ModelStatus(StrEnum):
    """Life of a global model version."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class GlobalModel(msgspec.Struct, frozen=True):
    """A global model on `global-model-updates`, under the key `global` or `candidate`.

    `global_accuracy` and `global_loss` are its parent's as measured by this round, or null: a
    model cannot have been measured when it is published.
    """

    version: Version
    parent_version: Count
    restored_version: Version | None
    status: ModelStatus
    aggregation_round: Count
    feature_schema: str
    feature_names: list[str]
    weights: list[Weight]
    intercept: Weight
    standardizer: Moments
    strategy: str
    num_devices: Count
    num_updates: Count
    total_samples: Count
    global_accuracy: Probability | None
    global_loss: float | None
    timestamp: Milliseconds
    schema_version: Literal[1] = SCHEMA_VERSION


class Hyperparameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of local training that the fleet shares."""

    learning_rate: Annotated[float, Meta(gt=0, le=10)] = 0.05
    alpha: Annotated[float, Meta(ge=0, le=1)] = 1e-4
    window_rows: Annotated[int, Meta(ge=1, le=10_000)] = 30
    window_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    local_epochs: Annotated[int, Meta(ge=1, le=100)] = 3
    ditto_pull: Annotated[float, Meta(ge=0, le=1)] = 0.03


class Trial(msgspec.Struct, frozen=True):
    """Hyperparameters that a fraction of the fleet tries."""

    trial: str
    fraction: Probability
    hyperparameters: Hyperparameters


class TrainingState(StrEnum):
    """Whether devices train or only score."""

    RUN = "run"
    PAUSE = "pause"


class TrainingControl(msgspec.Struct, frozen=True):
    """What the fleet trains with, on `training-control` under the key `control`.

    `fleet_revision` is the one that gave `hyperparameters` to the fleet, where it was not this one:
    trials begin and end under revisions of their own.
    """

    revision: Count
    hyperparameters: Hyperparameters
    trials: Annotated[list[Trial], Meta(max_length=MAX_TRIALS)] = []
    state: TrainingState = TrainingState.RUN
    fleet_revision: Count | None = None
    schema_version: Literal[1] = SCHEMA_VERSION

    @property
    def unchanged_since(self) -> int:
        """Revision since which the fleet has had these hyperparameters."""
        return self.revision if self.fleet_revision is None else self.fleet_revision


class ModelFeedback(msgspec.Struct, frozen=True):
    """How a global model version did on a device, on `model-feedback`, keyed by `device_id`."""

    device_id: DeviceId
    model_version: Count
    evaluation_run_id: str
    evaluation_timestamp: Milliseconds
    samples: Count
    mean_error: Probability
    accuracy: Probability | None
    log_loss: float | None
    confidence: Probability | None
    schema_version: Literal[1] = SCHEMA_VERSION


class Anomaly(msgspec.Struct, frozen=True):
    """A row with a feature beyond the z-score threshold, on `anomalies`, keyed by `device_id`.

    `feature`, `value` and `z_score` are those of the largest |z|; `features` maps every feature
    beyond the threshold to its z-score; `probability` is the personalized model's.
    """

    device_id: DeviceId
    event_time: Milliseconds
    partition: Count
    offset: Count
    feature: str
    value: float
    z_score: float
    features: dict[str, float]
    probability: Probability
    model_version: Count
    schema_version: Literal[1] = SCHEMA_VERSION


class DeadLetterReason(StrEnum):
    """Why a message was not processed."""

    TOMBSTONE = "tombstone"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    INVALID = "invalid"
    KEY_MISMATCH = "key_mismatch"
    UNDECLARED_FEATURE = "undeclared_feature"
    NOT_FINITE = "not_finite"
    UNKNOWN_SCHEMA = "unknown_schema"
    FAILED = "failed"


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that did not validate, with its position, on `<topic>-dlq`.

    `value_prefix` is the base64 of at most the first kilobyte; `value_bytes` is the length of the
    whole value, -1 for a tombstone.
    """

    topic: str
    partition: Count
    offset: Count
    timestamp: int
    reason: DeadLetterReason
    detail: str
    value_bytes: int
    value_sha256: str
    value_prefix: str
    schema_version: Literal[1] = SCHEMA_VERSION


GLOBAL_KEY: Final = "global"
CANDIDATE_KEY: Final = "candidate"
CONTROL_KEY: Final = "control"
