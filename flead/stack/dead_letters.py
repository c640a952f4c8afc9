"""What the topics of dead letters hold, newest first."""

from collections import Counter
from datetime import UTC, datetime
from typing import Final

import msgspec

from flead.contracts.messages import DeadLetter
from flead.contracts.topics import DEAD_LETTERS
from flead.messaging.client import Properties
from flead.messaging.reading import Record, offset_ranges, read_committed

UNREADABLE: Final = "unreadable"
"""Reason of what is on a topic of dead letters and is none; its place is there."""
_LETTER: Final = msgspec.json.Decoder(DeadLetter)


class ListedLetter(msgspec.Struct, frozen=True):
    """A message that was not processed: where it is, when it was sent, and why."""

    topic: str
    partition: int
    offset: int
    sent_at: datetime
    reason: str
    detail: str


class LetterList(msgspec.Struct, frozen=True):
    """Dead letters, newest first; `counts` is how many of them each topic has of each reason."""

    counts: dict[str, dict[str, int]]
    letters: list[ListedLetter]


def newest_letters(kafka: Properties, limit: int) -> LetterList:
    """Return the newest dead letters of every topic, up to `limit` of each of its partitions."""
    letters: list[ListedLetter] = []
    for topic in DEAD_LETTERS:
        ranges = offset_ranges(kafka, topic)
        start = {part: max(low, high - limit) for part, (low, high) in ranges.items()}
        read = read_committed(kafka, topic, start, limit * len(ranges))
        letters += map(_listed, read.records)
    letters.sort(key=lambda listed: listed.sent_at, reverse=True)
    counts: dict[str, Counter[str]] = {}
    for each in letters:
        counts.setdefault(each.topic, Counter())[each.reason] += 1
    return LetterList({topic: dict(found) for topic, found in counts.items()}, letters)


def _listed(record: Record) -> ListedLetter:
    try:
        letter = _LETTER.decode(record.value or b"")
        sent_at = datetime.fromtimestamp(letter.timestamp / 1000, UTC)
    # Texts that are no UTF-8 and times that no calendar has are errors of other kinds.
    except (ValueError, OverflowError) as error:
        sent_at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        return ListedLetter(
            record.topic, record.partition, record.offset, sent_at, UNREADABLE, str(error)
        )
    return ListedLetter(
        letter.topic, letter.partition, letter.offset, sent_at, letter.reason.value, letter.detail
    )
