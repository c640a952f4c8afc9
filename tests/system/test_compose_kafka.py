"""The brokers of docker-compose.yaml, started from it: four nodes that outlive one of them."""

import json

import pytest

from flead.contracts.topics import LAYOUTS
from flead.stack.home import Home
from tests.containers import Containers

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(600)]

NODES = ("kafka-1", "kafka-2", "kafka-3", "kafka-4")
SERVERS = ",".join(f"{node}:9092" for node in NODES)

DESCRIBE = f"""
import json
from confluent_kafka.admin import AdminClient
from flead.messaging.topics import create_topics

properties = {{"bootstrap.servers": "{SERVERS}"}}
create_topics(properties)
admin = AdminClient(properties)
known = admin.list_topics(timeout=10)
print(json.dumps({{
    "brokers": sorted(known.brokers),
    "replicas": {{
        name: [len(set(p.replicas)) for p in topic.partitions.values()]
        for name, topic in known.topics.items()
    }},
}}))
"""

# In one transaction, as the training job writes: its coordinator is on another topic.
SEND = f"""
import sys
from confluent_kafka import Producer
producer = Producer({{
    "bootstrap.servers": "{SERVERS}", "acks": "all", "transactional.id": sys.argv[1],
    "transaction.timeout.ms": 6 * 24 * 3600 * 1000,
}})
producer.init_transactions(60)
producer.begin_transaction()
for number in range(100):
    producer.produce("edge-iiot-stream", key=str(number), value=sys.argv[1])
producer.commit_transaction(60)
"""

COUNT = f"""
from confluent_kafka import Consumer
consumer = Consumer({{
    "bootstrap.servers": "{SERVERS}", "group.id": "count", "auto.offset.reset": "earliest",
    "isolation.level": "read_committed", "enable.partition.eof": True,
}})
consumer.subscribe(["edge-iiot-stream"])
found, ended = 0, set()
while len(ended) < 4:
    message = consumer.poll(30)
    assert message is not None
    if message.error() is None:
        found += 1
    else:
        ended.add(message.partition())
print(found)
"""


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    stack = Containers(tmp_path_factory.mktemp("compose"), Home.from_environment())
    try:
        stack.up(*NODES)
        yield stack
    finally:
        stack.close()


def python(containers, code, *arguments):
    ran = containers.run("init", ["python", "-c", code, *arguments])
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_four_nodes_keep_every_partition_three_times_and_go_on_without_one(containers):
    found = json.loads(python(containers, DESCRIBE))
    python(containers, SEND, "before")

    containers.kill("kafka-2")

    assert containers.health("kafka-2").returncode == 1
    python(containers, SEND, "without-one")
    assert python(containers, COUNT) == "200\n"
    containers.up("kafka-2")
    python(containers, SEND, "after")
    assert python(containers, COUNT.replace('"count"', '"count-again"')) == "300\n"
    assert found["brokers"] == [1, 2, 3, 4]
    assert found["replicas"].keys() >= {layout.name for layout in LAYOUTS}
    assert {count for counts in found["replicas"].values() for count in counts} == {3}
