"""Topics, writes and reads against a real broker."""

import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from flead.contracts.topics import LAYOUTS, Topic, TopicLayout
from flead.messaging.lag import Backlog, backlog, committed_offsets, consumer_lag
from flead.messaging.producing import OutgoingMessage, produce
from flead.messaging.reading import (
    Counted,
    Record,
    TopicRewoundError,
    count_readable,
    count_to_end,
    end_offsets,
    read_committed,
)
from flead.messaging.topics import TopicLayoutError, create_topics

pytestmark = pytest.mark.servers


@pytest.fixture
def properties(kafka):
    return {"bootstrap.servers": kafka}


@pytest.fixture
def admin(properties):
    return AdminClient(properties)


@pytest.fixture
def topic(admin, properties):
    """Name of a new topic with two partitions, which the broker leads by now."""
    name = f"test-{uuid.uuid4().hex}"
    # The messages' timestamps are a year old, which the broker's retention does not keep.
    new = NewTopic(name, 2, 1, config={"retention.ms": "-1"})
    admin.create_topics([new])[name].result()

    def is_led():
        try:
            return bool(end_offsets(properties, name))
        except KafkaException as error:
            if error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION:
                return False
            raise

    eventually(is_led, expected=True)
    return name


@pytest.fixture
def transactional(properties):
    """Return a producer of transactions, which the tests flush and end themselves."""
    client = Producer(properties | {"transactional.id": uuid.uuid4().hex})
    client.init_transactions(30)
    return client


def write(client, topic, partition, *values):
    for value in values:
        client.produce(topic, value, b"key", partition, timestamp=1_764_000_000_123)
    client.flush(30)


@pytest.fixture
def in_transaction(properties, transactional):
    """Return a function that writes one transaction and waits until it has ended on the broker."""

    def run(topic, partition, *values, commit=True):
        end = end_offsets(properties, topic)[partition]
        transactional.begin_transaction()
        write(transactional, topic, partition, *values)
        (transactional.commit_transaction if commit else transactional.abort_transaction)(30)
        marker = 1
        wanted = end + len(values) + marker
        eventually(lambda: end_offsets(properties, topic)[partition], wanted)

    return run


