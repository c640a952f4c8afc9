"""The running job takes whatever its topics hold: each message counts once, and nothing stops."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import msgspec
import pytest

from flead.contracts.messages import (
    Anomaly,
    DeadLetterReason,
    LocalUpdate,
    TrainingControl,
)
from flead.contracts.messages import Hyperparameters as Settings
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import MESSAGE_BYTES, Topic
from flead.fleet.malformed import Message
from flead.messaging.client import producer
from tests.accounting import (
    Judged,
    Letter,
    assert_anomalies_are_the_anomalous_rows,
    assert_dead_letters_are_the_rejected,
    assert_windows_account_for_rows,
    dead_letters,
    messages_of,
)
from tests.integration.hostile_messages import (
    DEEP,
    MEGABYTE,
    hostile_messages,
    megabyte_messages,
    valid_messages,
)
from tests.integration.training_cluster import INPUTS, TrainingCluster, global_model, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

DEVICES = 200
HOSTILE = 100_000 if os.environ.get("FLEAD_QUICK") else 1_000_000
MEGABYTES = 200
LONG_KEYS = 20
VALID = HOSTILE // 10
AFTERWARDS = 2_000
QUEUE_MESSAGES = 500_000


@dataclass(frozen=True)
class Survivor:
    """The job after all that was sent to it."""

    cluster: TrainingCluster
    job_id: str
    telemetry: Judged
    letters: list[Letter]
    updates: list[LocalUpdate]
    broadcast: list[tuple[Topic, bytes | None]]


@pytest.fixture(scope="module")
def survivor(cluster: TrainingCluster) -> Iterator[Survivor]:
    """Send everything to a running job, and wait until it has taken it."""
    job_id = cluster.submit()
    valid = valid_messages(DEVICES, VALID, seed=11)
    hostile = hostile_messages(12, valid, HOSTILE)
    share = HOSTILE // VALID
    send(
        cluster,
        Topic.TELEMETRY,
        chain(
            chain.from_iterable([row, *islice(hostile, share)] for row in valid),
            megabyte_messages(valid[0], MEGABYTES),
            [(b"k" * MEGABYTE, valid[0][1])] * LONG_KEYS,
        ),
    )
    broadcast = poison()
    for topic, value in broadcast:
        send(cluster, topic, [(b"any", value)])
    good = msgspec.json.encode(global_model(version=3))
    send(cluster, Topic.GLOBAL_UPDATES, [(b"global", good)])
    wait_until(cluster.has_read_everything)
    send(cluster, Topic.TELEMETRY, valid_messages(DEVICES, AFTERWARDS, seed=13))
    telemetry = Judged.of(cluster.kafka, FEATURES)
    wait_until(lambda: rows_in_windows(cluster) >= len(telemetry.rows))
    letters = dead_letters(cluster.kafka, Topic.TELEMETRY)
    updates = list(messages_of(cluster.kafka, Topic.LOCAL_UPDATES, LocalUpdate))
    yield Survivor(cluster, job_id, telemetry, letters, updates, broadcast)
    cluster.cancel(job_id)


def test_no_message_restarts_the_job(survivor: Survivor) -> None:
    assert survivor.telemetry.messages > HOSTILE + VALID
    assert survivor.cluster.restarts(survivor.job_id) == 0
    assert survivor.cluster.failures(survivor.job_id) == []


def test_each_bad_message_is_one_dead_letter_with_the_decoder_s_reason(survivor: Survivor) -> None:
    letters = survivor.letters

    assert len(letters) + len(survivor.telemetry.rows) == survivor.telemetry.messages
    assert_dead_letters_are_the_rejected(letters, survivor.telemetry.rejected)


def test_the_reasons_are_all_that_telemetry_can_have(survivor: Survivor) -> None:
    expected = set(DeadLetterReason) - {DeadLetterReason.FAILED}

    assert set(survivor.telemetry.rejected.values()) == expected


def test_a_megabyte_is_too_large_whatever_is_in_it(survivor: Survivor) -> None:
    large = [letter for letter in survivor.letters if letter.value_bytes >= MEGABYTE]

    assert len(large) == MEGABYTES
    assert {letter.reason for letter in large} == {DeadLetterReason.TOO_LARGE}


def test_each_valid_row_is_in_one_window(survivor: Survivor) -> None:
    assert_windows_account_for_rows(survivor.updates, survivor.telemetry.rows)


def test_each_anomalous_row_is_one_anomaly(survivor: Survivor) -> None:
    anomalies = list(messages_of(survivor.cluster.kafka, Topic.ANOMALIES, Anomaly))

    assert_anomalies_are_the_anomalous_rows(anomalies, survivor.telemetry.rows, FEATURES)


def test_poison_for_the_whole_fleet_is_a_dead_letter_each(survivor: Survivor) -> None:
    for topic in (Topic.GLOBAL_UPDATES, Topic.CONTROL):
        sent = [value for to, value in survivor.broadcast if to == topic]
        letters = {each.offset: each for each in dead_letters(survivor.cluster.kafka, topic)}

        assert sorted(letters) == list(range(len(sent)))
        assert [letters[offset].value_bytes for offset in sorted(letters)] == [
            -1 if value is None else len(value) for value in sent
        ]
        deleting = {letters[offset].reason for offset, value in enumerate(sent) if value is None}
        assert deleting == {DeadLetterReason.TOMBSTONE}


def test_the_job_trains_from_the_next_good_model(survivor: Survivor) -> None:
    updates = survivor.updates

    assert {update.base_version for update in updates} <= {0, 3}
    assert updates[-1].base_version == 3
    assert updates[-1].trained


def rows_in_windows(cluster: TrainingCluster) -> int:
    return sum(update.rows for update in messages_of(cluster.kafka, Topic.LOCAL_UPDATES, Rows))


class Rows(msgspec.Struct):
    rows: int


def poison() -> list[tuple[Topic, bytes | None]]:
    """Values for the broadcast topics that no job must adopt."""
    model = global_model(version=9)

    def changed(**fields: object) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(model, **fields))

    good = msgspec.json.encode(model)
    control = msgspec.json.encode(TrainingControl(1, Settings()))
    nest = b'{"deep":' + b"[" * DEEP + b"]" * DEEP + b","
    garbage = [
        None, b"", b"\xff\xfe", b"{", b"null", b"[]", b'"model"', b"NaN", b"[" * DEEP,
        b"\x00" * (MESSAGE_BYTES - 1024),
    ]  # fmt: skip
    models = [
        changed(weights=[0.1]),
        changed(weights=[0.1] * (INPUTS + 1)),
        changed(weights=[1e300] * INPUTS),
        changed(intercept=-1e101),
        changed(weights=[float("nan")] * INPUTS),
        changed(version=10**30),
        changed(version=0),
        changed(version=2**63 - 1),
        changed(standardizer=msgspec.structs.replace(model.standardizer, mean=[0.0])),
        changed(status="winning"),
        changed(weights=[0.123456789] * (MESSAGE_BYTES // 16)),
        good.replace(b'"intercept":0.0', b'"intercept":1e999'),
        good.replace(b'"intercept":0.0', b'"intercept":NaN'),
        good[: len(good) // 2],
        good + good,
        nest + good[1:],
    ]
    controls = [
        control.replace(b'"revision":1', b'"revision":-1'),
        control.replace(b'"window_rows":', b'"window_rows":0,"window_rows_":'),
        control.replace(b'"alpha":', b'"alpha":1e9,"alpha_":'),
        control.replace(b'"state":"run"', b'"state":"explode"'),
        control.replace(b'"trials":[]', b'"trials":[' + trials(1000) + b"]"),
        nest + control[1:],
    ]
    return [
        *((Topic.GLOBAL_UPDATES, value) for value in (*garbage, *models)),
        *((Topic.CONTROL, value) for value in (*garbage, *controls)),
    ]


def trials(count: int) -> bytes:
    one = b'{"trial":"t","fraction":0.0,"hyperparameters":{}}'
    return b",".join([one] * count)


def send(cluster: TrainingCluster, topic: Topic, messages: Iterable[Message]) -> None:
    client = producer(
        cluster.kafka | {"linger.ms": "50", "queue.buffering.max.messages": str(QUEUE_MESSAGES)},
        report_only_errors=True,
    )
    for key, value in messages:
        while True:
            try:
                client.produce(topic, value, key)
                break
            except BufferError:
                client.poll(0.1)
    assert client.flush(60) == 0
