"""Kafka clients from librdkafka properties, with what every part of the system relies on."""

import logging
from collections.abc import Mapping

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from flead.contracts.topics import MESSAGE_BYTES

Properties = Mapping[str, str]
"""librdkafka properties: `bootstrap.servers` and any other, security for one.

https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
"""

REQUEST_TIMEOUT_SECONDS = 30.0
"""How long one request to the brokers may take."""

logger = logging.getLogger(__name__)


def producer(properties: Properties, *, report_only_errors: bool = False) -> Producer:
    """Return a producer that keeps the order of a partition and repeats nothing when it retries.

    With `report_only_errors`, `on_delivery` is called for messages that were not delivered only:
    a call for each of them costs as much as sending it.
    """
    return Producer(
        {
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": MESSAGE_BYTES,
            "delivery.timeout.ms": int(REQUEST_TIMEOUT_SECONDS * 1000),
            **properties,
            "enable.idempotence": True,
            "delivery.report.only.error": report_only_errors,
        },
        logger=logger,
    )


def assigned_consumer(properties: Properties) -> Consumer:
    """Return a consumer that is assigned partitions by hand and sees committed transactions only.

    It reports the end of a partition, because transaction markers take offsets but are never
    delivered.
    """
    return Consumer(
        {
            "fetch.wait.max.ms": 50,
            **properties,
            # librdkafka wants a name, but without a subscription and commits there is no group.
            "group.id": "flead-assigned",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        },
        logger=logger,
    )


def admin(properties: Properties) -> AdminClient:
    """Return an admin client."""
    return AdminClient(dict(properties), logger=logger)
