"""When the next round is due: what is stored compared with what can be read."""

from datetime import datetime, timedelta

from flead.messaging.client import Properties
from flead.messaging.reading import count_readable
from flead.rounds.opening import CONSUMER, TOPIC
from flead.settings import Settings
from flead.storage import offsets, rounds
from flead.storage.connection import connect
from flead.storage.rounds import Round, RoundState


def pending_updates(database_url: str, kafka_properties: Properties, minimum: int) -> int:
    """Count the messages that a new round could read, up to `minimum`.

    Raises
    ------
    TopicRewoundError
        When the topic ends before the stored offsets.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        start = offsets.next_offsets(cursor, CONSUMER, TOPIC)
    return count_readable(kafka_properties, TOPIC, start, limit=minimum)


def next_start(newest: Round, settings: Settings) -> datetime:
    """Return when a round may follow `newest`, or `newest` may be tried again if it is unfinished.

    Rounds start at least `round_seconds` apart. The wait of an unfinished one doubles with each
    attempt, from at least a second up to `max_wait_seconds`.
    """
    if newest.state is not RoundState.OPEN:
        return newest.opened_at + timedelta(seconds=settings.round_seconds)
    backoff = max(settings.round_seconds, 1.0) * 2.0 ** min(newest.attempts - 1, 32)
    return newest.attempted_at + timedelta(seconds=min(backoff, settings.max_wait_seconds))


def round_is_due(
    database_url: str, kafka_properties: Properties, settings: Settings, now: datetime
) -> bool:
    """Whether a round should start now: what the trigger of `aggregation_round` asks.

    An unfinished round is due after its backoff, whatever can be read; a new one when
    `round_seconds` have passed and `round_min_updates` messages can be read.
    """
    with connect(database_url) as connection, connection.cursor() as cursor:
        newest = rounds.newest(cursor)
    if newest is not None and now < next_start(newest, settings):
        return False
    if newest is not None and newest.state is RoundState.OPEN:
        return True
    minimum = settings.round_min_updates
    return pending_updates(database_url, kafka_properties, minimum) >= minimum
