"""Feature lists that take turns: each has models of its own, and none is lost."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import GlobalModel
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets
from flead.rounds.lineage import queue_head
from flead.rounds.publishing import publish
from flead.storage.connection import connect
from flead.storage.rounds import RoundState

pytestmark = pytest.mark.servers

A = np.array([0.5, -1.0, 0.25, 2.0, 1.0])
B = np.array([0.1, 0.2, 0.3, 0.4, -3.0])


def heads(federation):
    return dict(federation.query("SELECT feature_schema, version FROM model_head"))


def queue(federation, features):
    with connect(federation.database_url) as connection, connection.cursor() as cursor:
        return queue_head(cursor, features)


def grow(federation, make_update, versions):
    """Make so many versions of `x`, each from the one before; the devices learn A each time."""
    for base in range(versions):
        federation.run_round(make_update("a", (base + 1) * A, base=base))


class TestAnotherFeatureList:
    def test_has_a_first_model_without_a_parent_and_a_head_of_its_own(
        self, federation, make_update
    ):
        grow(federation, make_update, 2)

        federation.deploy(["y"])
        federation.run_round(make_update("a", B, features=["y"]))

        assert federation.query(
            "SELECT version, parent_version, weights[1] FROM federated_models ORDER BY version"
        )[-1] == (3, 0, B[0])
        assert heads(federation) == {feature_schema(["x"]): 2, feature_schema(["y"]): 3}

    def test_rejects_what_devices_of_the_one_before_still_send_by_name(
        self, federation, make_update
    ):
        grow(federation, make_update, 1)
        scored = federation.query(
            "SELECT metrics_rows, global_accuracy FROM federated_models WHERE version = 1"
        )

        federation.deploy(["y"])
        late = make_update("a", B, base=1, scored=(5.0, 1, 2, 3, 4))
        completed = federation.run_round(late)

        assert (completed.state, completed.version) == (RoundState.EMPTY, None)
        assert completed.rejected == {"unknown_schema": 1}
        assert federation.query(
            "SELECT status, reject_reason FROM local_models WHERE aggregation_round = 2"
        ) == [("rejected", "unknown_schema")]
        assert scored == federation.query(
            "SELECT metrics_rows, global_accuracy FROM federated_models WHERE version = 1"
        )

    def test_keeps_the_rows_of_the_one_before_out_of_its_standardizer(
        self, federation, make_update, make_history
    ):
        grow(federation, make_update, 1)

        federation.deploy(["y"])
        federation.run_round(make_update("b", B, features=["y"]))

        [(standardizer,)] = federation.query(
            "SELECT standardizer FROM federated_models WHERE version = 2"
        )
        np.testing.assert_allclose(standardizer["mean"], make_history("b").mean(axis=0))


class TestTheFirstFeatureListAgain:
    """Its devices start from nothing, and the topic ends with a model of the other list."""

    @pytest.fixture
    def returned(self, federation, make_update):
        grow(federation, make_update, federation.settings.max_staleness + 1)
        federation.deploy(["y"])
        federation.run_round(make_update("a", B, features=["y"]))
        federation.deploy(["x"])
        publish(federation.database_url, federation.kafka)
        return federation

    def test_goes_on_from_its_head(self, returned, make_update):
        head = returned.settings.max_staleness + 1
        completed = returned.run_round(make_update("a", head * A + B, base=head))

        assert returned.query(
            "SELECT parent_version FROM federated_models WHERE version = %s", completed.version
        ) == [(head,)]
        assert heads(returned)[feature_schema(["x"])] == completed.version == head + 2

    def test_would_have_devices_that_know_no_model_rejected_for_ever(self, returned, make_update):
        completed = returned.run_round(make_update("a", A, base=0))

        assert (completed.version, completed.rejected) == (None, {"stale_base": 1})

    def test_sends_its_head_to_the_devices_again_to_the_byte(self, returned):
        head = returned.settings.max_staleness + 1
        start = end_offsets(returned.kafka, Topic.GLOBAL_UPDATES)

        assert queue(returned, ["x"]) == head

        assert publish(returned.database_url, returned.kafka) == 1
        [record] = returned.published(Topic.GLOBAL_UPDATES, start)
        assert record.key == b"global"
        assert msgspec.json.decode(record.value, type=GlobalModel).version == head
        [(path,)] = returned.query(
            "SELECT artifact_path FROM federated_models WHERE version = %s", head
        )
        assert record.value == Path(path).read_bytes()

    def test_sends_nothing_that_the_topic_ends_with_already(self, returned):
        assert queue(returned, ["y"]) is None
        assert queue(returned, ["x"]) is not None
        assert queue(returned, ["x"]) is None
        assert queue(returned, ["y"]) is not None

    def test_sends_nothing_where_there_is_no_model(self, returned):
        assert queue(returned, ["z"]) is None
