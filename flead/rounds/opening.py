"""The start of a round: its updates move from Kafka into the database."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from flead.contracts.messages import DeadLetter
from flead.contracts.topics import Topic, dead_letter_topic
from flead.messaging.client import Properties
from flead.messaging.reading import read_committed
from flead.rounds.decoding import decode_updates
from flead.settings import Settings
from flead.storage import offsets, outbox, rounds, updates
from flead.storage.connection import connect
from flead.storage.locks import Lock, lock_for_transaction
from flead.storage.outbox import OutboxMessage
from flead.storage.rounds import Round, RoundState

CONSUMER: Final = "aggregation_round"
"""Name under which `stream_offsets` holds how far rounds have read."""

TOPIC: Final = Topic.LOCAL_UPDATES

logger = logging.getLogger(__name__)


def open_or_resume(
    database_url: str, kafka_properties: Properties, settings: Settings, dag_run_id: str | None
) -> Round | None:
    """Return the round to aggregate: the unfinished one, or a new one over what can be read.

    A new round takes at most `settings.max_updates_per_round` messages beyond the stored offsets.
    Its number, its updates, the dead letters of messages that do not validate, and the next offsets
    are written in one transaction.

    Parameters
    ----------
    dag_run_id
        Airflow's name of the run that asks, kept with the round; None outside Airflow.

    Returns
    -------
    Round or None
        An open round, or the finished one that this very `dag_run_id` opened (a task that runs
        twice); None when there is nothing to read.

    Raises
    ------
    TopicRewoundError
        When the topic ends before the stored offsets.
    """
    now = datetime.now(UTC)
    with connect(database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        newest = rounds.newest(cursor)
        if newest is not None and newest.state is RoundState.OPEN:
            logger.info("Resuming round %s, attempt %s", newest.number, newest.attempts + 1)
            return rounds.record_attempt(cursor, newest.number, dag_run_id, now)
        if newest is not None and dag_run_id is not None and newest.dag_run_id == dag_run_id:
            return newest
        start = offsets.next_offsets(cursor, CONSUMER, TOPIC)
        reading = read_committed(kafka_properties, TOPIC, start, settings.max_updates_per_round)
        read, letters = decode_updates(reading.records)
        offsets.store_next_offsets(cursor, CONSUMER, TOPIC, reading.next_offsets)
        if not reading.records:
            return None
        opened = rounds.open_round(
            cursor,
            1 if newest is None else newest.number + 1,
            start_offsets=reading.start_offsets,
            end_offsets=reading.next_offsets,
            updates=len(read),
            dead_letters=len(letters),
            dag_run_id=dag_run_id,
            now=now,
        )
        updates.insert_updates(cursor, opened.number, read)
        updates.record_status(cursor, opened.number)
        outbox.add(cursor, _dead_letter_messages(letters))
        logger.info(
            "Opened round %s: %s updates, %s dead letters", opened.number, len(read), len(letters)
        )
        return opened


def _dead_letter_messages(letters: Iterable[DeadLetter]) -> Iterable[OutboxMessage]:
    for letter in letters:
        yield OutboxMessage(
            dead_letter_topic(TOPIC),
            f"{letter.partition}/{letter.offset}",
            msgspec.json.encode(letter).decode(),
        )
