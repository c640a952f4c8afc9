"""What a job under load is given and gives: a fleet that sends, a reader of its updates."""

import os
import subprocess
import threading
import time
from itertools import pairwise

from confluent_kafka import Consumer, KafkaError, TopicPartition

from flead.contracts.messages import LocalUpdate
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.messaging.client import assigned_consumer
from flead.messaging.reading import offset_ranges
from flead.stack.home import Home
from tests.accounting import Judge, Judged, messages_of

ROWS_PER_SECOND = 400
FLEET = (
    "--devices", "80", "--rate", f"{ROWS_PER_SECOND}/s", "--malformed-rate", "0.01",
    "--seed", "23",
)  # fmt: skip


class Follower:
    """Reads the committed updates as they come, and notes when."""

    def __init__(self, kafka: dict[str, str]) -> None:
        # A broker that is back is found within half a second.
        self._consumer = assigned_consumer(kafka | {"reconnect.backoff.max.ms": "500"})
        ranges = offset_ranges(kafka, Topic.LOCAL_UPDATES)
        self._consumer.assign(
            [TopicPartition(Topic.LOCAL_UPDATES, part, low) for part, (low, _) in ranges.items()]
        )
        self._arrivals: dict[int, list[tuple[float, int]]] = {part: [] for part in ranges}
        """By partition, of each batch the time of arrival (monotonic) and the newest record time.

        An open transaction keeps readers of its own partition waiting, not those of others.
        """
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading; a second time does nothing."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            self._consumer.close()

    def has_news_since(self, moment_ms: float) -> bool:
        """Tell whether of each partition an update that was sent after a moment can be read."""
        return all(
            any(sent_at > moment_ms for _, sent_at in arrivals)
            for arrivals in self._arrivals.values()
        )

    def longest_wait(self, since: float) -> float:
        """Return the longest time without a new message of a partition from a moment until now.

        Parameters
        ----------
        since
            As `time.monotonic` tells it.
        """
        now = time.monotonic()
        return max(
            after - before
            for arrivals in self._arrivals.values()
            for before, after in pairwise([since, *(at for at, _ in arrivals if at > since), now])
        )

    def _follow(self) -> None:
        while not self._ended.is_set():
            newest: dict[int, int] = {}
            for message in self._consumer.consume(1000, 0.1):
                if message.error() is None:
                    part, sent_at = message.partition(), message.timestamp()[1]
                    newest[part] = max(newest.get(part, 0), sent_at)
            arrived_at = time.monotonic()
            for part, sent_at in newest.items():
                self._arrivals[part].append((arrived_at, sent_at))


class Ledger:
    """What the job was given and what it gave, read on each time from where it was read before."""

    def __init__(self, kafka: dict[str, str]) -> None:
        self._kafka = kafka
        self._judge = Judge(kafka, FEATURES)
        self._updates: list[LocalUpdate] = []
        self._position: dict[int, int] = {}

    def telemetry(self) -> Judged:
        """Return what is to be made of all messages of the fleet so far."""
        return self._judge.read_on()

    def updates(self) -> list[LocalUpdate]:
        """Return the committed updates so far."""
        self._updates += messages_of(self._kafka, Topic.LOCAL_UPDATES, LocalUpdate, self._position)
        return self._updates


class Fleet:
    """Sends rows all the time; can be started again when the broker was away for too long."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process = self._start()

    def keep_running(self) -> None:
        """Start it again if it has ended."""
        if self._process.poll() is not None:
            self._process = self._start()

    def stop(self) -> None:
        """Let it end; a second time does nothing."""
        self._process.terminate()
        self._process.wait(timeout=60)

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self._home.python("tools"), "-m", "flead.cli", "simulate", *FLEET],
            env=os.environ | self._home.variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def messages_in(kafka: dict[str, str], topic: Topic, isolation_level: str) -> int:
    """Count the messages that a consumer of this isolation gets."""
    ranges = offset_ranges(kafka, topic)
    consumer = Consumer(
        kafka
        | {
            "group.id": "counting",
            "isolation.level": isolation_level,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, part, low) for part, (low, _) in ranges.items()])
    count = ended = 0
    while ended < len(ranges):
        batch = consumer.consume(10_000, 1)
        errors = [message.error() for message in batch if message.error() is not None]
        assert {error.code() for error in errors} <= {KafkaError._PARTITION_EOF}
        ended += len(errors)
        count += len(batch) - len(errors)
    consumer.close()
    return count
