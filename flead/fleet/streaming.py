"""Sending a fleet's messages to Kafka, each when it is due."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Final, Protocol

import numpy as np
from confluent_kafka import KafkaError
from confluent_kafka import Message as Delivery
from numpy.typing import NDArray

from flead.contracts.topics import Topic
from flead.fleet.malformed import Message
from flead.fleet.simulator import SimulatedRows
from flead.messaging.client import Properties, producer

TICK_SECONDS: Final = 0.01
"""Least time between two looks at what is due: the rate is steady at this scale."""

PROGRESS_SECONDS: Final = 1.0
FLUSH_SECONDS: Final = 10.0
DELIVERY_SECONDS: Final = 600.0
"""A broker that is away for less is waited for: devices keep their rows meanwhile."""


class StreamingError(Exception):
    """Messages that the broker did not take."""


class Rows(Protocol):
    """Rows to send."""

    @property
    def seconds(self) -> NDArray[np.float64]:
        """When each is due, in seconds after the start."""

    @property
    def malformation(self) -> NDArray[Any]:
        """How each is malformed, -1 where it is not."""

    def encode(self) -> list[Message]:
        """Key and value of each row's message."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent: valid rows, malformed messages, and the seconds that it took."""

    rows: int = 0
    malformed: int = 0
    seconds: float = 0.0


def limit(
    batches: Iterable[SimulatedRows], messages: int | None, seconds: float | None
) -> Iterator[SimulatedRows]:
    """Yield at most the first `messages`, and none that are due `seconds` after the start."""
    left = messages
    for batch in batches:
        end = len(batch) if seconds is None else int(np.searchsorted(batch.seconds, seconds))
        end = end if left is None else min(end, left)
        yield batch[:end]
        if left is not None:
            left -= end
        if end < len(batch) or left == 0:
            return


class Stream:
    """Sends batches to `edge-iiot-stream` at the pace of the fleet until they end or it is stopped.

    A row is sent `seconds / speed` after the start; `speed` may be infinite. Rows that are late,
    because the machine was busy, are sent at once.

    Parameters
    ----------
    properties
        Of the Kafka client: `bootstrap.servers` and any other.
    speed
        Seconds of the fleet in one second.
    on_progress
        Called about once a second, and once at the end, with what was sent so far.
    """

    def __init__(
        self, properties: Properties, speed: float, on_progress: Callable[[Sent], None]
    ) -> None:
        patient = {"delivery.timeout.ms": f"{DELIVERY_SECONDS * 1000:.0f}"}
        self._producer = producer({**patient, **properties}, report_only_errors=True)
        self._speed = speed
        self._on_progress = on_progress
        self._stop = Event()
        self._refused = 0
        self._error: KafkaError | None = None

    def stop(self) -> None:
        """End `run` soon, with everything sent so far delivered; callable from a signal handler."""
        self._stop.set()

    def run(self, batches: Iterable[Rows]) -> Sent:
        """Send the batches and wait for their delivery.

        Raises
        ------
        StreamingError
            When the broker refused messages, or did not answer in time.
        """
        begun = time.monotonic()
        done, reported = Sent(), 0.0
        for batch in batches:
            before = done
            malformed_before = np.concatenate([[0], np.cumsum(batch.malformation >= 0)])
            for sent in self._send(batch, begun):
                malformed = int(malformed_before[sent])
                done = Sent(
                    rows=before.rows + sent - malformed,
                    malformed=before.malformed + malformed,
                    seconds=time.monotonic() - begun,
                )
                if done.seconds - reported >= PROGRESS_SECONDS:
                    reported = done.seconds
                    self._on_progress(done)
            if self._stop.is_set():
                break
        self._deliver()
        done = replace(done, seconds=time.monotonic() - begun)
        self._on_progress(done)
        return done

    def _send(self, batch: Rows, begun: float) -> Iterator[int]:
        """Send the messages of a batch as they fall due; yield how many were sent."""
        messages, sent = batch.encode(), 0
        due_at = batch.seconds / self._speed
        while sent < len(messages) and not self._stop.is_set():
            due = int(np.searchsorted(due_at, time.monotonic() - begun, side="right"))
            for key, value in messages[sent:due]:
                self._produce(key, value)
            sent = max(sent, due)
            self._producer.poll(0)
            self._check()
            yield sent
            if sent < len(messages):
                wait = due_at[sent] - (time.monotonic() - begun)
                self._stop.wait(max(wait, TICK_SECONDS))

    def _produce(self, key: bytes | None, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(
                    Topic.TELEMETRY.value, value, key, on_delivery=self._delivered
                )
            except BufferError:
                # The queue is full: the broker is slower than the fleet.
                self._producer.poll(TICK_SECONDS)
                if self._stop.is_set():
                    raise StreamingError("stopped while the broker took no messages") from None
            else:
                return

    def _delivered(self, error: KafkaError | None, _: Delivery) -> None:
        if error is not None:
            self._refused += 1
            self._error = error

    def _deliver(self) -> None:
        waiting = self._producer.flush(FLUSH_SECONDS)
        self._check()
        if waiting:
            raise StreamingError(
                f"{waiting} messages for {Topic.TELEMETRY} were not delivered within "
                f"{FLUSH_SECONDS:g} s: is the broker up?"
            )

    def _check(self) -> None:
        if self._error is not None:
            raise StreamingError(
                f"{self._refused} messages for {Topic.TELEMETRY} were refused, the last because "
                f"of {self._error}"
            )
