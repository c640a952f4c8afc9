"""How errors end: one line for what a user can act on, a traceback for a defect."""

import httpx
import msgspec
import psycopg2
import pytest
from confluent_kafka import KafkaError, KafkaException

from flead.analysis.evaluation import UnusableModelError
from flead.cli.errors import explanation
from flead.messaging.reading import TopicRewoundError
from flead.messaging.topics import TopicLayoutError
from flead.settings import Settings
from flead.stack.service import StackError


def raised(action):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is what each test is about
        action()
    return caught.value


def test_the_stack_speaks_for_itself_with_the_end_of_a_log():
    assert explanation(StackError("kafka died\nlog line")) == "kafka died\nlog line"


@pytest.mark.parametrize("error", [TopicLayoutError, TopicRewoundError, UnusableModelError])
def test_what_names_topic_or_version_by_itself_is_told_as_it_is(error):
    assert explanation(error("topic t has 4 partitions")) == "topic t has 4 partitions"


def test_a_wrong_setting_is_named():
    error = raised(lambda: Settings.from_environment({"FLEAD_ROUND_SECONDS": "often"}))

    assert isinstance(error, msgspec.ValidationError)
    assert explanation(error) == (
        "a value is not valid: Expected `float`, got `str` - at `$.round_seconds`"
    )


def test_a_database_that_does_not_answer_is_one_line():
    error = raised(lambda: psycopg2.connect("postgresql://flead@127.0.0.1:9/flead"))

    said = explanation(error)
    assert said.startswith("PostgreSQL: ")
    assert "port 9 failed: Connection refused" in said
    assert said.endswith("; see `flead status`")
    assert "\n" not in said


def test_an_http_server_that_does_not_answer_is_named():
    error = raised(lambda: httpx.get("http://127.0.0.1:9/jobs", trust_env=False))

    assert explanation(error) == (
        "http://127.0.0.1:9: [Errno 111] Connection refused; see `flead status`"
    )


def test_kafka_says_what_failed():
    error = KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN, "3/3 brokers are down"))

    assert explanation(error) == "Kafka: 3/3 brokers are down; see `flead status`"


def test_a_file_of_another_user_is_named():
    error = PermissionError(13, "Permission denied", "/home/flead/ports.lock")

    assert explanation(error) == (
        "[Errno 13] Permission denied: '/home/flead/ports.lock'; see `flead doctor`"
    )


def test_a_defect_is_not_explained_away():
    assert explanation(KeyError("location")) is None
