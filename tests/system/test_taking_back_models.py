"""A broken candidate and a bad head on the running stack: devices end up with good weights."""

import json
import time
from datetime import UTC, datetime

import msgspec
import pytest

from flead.contracts.messages import GlobalModel, ModelStatus
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES
from flead.rounds.promotion import promote, queue_candidate
from flead.rounds.publishing import publish
from flead.settings import Settings
from flead.storage import models, promotions
from flead.storage.connection import Cursor, connect
from flead.storage.locks import Lock, lock_for_transaction
from tests.conftest import run_flead
from tests.system.conftest import GATE_SECONDS, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCHEMA = feature_schema(FEATURES)
WAIT_SECONDS = 180


@pytest.fixture(scope="module")
def broken(streaming: Resumed) -> int:
    """Send the devices a candidate that is broken."""
    with connect(streaming.addresses.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        model = insert_broken(cursor)
        queue_candidate(cursor, model, settings_of(streaming))
    publish(streaming.addresses.database_url, streaming.kafka)
    return model.version


@pytest.fixture(scope="module")
def bad_head(streaming: Resumed, broken: int) -> int:
    """Make a broken version the head, as a gate that let it through would, and send it."""
    wait_until(lambda: not was_restored(streaming), GATE_SECONDS + 1)
    with connect(streaming.addresses.database_url) as connection, connection.cursor() as cursor:
        lock_for_transaction(cursor, Lock.ROUNDS)
        model = insert_broken(cursor)
        promote(cursor, model, settings_of(streaming), datetime.now(UTC))
    publish(streaming.addresses.database_url, streaming.kafka)
    return model.version


def settings_of(stack: Resumed) -> Settings:
    """Return settings that lead to the models of the stack."""
    return msgspec.structs.replace(
        Settings.from_environment({}), global_models_dir=str(stack.home.models)
    )


def was_restored(stack: Resumed) -> bool:
    """Tell whether rounds have just taken a head back, and so would not take back another yet."""
    with connect(stack.addresses.database_url) as connection, connection.cursor() as cursor:
        return promotions.restored_within(cursor, SCHEMA, GATE_SECONDS)


def insert_broken(cursor: Cursor) -> GlobalModel:
    """Store a candidate that says the opposite of the head, ten times as sure."""
    pending = models.pending_candidate(cursor, SCHEMA)
    if pending is not None:
        models.set_status(cursor, [pending.model.version], ModelStatus.REJECTED)
    head = models.head(cursor, SCHEMA)
    assert head is not None
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
    return model


def test_a_broken_candidate_never_becomes_the_head(streaming: Resumed, broken: int) -> None:
    wait_until(lambda: status(streaming, broken) != "candidate", WAIT_SECONDS)

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


def test_a_bad_head_is_rolled_back_by_the_rounds(streaming: Resumed, bad_head: int) -> None:
    wait_until(
        lambda: status(streaming, bad_head) != "promoted",
        WAIT_SECONDS,
        lambda: streaming.query("SELECT * FROM promotion_decisions ORDER BY id DESC LIMIT 9"),
    )

    assert status(streaming, bad_head) == "rolled_back"
    [(good, reason, decided_by)] = streaming.query(
        "SELECT reference_version, reason, decided_by FROM promotion_decisions"
        " WHERE version = %s AND decision = 'rolled_back'",
        bad_head,
    )
    assert reason == "its prequential loss is worse than its parent's on the same devices"
    assert decided_by == "aggregation_round"
    [(replacement, of_good)] = streaming.query(
        "SELECT replacement.version, replacement.weights = good.weights"
        " FROM federated_models AS replacement JOIN federated_models AS good"
        "     ON good.version = replacement.restored_version"
        " WHERE good.version = %s AND replacement.version > %s",
        good,
        bad_head,
    )
    assert of_good
    wait_until(lambda: is_trained_from(streaming, replacement), WAIT_SECONDS)
    # What devices had begun from the bad head arrives after it was taken back.
    assert streaming.query(
        "SELECT DISTINCT local_models.status, reject_reason FROM local_models"
        " JOIN aggregation_rounds ON round = aggregation_round"
        " WHERE base_version = %s AND completed_at >= ("
        "     SELECT created_at FROM federated_models WHERE version = %s)",
        bad_head,
        replacement,
    ) == [("rejected", "rolled_back_base")]


def test_after_a_rollback_devices_train_from_the_good_weights(
    streaming: Resumed, bad_head: int
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
    wait_until(lambda: is_trained_from(streaming, done["version"]), WAIT_SECONDS)
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


def is_trained_from(streaming: Resumed, version: int) -> bool:
    return bool(
        streaming.query(
            "SELECT FROM local_models WHERE base_version = %s AND status = 'accepted' LIMIT 1",
            version,
        )
    )


def status(streaming: Resumed, version: int) -> str:
    [(found,)] = streaming.query("SELECT status FROM federated_models WHERE version = %s", version)
    return str(found)
