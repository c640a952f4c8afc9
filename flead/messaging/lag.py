"""How far a consumer group is behind."""

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from flead.messaging.client import REQUEST_TIMEOUT_SECONDS, Properties, admin
from flead.messaging.reading import offset_ranges


def consumer_lag(properties: Properties, group: str, topic: str) -> dict[int, int]:
    """Return how many offsets `group` is behind the end of each partition of `topic`.

    A partition of which the group has committed nothing counts from its first offset. On a topic
    that is written without transactions, these are messages.

    Raises
    ------
    KafkaException
        When the brokers cannot be reached or refuse, or the topic does not exist.
    """
    ranges = offset_ranges(properties, topic)
    request = ConsumerGroupTopicPartitions(
        group, [TopicPartition(topic, partition) for partition in ranges]
    )
    # Kept until the answer is here: a client that is collected before never completes its futures.
    client = admin(properties)
    futures = client.list_consumer_group_offsets([request], request_timeout=REQUEST_TIMEOUT_SECONDS)
    committed = {
        position.partition: position.offset
        for position in futures[group].result().topic_partitions
        if position.offset >= 0
    }
    return {
        partition: high - max(committed.get(partition, low), low)
        for partition, (low, high) in ranges.items()
    }