def eventually(look, expected):
    """Look until the broker has done what it has promised: it answers before it has."""
    deadline = time.monotonic() + 30
    while (found := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == expected


def values_of(reading):
    return [record.value for record in reading.records]


class TestTopics:
    def test_all_topics_are_created_once_as_they_are_laid_out(self, properties, admin):
        create_topics(properties)
        assert create_topics(properties) == []
        found = admin.list_topics(timeout=30).topics
        assert {name: len(found[name].partitions) for name in Topic} == {
            layout.name: layout.partitions for layout in LAYOUTS
        }
        assert setting(admin, Topic.GLOBAL_UPDATES, "cleanup.policy") == "compact"
        assert setting(admin, Topic.LOCAL_UPDATES, "max.message.bytes") == "2097152"

    def test_a_setting_that_drifted_is_set_again(self, properties, admin):
        create_topics(properties)
        drifted = [
            TopicLayout(layout.name, layout.partitions, layout.config | {"retention.ms": "1234567"})
            for layout in LAYOUTS
            if layout.name is Topic.ANOMALIES
        ]
        create_topics(properties, drifted)
        eventually(lambda: setting(admin, Topic.ANOMALIES, "retention.ms"), "1234567")
        assert setting(admin, Topic.ANOMALIES, "retention.ms") == "1234567"
        create_topics(properties)
        week = str(7 * 24 * 3600 * 1000)
        eventually(lambda: setting(admin, Topic.ANOMALIES, "retention.ms"), week)

    def test_a_broadcast_topic_with_several_partitions_is_an_error(self, properties):
        create_topics(properties)
        one_partition = TopicLayout(Topic.ANOMALIES, 1, {})
        with pytest.raises(TopicLayoutError, match="anomalies has 4 partitions"):
            create_topics(properties, [one_partition])


def setting(admin, topic, name):
    resource = ConfigResource(ResourceType.TOPIC, topic.value)
    return admin.describe_configs([resource])[resource].result()[name].value


class TestProducing:
    def test_messages_of_a_key_arrive_in_order(self, properties, topic):
        sent = [OutgoingMessage(topic, b"key", str(number).encode()) for number in range(5_000)]
        assert produce(properties, iter(sent)) == 5_000
        reading = read_committed(properties, topic, {}, 10_000)
        assert values_of(reading) == [message.value for message in sent]

    def test_a_large_message_arrives(self, properties, admin):
        create_topics(properties)
        value = uuid.uuid4().hex.encode() * 60_000
        start = end_offsets(properties, Topic.GLOBAL_UPDATES)
        assert produce(properties, [OutgoingMessage(Topic.GLOBAL_UPDATES, b"global", value)]) == 1
        assert values_of(read_committed(properties, Topic.GLOBAL_UPDATES, start, 10)) == [value]

    def test_a_message_that_cannot_be_delivered_raises(self, properties):
        settings = properties | {"message.timeout.ms": "2000", "delivery.timeout.ms": "2000"}
        with pytest.raises(KafkaException):
            produce(settings, [OutgoingMessage("no-such-topic", b"key", b"value")])


class TestReading:
    def test_a_record_is_what_was_written(self, properties, topic):
        client = Producer(properties)
        client.produce(topic, b"value", b"key", 1, timestamp=1_764_000_000_123)
        client.produce(topic, None, None, 1, timestamp=1_764_000_000_124)
        client.flush(30)
        reading = read_committed(properties, topic, {}, 10)
        assert reading.records == [
            Record(topic, 1, 0, 1_764_000_000_123, b"key", b"value"),
            Record(topic, 1, 1, 1_764_000_000_124, None, None),
        ]
        assert (reading.start_offsets, reading.next_offsets) == ({0: 0, 1: 0}, {0: 0, 1: 2})

    def test_next_offsets_pass_transaction_markers(self, properties, topic, in_transaction):
        in_transaction(topic, 0, b"a", b"b")
        in_transaction(topic, 0, b"c")
        reading = read_committed(properties, topic, {}, 10)
        assert values_of(reading) == [b"a", b"b", b"c"]
        # a, b, marker, c, marker
        assert [record.offset for record in reading.records] == [0, 1, 3]
        assert reading.next_offsets == {0: 5, 1: 0} == end_offsets(properties, topic)
        assert count_readable(properties, topic, reading.next_offsets) == 0
        in_transaction(topic, 0, b"d")
        later = read_committed(properties, topic, reading.next_offsets, 10)
        assert values_of(later) == [b"d"]

    def test_aborted_messages_are_neither_read_nor_counted(self, properties, topic, in_transaction):
        in_transaction(topic, 0, b"a", b"b", commit=False)
        assert count_readable(properties, topic, {}) == 0
        assert read_committed(properties, topic, {}, 10).next_offsets == {0: 3, 1: 0}
        in_transaction(topic, 0, b"c")
        in_transaction(topic, 0, b"d", commit=False)
        reading = read_committed(properties, topic, {}, 10)
        assert (values_of(reading), reading.next_offsets) == ([b"c"], {0: 7, 1: 0})

    def test_an_open_transaction_ends_what_can_be_read(self, properties, topic, transactional):
        write(Producer(properties), topic, 0, b"before")
        transactional.begin_transaction()
        write(transactional, topic, 0, b"open")
        write(Producer(properties), topic, 0, b"behind")
        reading = read_committed(properties, topic, {}, 10)
        assert (values_of(reading), reading.next_offsets) == ([b"before"], {0: 1, 1: 0})
        assert count_readable(properties, topic, reading.next_offsets) == 0
        transactional.commit_transaction(30)
        eventually(lambda: end_offsets(properties, topic)[0], 4)
        later = read_committed(properties, topic, reading.next_offsets, 10)
        assert values_of(later) == [b"open", b"behind"]

    def test_a_limited_read_leaves_the_rest_to_the_next(self, properties, topic, in_transaction):
        for value in (b"a", b"b", b"c"):
            in_transaction(topic, 0, value)
            in_transaction(topic, 1, value)
        position, batches = {}, []
        while True:
            reading = read_committed(properties, topic, position, 4)
            if not reading.records:
                break
            batches.append(len(reading.records))
            assert reading.start_offsets == {0: 0, 1: 0} | position
            position = reading.next_offsets
        assert batches == [4, 2]
        assert position == {0: 6, 1: 6}

    def test_counting_stops_at_its_limit(self, properties, topic):
        write(Producer(properties), topic, 0, *[b"x"] * 50)
        assert count_readable(properties, topic, {}) == 50
        assert count_readable(properties, topic, {0: 20}) == 30
        assert count_readable(properties, topic, {}, limit=20) == 20

    def test_a_count_to_the_end_reads_so_many_and_estimates_the_rest_from_the_offsets(
        self, properties, topic, in_transaction
    ):
        for partition in range(2):
            for _ in range(10):
                in_transaction(topic, partition, b"1", b"2", b"3")
        ends = end_offsets(properties, topic)

        assert count_to_end(properties, topic, {}, most_read=100) == Counted(60, ends)
        estimate = count_to_end(properties, topic, {}, most_read=30)
        assert estimate.next_offsets == ends
        # one offset in four is a marker; the newest of each partition may not have been passed
        assert 60 <= estimate.messages <= 63
        assert count_to_end(properties, topic, ends, most_read=30) == Counted(0, ends)

    def test_what_was_deleted_is_passed(self, properties, topic, admin, caplog):
        write(Producer(properties), topic, 0, b"a", b"b", b"c")
        for future in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
            future.result()
        reading = read_committed(properties, topic, {0: 1}, 10)
        assert (values_of(reading), reading.start_offsets) == ([b"c"], {0: 2, 1: 0})
        assert "1 offsets were deleted unread" in caplog.text

    def test_a_topic_that_ends_before_the_stored_offset_is_an_error(self, properties, topic):
        write(Producer(properties), topic, 0, b"a")
        with pytest.raises(
            TopicRewoundError, match=r"\[0\] ends at offset 1, but was read up to 2"
        ):
            read_committed(properties, topic, {0: 2}, 10)

    def test_a_topic_that_does_not_exist_is_an_error(self, properties):
        with pytest.raises(KafkaException):
            read_committed(properties, "no-such-topic", {}, 10)


def test_lag_counts_from_what_the_group_has_committed_or_from_the_start(properties, topic):
    write(Producer(properties), topic, 0, b"a", b"b", b"c")
    write(Producer(properties), topic, 1, b"a", b"b")
    group = uuid.uuid4().hex
    assert consumer_lag(properties, group, topic) == {0: 3, 1: 2}
    consumer = Consumer(properties | {"group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    assert consumer_lag(properties, group, topic) == {0: 1, 1: 2}


def test_what_a_group_has_committed_leaves_out_partitions_of_which_it_has_nothing(
    properties, topic
):
    write(Producer(properties), topic, 0, b"a", b"b", b"c")
    group = uuid.uuid4().hex
    assert committed_offsets(properties, group, topic) == {}
    consumer = Consumer(properties | {"group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    assert committed_offsets(properties, group, topic) == {0: 2}


class TestBacklog:
    def test_waits_as_long_as_the_oldest_message_of_any_partition(self, properties, topic):
        producer = Producer(properties)
        now = time.time_ns() // 1_000_000
        for partition, ages in {0: (900, 100, 50), 1: (300, 200)}.items():
            for seconds in ages:
                producer.produce(topic, b"a", partition=partition, timestamp=now - 1_000 * seconds)
        assert producer.flush(30) == 0

        assert_waits(backlog(properties, topic, {}), rows=5, seconds=900)
        assert_waits(backlog(properties, topic, {0: 1}), rows=4, seconds=300)
        assert_waits(backlog(properties, topic, {0: 1, 1: 2}), rows=2, seconds=100)

    def test_is_nothing_when_all_was_read(self, properties, topic):
        write(Producer(properties), topic, 0, b"a")

        assert backlog(properties, topic, {0: 1, 1: 0}) == Backlog(0, 0.0)


def assert_waits(found, rows, seconds):
    assert found.rows == rows
    assert seconds <= found.seconds < seconds + 30
