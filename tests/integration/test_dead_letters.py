"""Dead letters as an operator looks at them."""

import json

import msgspec
import pytest

from flead.contracts.messages import DeadLetter, DeadLetterReason
from flead.contracts.topics import Topic, dead_letter_topic
from flead.messaging.producing import OutgoingMessage, produce
from flead.messaging.reading import end_offsets
from flead.messaging.topics import create_topics

pytestmark = pytest.mark.servers


def letter(offset, reason, detail):
    return DeadLetter(
        topic=Topic.TELEMETRY.value,
        partition=0,
        offset=offset,
        # Newer than what other tests leave on the broker.
        timestamp=4_000_000_000_000 + offset,
        reason=reason,
        detail=detail,
        value_bytes=2,
        value_sha256="0" * 64,
        value_prefix="e30=",
    )


def test_the_newest_are_counted_by_reason_and_shown_with_their_places(flead, stack_home, kafka):
    properties = {"bootstrap.servers": kafka}
    create_topics(properties)
    letters = [letter(0, DeadLetterReason.EMPTY, "no value")]
    letters += [
        letter(at, DeadLetterReason.UNDECLARED_FEATURE, f"feature f{at} is not declared")
        for at in (1, 2, 3)
    ]
    produce(
        properties,
        [
            OutgoingMessage(dead_letter_topic(Topic.TELEMETRY), b"0", msgspec.json.encode(each))
            for each in letters
        ],
    )

    found = flead(stack_home, "dead-letters", "--limit", "2", "--json")
    shown = flead(stack_home, "dead-letters")

    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert [each["offset"] for each in report["letters"][:2]] == [3, 2]
    assert report["counts"]["edge-iiot-stream"]["undeclared_feature"] == 2
    lines = [line.split(maxsplit=2) for line in shown.stdout.splitlines()]
    assert ["3", "undeclared_feature", "edge-iiot-stream"] in lines
    assert [
        "10-02",
        "07:06:40",
        "edge-iiot-stream/0/3 undeclared_feature: feature f3 is not declared",
    ] in lines


@pytest.mark.parametrize(
    "value",
    [b"", b"no JSON", b'{"topic": "\xff"}', b"{}"],
    ids=["nothing", "text", "bytes", "{}"],
)
def test_what_is_no_dead_letter_is_listed_as_unreadable_with_its_place(
    value, flead, stack_home, kafka
):
    properties = {"bootstrap.servers": kafka}
    create_topics(properties)
    topic = dead_letter_topic(Topic.CONTROL)
    ends = end_offsets(properties, topic)
    produce(properties, [OutgoingMessage(topic, b"0", value)])
    [(partition, offset)] = ends.items() - end_offsets(properties, topic).items()

    found = flead(stack_home, "dead-letters", "--json")

    assert found.returncode == 0, found.stderr
    listed = [
        each
        for each in json.loads(found.stdout)["letters"]
        if (each["topic"], each["partition"], each["offset"]) == (topic, partition, offset)
    ]
    assert [each["reason"] for each in listed] == ["unreadable"]
    assert listed[0]["detail"]
