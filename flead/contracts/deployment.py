"""What a deployment of the training job is started with."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from flead.contracts.messages import Hyperparameters

MAX_PARALLELISM = 128
TRAINING_GROUP = "flead-training"
"""Consumer group under which the job commits how far it has read the telemetry."""

CHECKPOINT_SECONDS: Final = 5.0
"""Shortest time between checkpoints that is chosen: outputs become visible with them."""

MOST_CHECKPOINT_SECONDS: Final = 120.0
"""Longest one; a deployment waits for its first checkpoint."""

DEVICES_A_SECOND: Final = 4_000.0
"""Devices for which the time between checkpoints is a second.

A checkpoint writes all state, 5 kB a device: 240,700 of them took 13 seconds on two cores, which is
a fifth of the time at one a minute.
"""

CHECKPOINT_PAUSE: Final = 0.8
"""Share of the time between checkpoints that is free of them, also when the fleet has outgrown it.

One that takes a fifth of it or less is not put off.
"""


def checkpoint_interval(devices: int) -> float:
    """Choose the seconds between checkpoints for a fleet."""
    chosen = round(devices / DEVICES_A_SECOND)
    return float(min(max(chosen, CHECKPOINT_SECONDS), MOST_CHECKPOINT_SECONDS))


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
    checkpoint_interval_seconds: Annotated[float, Meta(ge=0.5)] = CHECKPOINT_SECONDS
    device_ttl_days: Annotated[float, Meta(gt=0)] = 30.0
    consumer_group: str = TRAINING_GROUP
    transactional_id_prefix: str = "flead-training"
    transaction_timeout_seconds: Annotated[int, Meta(ge=60)] = 6 * 24 * 60 * 60
    kafka: dict[str, str] = {}
