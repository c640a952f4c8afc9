"""A broken candidate and a bad head on the running stack: devices end up with good weights."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from flead.contracts.messages import ModelStatus
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES
from flead.rounds.promotion import queue_candidate
from flead.rounds.publishing import publish
from flead.stack.home import CHECKOUT
from flead.storage import models
from flead.storage.connection import connect
from flead.storage.locks import Lock, lock_for_transaction
from tests.conftest import run_flead
from tests.system.conftest import FLEET, Resumed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCHEMA = feature_schema(FEATURES)
WAIT_SECONDS = 180


@pytest.fixture(scope="module")
def streaming(resumed: Resumed) -> Iterator[Resumed]:
    """Let a fleet stream into the running job."""
    fleet = subprocess.Popen(
        [sys.executable, "-m", "flead.cli", "simulate", *FLEET],
        cwd=CHECKOUT, env=os.environ | resumed.home.variables,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield resumed
    finally:
        fleet.terminate()
        fleet.wait(30)


@pytest.fixture(scope="module")
def broken(streaming: Resumed) -> int:
    """Send the devices a candidate that says the opposite of the head, ten times as sure."""
    with connect(streaming.addresses.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        pending = models.pending_candidate(cursor, SCHEMA)
        if pending is not None:
            models.set_status(cursor, [pending.model.version], ModelStatus.REJECTED)
        head = models.head(cursor, SCHEMA)
        stored = models.models(cursor, [head])[head]
        model = msgspec.structs.replace(
            stored.model,
            version=models.newest_version(cursor) + 1,
            parent_version=head,
            aggregation_round=0,
            restored_version=None,
            status=ModelStatus.CANDIDATE,
            weights=[-10.0 * weight for weight in stored.model.weights],
            intercept=-10.0 * stored.model.intercept,
            timestamp=int(time.time() * 1000),
        )
        models.insert_model(
            cursor,
            models.StoredModel(
                model, stored.options, stored.input_offsets, stored.hyperparameters_revision,
                "nowhere", "0" * 64,
            ),
        )  # fmt: skip
        queue_candidate(cursor, model)
    publish(streaming.addresses.database_url, streaming.kafka)
    return model.version


def test_a_broken_candidate_never_becomes_the_head(streaming: Resumed, broken: int) -> None:
    wait_until(lambda: status(streaming, broken) != "candidate")

    assert status(streaming, broken) == "rejected"
    [(reason, devices, difference)] = streaming.query(
        "SELECT reason, devices, mean_difference FROM promotion_decisions WHERE version = %s",
        broken,
    )
    assert reason == "worse than its parent on the same rows"
    assert devices >= 20
    assert difference > 0
    assert streaming.query("SELECT count(*) FROM local_models WHERE base_version = %s", broken) == [
        (0,)
    ]


def test_after_a_rollback_devices_train_from_the_good_weights(
    streaming: Resumed, broken: int
) -> None:
    [(good,)] = streaming.query(
        "SELECT min(version) FROM federated_models WHERE feature_schema = %s"
        " AND status = 'promoted'",
        SCHEMA,
    )

    ran = run_flead(streaming.home, "models", "rollback", str(good), "--reason", "a test", "--json")

    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)
    assert done["restored_version"] == good
    wait_until(
        lambda: bool(
            streaming.query(
                "SELECT FROM local_models WHERE base_version = %s AND status = 'accepted' LIMIT 1",
                done["version"],
            )
        )
    )
    assert done["rolled_back_versions"]
    assert {status(streaming, version) for version in done["rolled_back_versions"]} == {
        "rolled_back"
    }
    listed = run_flead(streaming.home, "models", "list", "--limit", "100", "--json")
    rows = {each["version"]: each for each in json.loads(listed.stdout)["models"]}
    assert rows[done["version"]]["restored_version"] == good
    compared = run_flead(
        streaming.home, "models", "diff", str(good), str(done["version"]), "--json"
    )
    assert json.loads(compared.stdout)["distance"] == 0.0


def status(streaming: Resumed, version: int) -> str:
    [(found,)] = streaming.query("SELECT status FROM federated_models WHERE version = %s", version)
    return str(found)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)
