"""Processes killed in the middle of a step: what the next run finds and makes of it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets
from flead.rounds.aggregation import aggregate
from flead.rounds.artifacts import artifact_path
from flead.rounds.publishing import publish

# What a crash leaves is for the transaction to decide, whichever the tables are.
pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("database_server", ["postgresql"], indirect=True),
]

A = np.array([0.5, -1.0, 0.25, 2.0, 1.0])
B = np.array([0.1, 0.2, 0.3, 0.4, -3.0])

OPEN = """
from flead.rounds.opening import open_or_resume
open_or_resume(database_url, kafka, settings, "killed")
"""
AGGREGATE = """
from flead.rounds.aggregation import aggregate
aggregate(database_url, settings, {round})
"""
PUBLISH = """
from flead.rounds.publishing import publish
publish(database_url, kafka)
"""


@pytest.mark.parametrize(
    "step",
    [
        "flead.storage.offsets.store_next_offsets",
        "flead.storage.updates.insert_updates",
        "flead.storage.outbox.add",
    ],
)
def test_a_round_killed_while_it_opens_leaves_nothing_and_is_opened_again(
    federation, make_update, step
):
    before = federation.query("SELECT partition, next_offset FROM stream_offsets ORDER BY 1")
    federation.send(make_update("a", A), make_update("b", B))
    federation.send_raw((b"c", b"{"))
    federation.kill_during(OPEN, step)
    assert federation.query("SELECT FROM aggregation_rounds") == []
    assert federation.query("SELECT FROM local_models") == []
    assert federation.query("SELECT FROM outbox") == []
    assert (
        federation.query("SELECT partition, next_offset FROM stream_offsets ORDER BY 1") == before
    )
    opened = federation.open()
    assert (opened.number, opened.updates, opened.dead_letters) == (1, 2, 1)


def test_a_round_killed_between_artifact_and_commit_makes_the_same_bytes_again(
    federation, make_update
):
    federation.send(make_update("a", A, rows=3), make_update("b", B, rows=7))
    federation.open()
    federation.kill_during(AGGREGATE.format(round=1), "flead.rounds.promotion.write_artifact")
    [artifact] = Path(federation.settings.global_models_dir).iterdir()
    left_behind = artifact.read_bytes()
    assert federation.query("SELECT FROM federated_models") == []
    assert federation.query("SELECT FROM model_head") == []
    assert federation.query("SELECT FROM outbox") == []
    assert federation.query("SELECT state FROM aggregation_rounds") == [("open",)]
    assert federation.query("SELECT DISTINCT status FROM local_models") == [("pending",)]
    assert federation.open().attempts == 2
    assert aggregate(federation.database_url, federation.settings, 1).version == 1
    assert artifact.read_bytes() == left_behind
    assert list(Path(federation.settings.global_models_dir).iterdir()) == [artifact]


def test_a_round_killed_after_the_artifact_of_its_candidate_makes_the_same_bytes_again(
    federation, make_update
):
    federation.settings = msgspec.structs.replace(federation.settings, gate_min_rows=1)
    federation.run_round(make_update("a", A))
    federation.send(make_update("a", B, base=1, scored=(2.5, 3, 1, 5, 1)))
    federation.open()
    federation.kill_during(AGGREGATE.format(round=2), "flead.rounds.promotion.write_artifact")
    artifact = artifact_path(federation.settings.global_models_dir, 2)
    left_behind = artifact.read_bytes()
    assert federation.query("SELECT status FROM federated_models") == [("promoted",)]
    assert aggregate(federation.database_url, federation.settings, 2).version == 2
    assert federation.query(
        "SELECT status, artifact_sha256 FROM federated_models WHERE version = 2"
    ) == [("candidate", hashlib.sha256(left_behind).hexdigest())]
    assert artifact.read_bytes() == left_behind


def test_aggregating_twice_counts_nothing_twice(federation, make_update):
    federation.run_round(make_update("a", A))
    federation.send(make_update("a", B, base=1, scored=(2.5, 3, 1, 5, 1)))
    federation.open()
    first = aggregate(federation.database_url, federation.settings, 2)
    assert aggregate(federation.database_url, federation.settings, 2) == first
    assert federation.query(
        "SELECT version, metrics_rows FROM federated_models ORDER BY version"
    ) == [(1, 10), (2, 0)]
    assert federation.query("SELECT count(*) FROM outbox") == [(2,)]


def test_a_publisher_killed_after_kafka_took_the_messages_repeats_them_in_order(
    federation, make_update
):
    start = end_offsets(federation.kafka, Topic.GLOBAL_UPDATES)
    for version in range(3):
        federation.run_round(make_update("a", A + version, base=version))
    federation.kill_during(PUBLISH, "flead.rounds.publishing.produce")
    assert federation.query("SELECT DISTINCT state FROM outbox") == [("ready",)]
    assert publish(federation.database_url, federation.kafka) == 3
    assert publish(federation.database_url, federation.kafka) == 0
    values = [record.value for record in federation.published(Topic.GLOBAL_UPDATES, start)]
    artifacts = [
        Path(path).read_bytes()
        for (path,) in federation.query("SELECT artifact_path FROM federated_models ORDER BY 1")
    ]
    assert values == artifacts * 2
    assert federation.query("SELECT DISTINCT state FROM outbox") == [("published",)]


def test_callers_at_the_same_time_share_one_round(federation, make_update):
    federation.send(*[make_update(f"device-{number}", A) for number in range(20)])
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: federation.open().number, range(3)))
        made = list(
            pool.map(lambda _: aggregate(federation.database_url, federation.settings, 1), range(3))
        )
    assert opened == [1, 1, 1]
    assert [completed.version for completed in made] == [1, 1, 1]
    assert federation.query("SELECT count(*) FROM local_models") == [(20,)]
