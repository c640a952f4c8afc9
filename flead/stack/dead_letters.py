"""What the topics of dead letters hold, newest first."""

from collections import Counter
from datetime import UTC, datetime

import msgspec

from flead.contracts.messages import DeadLetter
from flead.contracts.topics import DEAD_LETTERS
from flead.messaging.client import Properties
from flead.messaging.reading import offset_ranges, read_committed


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
    decode = msgspec.json.Decoder(DeadLetter).decode
    letters: list[ListedLetter] = []
    for topic in DEAD_LETTERS:
        ranges = offset_ranges(kafka, topic)
        start = {part: max(low, high - limit) for part, (low, high) in ranges.items()}
        for record in read_committed(kafka, topic, start, limit * len(ranges)).records:
            letter = decode(record.value or b"")
            letters.append(
                ListedLetter(
                    letter.topic,
                    letter.partition,
                    letter.offset,
                    datetime.fromtimestamp(letter.timestamp / 1000, UTC),
                    letter.reason.value,
                    letter.detail,
                )
            )
    letters.sort(key=lambda listed: listed.sent_at, reverse=True)
    counts: dict[str, Counter[str]] = {}
    for each in letters:
        counts.setdefault(each.topic, Counter())[each.reason] += 1
    return LetterList({topic: dict(found) for topic, found in counts.items()}, letters)
