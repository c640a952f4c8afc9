"""What a deployment of the training job is started with."""

from typing import Annotated

import msgspec
from msgspec import Meta

from flead.contracts.messages import Hyperparameters

MAX_PARALLELISM = 128
TRAINING_GROUP = "flead-training"
"""Consumer group under which the job commits how far it has read the telemetry."""


class TrainingDeployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of one training job, passed to it as a single JSON argument.

    A device without a row for `device_ttl_days` is forgotten. `buckets` is part of the key of the
    job's state: another value needs a fresh deployment. `kafka` holds properties of Flink's Kafka
    clients besides the bootstrap servers (security, for one). `transaction_timeout_seconds` must
    stay below the broker's `transaction.max.timeout.ms`; a job that is down for longer loses the
    updates of its last checkpoint.
    """

    features: Annotated[list[str], Meta(min_length=1)]
    bootstrap_servers: str
    hyperparameters: Hyperparameters = Hyperparameters()
    parallelism: Annotated[int, Meta(ge=1, le=MAX_PARALLELISM)] = 2
    buckets: Annotated[int, Meta(ge=1, le=65_535)] = 64
    checkpoint_interval_seconds: Annotated[float, Meta(ge=0.5)] = 5.0
    device_ttl_days: Annotated[float, Meta(gt=0)] = 30.0
    consumer_group: str = TRAINING_GROUP
    transactional_id_prefix: str = "flead-training"
    transaction_timeout_seconds: Annotated[int, Meta(ge=60)] = 6 * 24 * 60 * 60
    kafka: dict[str, str] = {}
