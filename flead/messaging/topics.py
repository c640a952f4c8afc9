"""The topics of the system, created as `flead.contracts.topics` lays them out."""

import logging
import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from flead.contracts.topics import LAYOUTS, TopicLayout
from flead.messaging.client import REQUEST_TIMEOUT_SECONDS, Properties, admin

BROKER_DEFAULT = -1
LEADER_POLL_SECONDS = 0.05
WITHOUT_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    # "No leaders found": not one of the partitions has one yet.
    KafkaError._NOENT,
)

logger = logging.getLogger(__name__)


class TopicLayoutError(Exception):
    """A topic exists with a number of partitions with which the system cannot work."""


def create_topics(properties: Properties, layouts: Iterable[TopicLayout] = LAYOUTS) -> list[str]:
    """Create the topics that are missing, and give the others the settings of their layout.

    A topic may have more partitions than its layout says, except that one of the broadcast topics,
    whose order matters as a whole, has exactly one.

    Returns
    -------
    list of str
        Names of the topics that were created; empty when there was nothing to create.

    Raises
    ------
    TopicLayoutError
        When a broadcast topic has several partitions.
    KafkaException
        When the brokers cannot be reached or refuse.
    """
    client = admin(properties)
    existing = client.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
    layouts = tuple(layouts)
    for layout in layouts:
        found = existing.get(layout.name)
        if found is not None and layout.partitions == 1 < len(found.partitions):
            raise TopicLayoutError(
                f"topic {layout.name} has {len(found.partitions)} partitions and needs exactly "
                "one: delete it, and it is created anew"
            )
    created = _create(client, [layout for layout in layouts if layout.name not in existing])
    _align_settings(client, [layout for layout in layouts if layout.name in existing])
    return created


def _create(client: AdminClient, layouts: list[TopicLayout]) -> list[str]:
    if not layouts:
        return []
    futures = client.create_topics(
        [
            NewTopic(
                layout.name.value,
                num_partitions=layout.partitions,
                replication_factor=BROKER_DEFAULT,
                config=layout.config,
            )
            for layout in layouts
        ],
        request_timeout=REQUEST_TIMEOUT_SECONDS,
    )
    created = []
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            # Another process was faster.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
        else:
            created.append(name)
    if created:
        logger.info("Created topics %s", ", ".join(created))
    _await_leaders(client, layouts)
    return created


def _await_leaders(client: AdminClient, layouts: list[TopicLayout]) -> None:
    """Wait until each partition answers: a broker leads it a moment after it is created."""
    latest = {
        TopicPartition(layout.name.value, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for layout in layouts
        for partition in range(layout.partitions)
    }
    deadline = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while True:
        answers = client.list_offsets(latest, request_timeout=REQUEST_TIMEOUT_SECONDS)
        try:
            for answer in answers.values():
                answer.result()
        except KafkaException as error:
            if error.args[0].code() not in WITHOUT_LEADER or time.monotonic() > deadline:
                raise
            time.sleep(LEADER_POLL_SECONDS)
        else:
            return


def _align_settings(client: AdminClient, layouts: list[TopicLayout]) -> None:
    wanted = {
        ConfigResource(ResourceType.TOPIC, layout.name.value): layout.config for layout in layouts
    }
    if not wanted:
        return
    described = client.describe_configs(list(wanted), request_timeout=REQUEST_TIMEOUT_SECONDS)
    changes = []
    for resource, future in described.items():
        current = {name: entry.value for name, entry in future.result().items()}
        drifted = {
            name: value for name, value in wanted[resource].items() if current.get(name) != value
        }
        if drifted:
            logger.warning("Setting %s of topic %s", drifted, resource.name)
            entries = [
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in drifted.items()
            ]
            changes.append(
                ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries)
            )
    if changes:
        altered = client.incremental_alter_configs(changes, request_timeout=REQUEST_TIMEOUT_SECONDS)
        for future in altered.values():
            future.result()
