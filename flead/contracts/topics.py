"""Names of the Kafka topics and how each is laid out."""

from enum import StrEnum

import msgspec

DAY_MS = 24 * 60 * 60 * 1000


class Topic(StrEnum):
    """Every topic of the system; the value is the name on the broker."""

    TELEMETRY = "edge-iiot-stream"
    TELEMETRY_DLQ = "edge-iiot-stream-dlq"
    LOCAL_UPDATES = "local-model-updates"
    LOCAL_UPDATES_DLQ = "local-model-updates-dlq"
    GLOBAL_UPDATES = "global-model-updates"
    GLOBAL_UPDATES_DLQ = "global-model-updates-dlq"
    FEEDBACK = "model-feedback"
    FEEDBACK_DLQ = "model-feedback-dlq"
    CONTROL = "training-control"
    CONTROL_DLQ = "training-control-dlq"
    ANOMALIES = "anomalies"


DEAD_LETTERS: tuple[Topic, ...] = tuple(topic for topic in Topic if topic.endswith("-dlq"))


class TopicLayout(msgspec.Struct, frozen=True):
    """Partitions and broker settings of one topic."""

    name: Topic
    partitions: int
    config: dict[str, str]


KEYED_PARTITIONS = 4
RETENTION_MS = 7 * DAY_MS
MESSAGE_BYTES = 2 * 1024 * 1024
"""Largest message: a global model of 5,000 features with its standardizer stays below it."""


def _retained(name: Topic) -> TopicLayout:
    return TopicLayout(
        name,
        KEYED_PARTITIONS,
        {
            "cleanup.policy": "delete",
            "retention.ms": str(RETENTION_MS),
            "max.message.bytes": str(MESSAGE_BYTES),
        },
    )


def _broadcast(name: Topic) -> TopicLayout:
    return TopicLayout(
        name, 1, {"cleanup.policy": "compact", "max.message.bytes": str(MESSAGE_BYTES)}
    )


LAYOUTS: tuple[TopicLayout, ...] = tuple(
    _broadcast(topic) if topic in (Topic.GLOBAL_UPDATES, Topic.CONTROL) else _retained(topic)
    for topic in Topic
)


def dead_letter_topic(topic: Topic) -> Topic:
    """Return the topic that takes the messages of `topic` that do not validate.

    Raises
    ------
    ValueError
        When `topic` has no dead-letter topic.
    """
    return Topic(f"{topic.value}-dlq")
