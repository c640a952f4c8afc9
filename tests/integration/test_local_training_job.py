"""The training job on a real broker and a real session cluster, without Airflow."""

import json
from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import LocalUpdate, ModelFeedback, TrainingControl
from flead.contracts.simulation import FEATURES
from flead.contracts.topics import Topic
from flead.learning.fleet import FleetState
from flead.learning.trainer import LocalTrainer
from flead.messaging.producing import OutgoingMessage, produce
from flead.messaging.reading import read_committed
from flead.stack.home import Home
from tests.accounting import Judged, messages_of
from tests.conftest import run_flead
from tests.integration.training_cluster import ALL, TrainingCluster, global_model, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def job(cluster: TrainingCluster) -> Iterator[str]:
    job_id = cluster.submit()
    yield job_id
    cluster.cancel(job_id)


def test_every_message_is_trained_or_a_dead_letter_with_its_position(
    job: str, cluster: TrainingCluster, own_home: Home
) -> None:
    sent = run_flead(
        own_home, "simulate", "--devices", "30", "--rate", "12000/min", "--rows", "3000",
        "--malformed-rate", "0.05", "--seed", "5", "--json",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    fleet = json.loads(sent.stdout)

    def accounted() -> bool:
        updates = cluster.values(Topic.LOCAL_UPDATES)
        return sum(update["rows"] for update in updates) >= fleet["rows"]

    wait_until(accounted)
    updates = cluster.values(Topic.LOCAL_UPDATES)
    letters = cluster.values(Topic.TELEMETRY_DLQ)
    sent_at = {
        (record.partition, record.offset)
        for record in read_committed(cluster.kafka, Topic.TELEMETRY, {}, ALL).records
    }
    rejected_at = {(letter["partition"], letter["offset"]) for letter in letters}
    trained: Counter[int] = Counter()
    for update in updates:
        trained[update["input_partition"]] += update["offset_sum"]

    assert fleet["malformed"] > 0
    assert len(rejected_at) == len(letters) == fleet["malformed"]
    assert sum(update["rows"] for update in updates) == fleet["rows"]
    for partition in {partition for partition, _ in sent_at}:
        valid = [o for p, o in sent_at - rejected_at if p == partition]
        assert trained[partition] == sum(valid)


def test_updates_equal_those_of_the_trainer_that_experiments_run_to_the_last_bit(
    job: str, cluster: TrainingCluster
) -> None:
    rows = Judged.of(cluster.kafka, FEATURES).rows
    updates = list(messages_of(cluster.kafka, Topic.LOCAL_UPDATES, LocalUpdate))
    fleet = FleetState(None, None, TrainingControl(0, cluster.deployment.hyperparameters))

    assert len(updates) > 50
    for number, device in enumerate(rows.devices):
        trainer = LocalTrainer(FEATURES)
        left = np.flatnonzero(rows.device_index == number)
        for update in (each for each in updates if each.device_id == device):
            window, left = left[: update.rows], left[update.rows :]
            outcome = trainer.process(rows.select(window), 0, fleet)
            outcome.extend(trainer.flush(0, fleet))
            (expected,) = outcome.updates
            same = {
                name: getattr(update, name) for name in ("closed_by", "timestamp", "feature_schema")
            }
            same["hyperparameters_revision"] = update.hyperparameters_revision
            assert update == msgspec.structs.replace(expected, **same)
        assert not len(left)


def test_a_poisoned_global_model_is_a_dead_letter_and_the_next_good_one_is_adopted(
    job: str, cluster: TrainingCluster, own_home: Home
) -> None:
    poison = b'{"version": "seven"}'
    wrong_length = msgspec.json.encode(
        msgspec.structs.replace(global_model(version=4), weights=[0.1])
    )
    good = msgspec.json.encode(global_model(version=3))
    older = msgspec.json.encode(global_model(version=2))
    messages = [
        OutgoingMessage(Topic.GLOBAL_UPDATES, b"global", value)
        for value in (poison, wrong_length, good, older)
    ]
    produce(cluster.kafka, messages)

    def adopted() -> bool:
        run_flead(own_home, "simulate", "--devices", "5", "--rate", "6000/min", "--rows", "100")
        updates = cluster.values(Topic.LOCAL_UPDATES)
        return any(update["base_version"] == 3 for update in updates)

    wait_until(adopted)
    letter, short = cluster.values(Topic.GLOBAL_UPDATES_DLQ)
    bases = [update["base_version"] for update in cluster.values(Topic.LOCAL_UPDATES)]

    assert (letter["topic"], letter["offset"]) == (Topic.GLOBAL_UPDATES, 0)
    assert letter["reason"] == "invalid"
    assert short["offset"] == 1
    assert "length" in short["detail"]
    assert set(bases) == {0, 3}
    assert cluster.failures(job) == []


def test_released_feedback_lowers_a_devices_rate_and_what_does_not_validate_is_a_dead_letter(
    job: str, cluster: TrainingCluster, own_home: Home
) -> None:
    def rates() -> list[float]:
        run_flead(own_home, "simulate", "--devices", "5", "--rate", "6000/min", "--rows", "200")
        updates = cluster.values(Topic.LOCAL_UPDATES)
        return [u["learning_rate"] for u in updates if u["device_id"] == device]

    # One of those that send: partitions are read in any order, and others have sent before.
    records = read_committed(cluster.kafka, Topic.LOCAL_UPDATES, {}, ALL).records
    newest = max(records, key=lambda record: record.timestamp)
    device = msgspec.json.decode(newest.value or b"")["device_id"]
    before = rates()
    bad = [
        ModelFeedback(device, version, "run", 0, 10, 0.9, 0.1, 99.0, 0.5) for version in (1, 2, 3)
    ]
    named = device.encode()
    messages = [
        OutgoingMessage(Topic.FEEDBACK, named, b'{"device_id": 7}'),
        OutgoingMessage(Topic.FEEDBACK, b"another", msgspec.json.encode(bad[0])),
        *(OutgoingMessage(Topic.FEEDBACK, named, msgspec.json.encode(each)) for each in bad),
    ]
    produce(cluster.kafka, messages)

    # Three times halved, whatever the device itself made of it before.
    wait_until(lambda: min(rates()) <= max(min(before) / 4, before[0] / 8 + 1e-9))

    letters = cluster.values(Topic.FEEDBACK_DLQ)
    assert {(letter["topic"], letter["reason"]) for letter in letters} == {
        (Topic.FEEDBACK, "invalid"), (Topic.FEEDBACK, "key_mismatch"),
    }  # fmt: skip
    assert len(letters) == 2
    assert cluster.failures(job) == []


def test_open_windows_of_a_savepoint_close_though_no_row_comes(
    job: str, cluster: TrainingCluster, own_home: Home
) -> None:
    # So long that they are open when the job is stopped, also on a slow machine.
    patient = cluster.submit(cluster.stop(job), window_seconds=20)
    try:
        sent = run_flead(
            own_home, "simulate", "--devices", "30", "--rate", "30000/min", "--rows", "90"
        )
        assert sent.returncode == 0, sent.stderr
        wait_until(cluster.has_read_everything)
        savepoint = cluster.stop(patient)
    finally:
        cluster.cancel(patient)
    before = cluster.rows_in_windows()
    topic = read_committed(cluster.kafka, Topic.TELEMETRY, {}, ALL).records
    letters = cluster.values(Topic.TELEMETRY_DLQ)
    restored = cluster.submit(savepoint)

    try:
        wait_until(lambda: cluster.rows_in_windows() >= len(topic) - len(letters))
        assert before < cluster.rows_in_windows() == len(topic) - len(letters)
    finally:
        cluster.cancel(restored)
