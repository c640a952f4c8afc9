"""Rounds from messages in Kafka to a model on its way to the devices.

What opens and replays a round runs on both databases; the rest of their statements are those of the
storage tests, which do.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from flead.cli.main import app
from flead.contracts.messages import (
    DeadLetter,
    DeadLetterReason,
    GlobalModel,
    ModelStatus,
)
from flead.contracts.schema import feature_schema
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets
from flead.rounds.aggregation import aggregate
from flead.rounds.lineage import NothingDeployedError
from flead.rounds.publishing import publish
from flead.rounds.replay import NotReplayableError, ReplayMismatchError, replay
from flead.storage import retention
from flead.storage.rounds import RoundState

pytestmark = pytest.mark.servers
on_postgresql = pytest.mark.parametrize("database_server", ["postgresql"], indirect=True)

A = np.array([0.5, -1.0, 0.25, 2.0, 1.0])
B = np.array([0.1, 0.2, 0.3, 0.4, -3.0])
C = np.array([1 / 3, 2 / 3, -1e-9, 7.0, 0.0])


def model_of(federation, version):
    [(weights, intercept)] = federation.query(
        "SELECT weights, intercept FROM federated_models WHERE version = %s", version
    )
    return np.array([*weights, intercept])


class TestOpening:
    def test_a_round_holds_the_updates_that_could_be_read(self, federation, make_update):
        start = end_offsets(federation.kafka, Topic.LOCAL_UPDATES)
        federation.send(*[make_update(f"device-{number}", A) for number in range(30)])
        opened = federation.open("run-1")
        assert (opened.number, opened.state, opened.updates) == (1, RoundState.OPEN, 30)
        assert (opened.dag_run_id, opened.attempts) == ("run-1", 1)
        assert opened.start_offsets == start
        assert opened.end_offsets == end_offsets(federation.kafka, Topic.LOCAL_UPDATES)
        assert federation.query(
            "SELECT count(DISTINCT device_id), min(status), max(status) FROM local_models"
        ) == [(30, "pending", "pending")]

    def test_an_unfinished_round_is_resumed_before_anything_is_read(self, federation, make_update):
        federation.send(make_update("a", A))
        opened = federation.open("run-1")
        federation.send(make_update("b", B))
        resumed = federation.open("run-2")
        assert (resumed.number, resumed.updates, resumed.attempts) == (1, 1, 2)
        assert resumed.end_offsets == opened.end_offsets
        assert federation.query("SELECT device_id FROM local_models") == [("a",)]

    def test_a_task_that_runs_twice_gets_the_round_that_its_run_finished(
        self, federation, make_update
    ):
        federation.send(make_update("a", A))
        opened = federation.open("run-1")
        completed = aggregate(federation.database_url, federation.settings, opened.number)
        federation.send(make_update("b", B))
        assert federation.open("run-1") == completed
        assert federation.open("run-2").number == 2

    def test_nothing_to_read_opens_no_round(self, federation):
        assert federation.open() is None
        assert federation.query("SELECT FROM aggregation_rounds") == []

    def test_what_exceeds_the_limit_is_left_to_the_next_round(self, federation, make_update):
        federation.settings = msgspec.structs.replace(federation.settings, max_updates_per_round=4)
        sizes = []
        federation.send(*[make_update(f"device-{number}", A) for number in range(10)])
        while (opened := federation.open()) is not None:
            sizes.append(opened.updates)
            aggregate(federation.database_url, federation.settings, opened.number)
        assert sizes == [4, 4, 2]
        assert federation.query("SELECT count(*), count(DISTINCT device_id) FROM local_models") == [
            (10, 10)
        ]

    def test_messages_that_do_not_validate_become_dead_letters(self, federation, make_update):
        start = end_offsets(federation.kafka, Topic.LOCAL_UPDATES_DLQ)
        valid = msgspec.json.encode(make_update("a", A))
        huge = valid.replace(b'"model_version":1', b'"model_version":9223372036854775808')
        nul = msgspec.json.encode(make_update("a\0", A))
        bad = {
            b"{": DeadLetterReason.MALFORMED,
            b"\xff": DeadLetterReason.MALFORMED,
            valid.replace(b'"a"', b'"\xff"'): DeadLetterReason.MALFORMED,
            b"": DeadLetterReason.EMPTY,
            b"{}": DeadLetterReason.INVALID,
            huge: DeadLetterReason.INVALID,
            nul: DeadLetterReason.INVALID,
        }
        federation.send_raw(*[(b"a\0" if value is nul else b"a", value) for value in bad])
        federation.send_raw((b"b", valid), (b"a", valid))
        opened = federation.open()
        assert (opened.updates, opened.dead_letters) == (1, len(bad) + 1)
        assert publish(federation.database_url, federation.kafka) == len(bad) + 1
        letters = [
            msgspec.json.decode(record.value, type=DeadLetter)
            for record in federation.published(Topic.LOCAL_UPDATES_DLQ, start)
        ]
        expected = {hashlib.sha256(value).hexdigest(): reason for value, reason in bad.items()}
        expected[hashlib.sha256(valid).hexdigest()] = DeadLetterReason.KEY_MISMATCH
        assert {letter.value_sha256: letter.reason for letter in letters} == expected


@on_postgresql
class TestAggregation:
    def test_the_first_version_is_the_average_weighted_by_rows(self, federation, make_update):
        completed = federation.run_round(
            make_update("a", A, rows=10), make_update("b", B, rows=30), make_update("c", C, rows=1)
        )
        assert (completed.state, completed.version) == (RoundState.AGGREGATED, 1)
        assert (completed.accepted, completed.rejected) == (3, {})
        expected = np.average([A, B, C], axis=0, weights=[10, 30, 1])
        np.testing.assert_allclose(model_of(federation, 1), expected, rtol=0, atol=1e-9)
        assert federation.query(
            "SELECT device_id, status, aggregation_weight FROM local_models ORDER BY device_id"
        ) == [("a", "accepted", 10 / 41), ("b", "accepted", 30 / 41), ("c", "accepted", 1 / 41)]

    def test_an_update_counts_by_what_it_learned_since_its_own_base(self, federation, make_update):
        federation.run_round(make_update("a", A), make_update("b", B))
        federation.run_round(make_update("a", A + 1, base=1))
        first, second = model_of(federation, 1), model_of(federation, 2)
        federation.run_round(
            make_update("a", C, base=2, rows=5),
            make_update("b", B, base=1, rows=10),
            make_update("c", A, base=0, rows=20),
        )
        expected = second + (5 * (C - second) + 10 * (B - first) + 20 * A) / 35
        np.testing.assert_allclose(model_of(federation, 3), expected, rtol=0, atol=1e-9)
        assert federation.query(
            "SELECT version, parent_version, aggregation_round FROM federated_models ORDER BY 1"
        ) == [(1, 0, 1), (2, 1, 2), (3, 2, 3)]
        assert federation.query("SELECT feature_schema, version FROM model_head") == [
            (feature_schema(["x"]), 3)
        ]

    def test_the_standardizer_is_that_of_all_rows_of_all_devices_so_far(
        self, federation, make_update, make_history
    ):
        federation.run_round(make_update("a", A), make_update("b", B))
        federation.run_round(make_update("b", B, number=1), make_update("c", C))
        rows = np.concatenate([make_history("a"), make_history("b", 1), make_history("c")])
        [(standardizer,)] = federation.query(
            "SELECT standardizer FROM federated_models WHERE version = 2"
        )
        np.testing.assert_allclose(standardizer["count"], len(rows))
        np.testing.assert_allclose(standardizer["mean"], rows.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(standardizer["m2"], rows.var(axis=0) * len(rows), atol=1e-9)

    def test_figures_belong_to_the_version_that_was_scored(self, federation, make_update):
        figures = (
            "SELECT global_accuracy, global_loss, metrics_rows FROM federated_models"
            " ORDER BY version"
        )
        start = end_offsets(federation.kafka, Topic.GLOBAL_UPDATES)
        federation.run_round(make_update("a", A))
        assert federation.query(figures) == [(None, None, 0)]
        federation.run_round(
            make_update("a", A, base=1, rows=10, scored=(2.5, 3, 1, 5, 1)),
            make_update("b", B, base=1, rows=20, scored=(5.0, 4, 2, 14, 0)),
            make_update("c", C, base=0, rows=20),
        )
        assert federation.query(figures) == [(26 / 30, 7.5 / 30, 30), (None, None, 0)]
        federation.run_round(make_update("a", A, base=1, rows=10, scored=(1.5, 2, 0, 8, 0)))
        unmeasured = (None, None, 0)
        assert federation.query(figures) == [(36 / 40, 9.0 / 40, 40), unmeasured, unmeasured]
        publish(federation.database_url, federation.kafka)
        sent = [
            msgspec.json.decode(record.value, type=GlobalModel)
            for record in federation.published(Topic.GLOBAL_UPDATES, start)
        ]
        # the parent's, as measured by the round that made the version
        assert [(model.global_accuracy, model.global_loss) for model in sent] == [
            (None, None),
            (26 / 30, 7.5 / 30),
            (None, None),
        ]

    def test_file_message_and_hash_are_of_the_same_bytes(self, federation, make_update):
        start = end_offsets(federation.kafka, Topic.GLOBAL_UPDATES)
        federation.run_round(make_update("a", A, rows=10), make_update("b", B, rows=20))
        publish(federation.database_url, federation.kafka)
        [record] = federation.published(Topic.GLOBAL_UPDATES, start)
        [(path, sha256)] = federation.query(
            "SELECT artifact_path, artifact_sha256 FROM federated_models"
        )
        assert Path(path).parent == Path(federation.settings.global_models_dir)
        assert Path(path).read_bytes() == record.value
        assert hashlib.sha256(record.value).hexdigest() == sha256
        assert record.key == b"global"
        model = msgspec.json.decode(record.value, type=GlobalModel)
        assert (model.version, model.parent_version, model.aggregation_round) == (1, 0, 1)
        assert (model.num_devices, model.num_updates, model.total_samples) == (2, 2, 30)
        assert (model.status, model.feature_names) == (ModelStatus.PROMOTED, ["x"])

    def test_input_offsets_are_the_highest_of_the_version_and_its_ancestors(
        self, federation, make_update
    ):
        federation.run_round(
            make_update("a", A, partition=0, first_offset=500, rows=10),
            make_update("b", B, partition=3, first_offset=7, rows=10),
        )
        federation.run_round(
            make_update("c", A, partition=0, first_offset=100, rows=10),
            make_update("d", B, partition=1, first_offset=40, rows=2),
        )
        assert federation.query("SELECT input_offsets FROM federated_models ORDER BY version") == [
            ({"0": 509, "3": 16},),
            ({"0": 509, "1": 41, "3": 16},),
        ]

    def test_what_is_not_plausible_is_kept_with_its_reason_and_not_averaged(
        self, federation, make_update
    ):
        completed = federation.run_round(
            make_update("a", A),
            make_update("far", A * 1_000),
            make_update("short", A[:3]),
            make_update("ahead", A, base=9),
            make_update("other", A, features=["y"]),
            make_update("idle", None, trained=False, samples_processed=0),
        )
        reasons = {
            "ahead": "unknown_base",
            "far": "norm",
            "idle": "not_trained",
            "other": "unknown_schema",
            "short": "dimension",
        }
        assert (completed.accepted, completed.rejected) == (1, dict.fromkeys(reasons.values(), 1))
        assert (
            dict(
                federation.query(
                    "SELECT device_id, reject_reason FROM local_models WHERE status = 'rejected'"
                )
            )
            == reasons
        )
        np.testing.assert_array_equal(model_of(federation, 1), A)

    def test_nothing_accepted_makes_no_version(self, federation, make_update):
        completed = federation.run_round(make_update("other", A, features=["y"]))
        assert (completed.state, completed.version) == (RoundState.EMPTY, None)
        assert completed.rejected == {"unknown_schema": 1}
        assert federation.query("SELECT FROM federated_models") == []
        assert publish(federation.database_url, federation.kafka) == 0
        assert federation.run_round(make_update("a", A)).number == 2

    def test_another_feature_list_starts_from_zero_and_versions_go_on(
        self, federation, make_update
    ):
        federation.run_round(make_update("a", A))
        federation.run_round(make_update("a", B, base=1))
        federation.deploy(["y"])
        completed = federation.run_round(
            make_update("a", C, features=["y"]), make_update("b", A, base=2)
        )
        assert (completed.version, completed.rejected) == (3, {"unknown_schema": 1})
        np.testing.assert_array_equal(model_of(federation, 3), C)
        federation.deploy(["x"])
        completed = federation.run_round(make_update("a", B + 1, base=2))
        assert completed.version == 4
        assert federation.query(
            "SELECT parent_version FROM federated_models WHERE version IN (3, 4) ORDER BY version"
        ) == [(0,), (2,)]
        np.testing.assert_allclose(model_of(federation, 4), B + 1, rtol=0, atol=1e-9)

    def test_without_a_deployment_the_newest_head_says_what_is_aggregated(
        self, federation, make_update
    ):
        federation.run_round(make_update("a", A))
        federation.query("DELETE FROM training_deployments RETURNING id")
        assert federation.run_round(make_update("a", B, base=1)).version == 2

    def test_a_suspended_deployment_says_what_is_aggregated_until_it_is_resumed(
        self, federation, make_update
    ):
        federation.run_round(make_update("a", A))
        federation.deploy(["y"])
        federation.run_round(make_update("a", C, features=["y"]))
        federation.deploy(["x"])
        federation.query(
            "UPDATE training_deployments SET status = 'suspended' WHERE status = 'active'"
            " RETURNING id"
        )
        assert federation.run_round(make_update("a", B, base=1)).version == 3

    def test_without_deployment_and_model_the_round_waits(self, federation, make_update):
        federation.query("DELETE FROM training_deployments RETURNING id")
        federation.send(make_update("a", A))
        number = federation.open().number
        with pytest.raises(NothingDeployedError, match="deploy_training"):
            aggregate(federation.database_url, federation.settings, number)
        federation.deploy(["x"])
        assert federation.open().number == number
        assert aggregate(federation.database_url, federation.settings, number).version == 1

    def test_an_unknown_round_is_an_error(self, federation):
        with pytest.raises(LookupError, match="no aggregation round 5"):
            aggregate(federation.database_url, federation.settings, 5)


class TestReplay:
    def test_every_round_replays_to_its_bytes_when_others_have_followed(
        self, federation, make_update
    ):
        federation.run_round(make_update("a", A), make_update("b", B, rows=7))
        federation.run_round(
            make_update("a", C, base=1, number=1, rows=7, scored=(1 / 3, 2, 1, 3, 1)),
            make_update("b", A, base=0, number=1),
            make_update("far", A * 1_000),
        )
        federation.run_round(make_update("b", B, base=2, number=2), make_update("c", C, base=1))
        for number, path in federation.query(
            "SELECT aggregation_round, artifact_path FROM federated_models ORDER BY version"
        ):
            assert replay(federation.database_url, number) == Path(path).read_bytes()

    @on_postgresql
    def test_each_round_replays_with_the_strategy_that_made_it(self, federation, make_update):
        strategies = [("fedmedian", {}), ("fedtrimmedavg", {"beta": 0.34}), ("fedavg", {})]
        for base, (strategy, options) in enumerate(strategies):
            federation.settings = msgspec.structs.replace(
                federation.settings, strategy=strategy, strategy_options=options
            )
            federation.run_round(
                make_update("a", A, base=base, number=base, rows=7),
                make_update("b", B + base / 3, base=base, number=base),
                make_update("b", B / 7, base=base, number=base, rows=9),
                make_update("c", C * 3, number=base),
            )

        made = federation.query(
            "SELECT strategy, options, artifact_path FROM federated_models ORDER BY version"
        )
        assert [strategy for strategy, _, _ in made] == [strategy for strategy, _ in strategies]
        assert made[1][1] == {"server_learning_rate": 1.0, "beta": 0.34}
        for number, (_, _, path) in enumerate(made, 1):
            assert replay(federation.database_url, number) == Path(path).read_bytes()
        shares = federation.query(
            "SELECT sum(aggregation_weight) FROM local_models GROUP BY aggregation_round"
        )
        assert shares == [(pytest.approx(1.0, rel=1e-14),)] * 3

    def test_a_changed_update_does_not_replay(self, federation, make_update):
        federation.run_round(make_update("a", A))
        federation.query("UPDATE local_models SET intercept = intercept + 1e-12 RETURNING 1")
        with pytest.raises(ReplayMismatchError, match="round 1 does not replay to version 1"):
            replay(federation.database_url, 1)

    def test_a_round_whose_updates_are_gone_says_so(self, federation, make_update):
        federation.run_round(make_update("a", A), make_update("b", B))
        federation.query("DELETE FROM local_models WHERE device_id = 'a' RETURNING 1")
        with pytest.raises(LookupError, match="2 accepted updates, of which 1 are stored"):
            replay(federation.database_url, 1)

    def test_an_empty_round_has_nothing_to_replay(self, federation, make_update):
        federation.run_round(make_update("other", A, features=["y"]))
        with pytest.raises(LookupError, match="round 1 made no version"):
            replay(federation.database_url, 1)

    @on_postgresql
    def test_rounds_within_retention_replay_when_a_device_was_silent_since_before(
        self, federation, make_update, monkeypatch
    ):
        monkeypatch.setattr(retention, "REACH_ROUNDS", 1)
        federation.run_round(make_update("a", A), make_update("silent", B))
        federation.run_round(make_update("a", C, base=1, number=1))
        federation.run_round(
            make_update("a", B, base=2, number=2), make_update("silent", A, base=1, number=1)
        )
        long_ago = datetime.now(UTC) - timedelta(days=10)
        federation.query(
            "UPDATE local_models SET kafka_timestamp = %s WHERE aggregation_round = 1 RETURNING 1",
            long_ago,
        )
        federation.query(
            "UPDATE aggregation_rounds SET opened_at = %s WHERE round = 1 RETURNING 1", long_ago
        )
        settings = msgspec.structs.replace(federation.settings, tuning_versions=1)

        lost = retention.expire_updates(federation.database_url, settings, datetime.now(UTC))

        assert lost == {"local_models": 2}
        stored = federation.query("SELECT artifact_path FROM federated_models ORDER BY version")
        for number in (2, 3):
            artifact = Path(stored[number - 1][0]).read_bytes()
            assert replay(federation.database_url, number) == artifact
        with pytest.raises(NotReplayableError, match="past their retention"):
            replay(federation.database_url, 1)

    def test_a_round_whose_version_or_parent_is_gone_says_so(self, federation, make_update):
        federation.run_round(make_update("a", A))
        federation.run_round(make_update("a", B, base=1, number=1))
        federation.query("TRUNCATE promotion_decisions; SELECT 1")
        federation.query("DELETE FROM federated_models WHERE version = 1 RETURNING 1")
        with pytest.raises(NotReplayableError, match=r"versions that are past their .*: \[1\]"):
            replay(federation.database_url, 2)
        with pytest.raises(NotReplayableError, match="version 1 of round 1 is past its retention"):
            replay(federation.database_url, 1)


@on_postgresql
class TestCommands:
    @pytest.fixture
    def flead(self, federation, stack_home, monkeypatch):
        monkeypatch.setenv("FLEAD_HOME", str(stack_home.root))
        monkeypatch.setenv("FLEAD_DATABASE_URL", federation.database_url)
        return lambda *arguments: CliRunner().invoke(app, arguments)

    def test_list_has_the_newest_rounds_with_what_became_of_each(
        self, flead, federation, make_update
    ):
        federation.run_round(make_update("a", A), make_update("far", A * 1_000))
        federation.run_round(make_update("other", A, features=["y"]))

        listed = msgspec.json.decode(flead("rounds", "list", "--json").stdout)["rounds"]

        columns = ("round", "state", "updates", "accepted", "rejected", "version")
        assert [tuple(each[name] for name in columns) for each in listed] == [
            (2, "empty", 1, 0, {"unknown_schema": 1}, None),
            (1, "aggregated", 2, 1, {"norm": 1}, 1),
        ]
        table = flead("rounds", "list", "--limit", "1").stdout
        assert "empty" in table
        assert "aggregated" not in table

    def test_replay_tells_whether_every_byte_is_the_same(self, flead, federation, make_update):
        federation.run_round(make_update("a", A))
        [(sha256,)] = federation.query("SELECT artifact_sha256 FROM federated_models")

        same = flead("rounds", "replay", "1", "--json")

        said = msgspec.json.decode(same.stdout)
        assert (same.exit_code, said["identical"], said["sha256"]) == (0, True, sha256)
        assert (said["round"], said["version"], said["stored_sha256"]) == (1, 1, sha256)

        federation.query("UPDATE local_models SET intercept = intercept + 1e-12 RETURNING 1")
        changed = flead("rounds", "replay", "1", "--json")

        said = msgspec.json.decode(changed.stdout)
        assert (changed.exit_code, said["identical"]) == (1, False)
        assert said["sha256"] != said["stored_sha256"] == sha256

    def test_replay_of_what_cannot_be_compared_says_why(self, flead, federation, make_update):
        federation.run_round(make_update("other", A, features=["y"]))
        federation.run_round(make_update("a", A))
        federation.query("DELETE FROM local_models RETURNING 1")
        federation.send(make_update("a", A))
        federation.open()

        for number, reason in [
            ("1", "past their retention"),
            ("2", "past their retention"),
            ("3", "has not ended"),
        ]:
            ran = flead("rounds", "replay", number, "--json")

            said = msgspec.json.decode(ran.stdout)
            assert (ran.exit_code, said["identical"], said["sha256"]) == (1, None, None)
            assert reason in said["reason"]
            assert "not comparable: " in flead("rounds", "replay", number).stdout

    def test_replay_of_a_round_without_a_version_compares_its_judgements(
        self, flead, federation, make_update
    ):
        federation.run_round(make_update("a", A))
        federation.run_round(
            make_update("other", A, features=["y"]), make_update("ahead", A, base=9)
        )

        same = flead("rounds", "replay", "2", "--json")

        said = msgspec.json.decode(same.stdout)
        assert (same.exit_code, said["identical"], said["judged"]) == (0, True, 2)
        assert (said["version"], said["sha256"], said["reason"]) == (None, None, None)
        assert "judges its 2 updates again as it did" in flead("rounds", "replay", "2").stdout

        federation.query(
            "UPDATE local_models SET reject_reason = 'norm' WHERE device_id = 'ahead' RETURNING 1"
        )
        changed = flead("rounds", "replay", "2", "--json")

        said = msgspec.json.decode(changed.stdout)
        assert (changed.exit_code, said["identical"]) == (1, False)
        assert "1 updates are judged otherwise now" in said["reason"]
        assert "unknown_base instead of norm" in said["reason"]
        assert said["reason"] in flead("rounds", "replay", "2").stdout

    def test_replay_of_no_round_is_an_error(self, flead):
        ran = flead("rounds", "replay", "5", "--json")

        assert (ran.exit_code, ran.stdout) == (1, "")
        assert str(ran.exception) == "there is no aggregation round 5: see `flead rounds list`"
