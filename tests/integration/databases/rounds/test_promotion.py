"""Candidates are judged by what devices measured; a bad head is taken back."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import GlobalModel, LabelSource, Metrics, ModelStatus
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets
from flead.rounds.aggregation import aggregate
from flead.rounds.publishing import publish
from flead.rounds.rejudging import rejudge
from flead.rounds.replay import replay
from flead.rounds.rollback import (
    HeadReplacedError,
    RollbackError,
    WorseHead,
    roll_back,
    worse_by_evaluation,
)
from flead.storage.rounds import RoundState

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("database_server", ["postgresql"], indirect=True),
]

A = np.array([0.5, -1.0, 0.25, 2.0, 1.0])
B = np.array([0.1, 0.2, 0.3, 0.4, -3.0])
DEVICES = ["a", "b", "c"]
IDLE = {"trained": False, "samples_processed": 0}
GOOD, BAD = (1.0, 4, 0, 6, 0), (20.0, 0, 6, 0, 4)
"""Log loss of .1 and 2 a row, over ten rows each."""


@pytest.fixture
def federation(federation):
    federation.settings = msgspec.structs.replace(
        federation.settings, gate_min_rows=30, gate_min_devices=3
    )
    return federation


def statuses(federation):
    return federation.query("SELECT version, status FROM federated_models ORDER BY version")


def head(federation):
    [(version,)] = federation.query("SELECT version FROM model_head")
    return version


def decisions(federation):
    return federation.query(
        "SELECT version, decision, devices, rows FROM promotion_decisions ORDER BY id"
    )


def messages(federation, start):
    publish(federation.database_url, federation.kafka)
    return [
        (record.key.decode(), msgspec.json.decode(record.value, type=GlobalModel))
        for record in federation.published(Topic.GLOBAL_UPDATES, start)
    ]


def evaluate(federation, hours_apart=0, rows=30):
    """Store a passed evaluation by which version 2 loses .9 a row, version 1 before it .2."""
    federation.query(
        """
        INSERT INTO model_evaluations (
            model_version, window_start, window_end, device_id, evaluation_run_id, status,
            quality_status, evaluation_timestamp, rows, samples, tp, fp, tn, fn,
            log_loss_sum, brier_sum, log_loss
        )
        SELECT
            version, at, at, '*', 'run', 'evaluated', 'passed', now(), rows, rows,
            rows, 0, 0, 0, rows * loss, 1, loss
        FROM (
            VALUES (1, .2, now() - make_interval(hours => %s)), (2, .9, now())
        ) AS scored (version, loss, at), (SELECT %s::int AS rows) AS counted
        RETURNING model_version
        """,
        hours_apart,
        rows,
    )


@pytest.fixture
def round_of(federation, make_update):
    """Return a function that runs a round of an update of each device."""

    def run(weights=A, base=0, *, devices=DEVICES, **changes):
        return federation.run_round(
            *[make_update(device, weights, base=base, **changes) for device in devices]
        )

    return run


class TestGate:
    def test_the_first_version_is_promoted_at_once_and_the_next_is_a_candidate(
        self, federation, round_of
    ):
        start = end_offsets(federation.kafka, Topic.GLOBAL_UPDATES)
        first = round_of()
        second = round_of(B, base=1, scored=GOOD)

        assert (first.version, first.promoted_version) == (1, 1)
        assert (second.version, second.promoted_version) == (2, None)
        assert statuses(federation) == [(1, "promoted"), (2, "candidate")]
        assert head(federation) == 1
        sent = messages(federation, start)
        assert [(key, model.version, model.status) for key, model in sent] == [
            ("global", 1, ModelStatus.PROMOTED),
            ("candidate", 2, ModelStatus.CANDIDATE),
        ]

    def test_a_candidate_that_is_not_worse_becomes_the_head_as_it_was_scored(
        self, federation, round_of
    ):
        round_of()
        round_of(B, base=1, scored=GOOD)
        start = end_offsets(federation.kafka, Topic.GLOBAL_UPDATES)

        judging = round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))

        assert (judging.promoted_version, judging.version) == (2, 3)
        assert statuses(federation) == [(1, "promoted"), (2, "promoted"), (3, "candidate")]
        assert decisions(federation) == [
            (1, "promoted", None, None),
            (2, "promoted", 3, 30),
        ]
        *_, promoted, candidate = messages(federation, start)
        assert promoted[0] == "global"
        [(path,)] = federation.query("SELECT artifact_path FROM federated_models WHERE version = 2")
        assert msgspec.json.decode(Path(path).read_bytes(), type=GlobalModel) == promoted[1]
        # The updates were based on version 1: what they have learned moves the new head.
        np.testing.assert_allclose([*candidate[1].weights, candidate[1].intercept], B + (B - A))
        assert (candidate[1].parent_version, candidate[1].global_loss) == (2, 0.1)
        assert replay(federation.database_url, 2) == Path(path).read_bytes()

    def test_a_broken_candidate_never_becomes_the_head(self, federation, round_of):
        round_of()
        round_of(-10 * A / np.linalg.norm(A), base=1, scored=GOOD)

        judging = round_of(B, base=1, scored=GOOD, challenged=(2, *BAD))

        assert (judging.promoted_version, judging.version) == (None, 3)
        assert statuses(federation) == [(1, "promoted"), (2, "rejected"), (3, "candidate")]
        assert head(federation) == 1
        assert federation.query(
            "SELECT parent_version FROM federated_models WHERE version = 3"
        ) == [(1,)]
        [(reason, difference)] = federation.query(
            "SELECT reason, mean_difference FROM promotion_decisions WHERE version = 2"
        )
        assert reason == "worse than its parent on the same rows"
        assert difference == pytest.approx(1.9)

    def test_an_undecided_candidate_waits_and_keeps_the_updates_as_its_evidence(
        self, federation, round_of
    ):
        round_of()
        round_of(B, base=1, scored=GOOD)

        waiting = round_of(B, base=1, devices=["a", "b"], scored=GOOD, challenged=(2, *GOOD))
        assert (waiting.state, waiting.version) == (RoundState.WAITING, None)
        assert federation.query(
            "SELECT device_id, status FROM local_models WHERE aggregation_round = 3 ORDER BY 1"
        ) == [("a", "superseded"), ("b", "superseded")]
        deciding = round_of(B, base=1, devices=["c"], scored=GOOD, challenged=(2, *GOOD))

        assert (deciding.promoted_version, deciding.version) == (2, 3)
        assert decisions(federation)[-1] == (2, "promoted", 3, 30)

    def test_a_candidate_that_nobody_scores_is_rejected_in_the_end(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)
        federation.query(
            "UPDATE federated_models SET created_at = created_at - %s WHERE version = 2"
            " RETURNING version",
            timedelta(seconds=federation.settings.gate_timeout_seconds),
        )

        deciding = round_of(B, base=1, scored=GOOD)

        assert (deciding.promoted_version, deciding.version) == (None, 3)
        assert statuses(federation) == [(1, "promoted"), (2, "rejected"), (3, "candidate")]

    def test_where_few_devices_have_labels_those_decide(self, federation, round_of, make_update):
        without = make_update(
            "c", A, rows_labelled=0, rows_pseudo_labelled=10, label_source=LabelSource.ZSCORE
        )
        later = msgspec.structs.replace(without, base_version=1)
        federation.run_round(make_update("a", A), make_update("b", A), without)
        scored = [make_update(device, B, base=1, scored=GOOD) for device in "ab"]
        federation.run_round(*scored, later)

        challenged = [
            make_update(device, B, base=1, scored=GOOD, challenged=(2, *GOOD)) for device in "ab"
        ]
        waiting = federation.run_round(*challenged, later)
        deciding = federation.run_round(*challenged, later)

        assert (waiting.state, deciding.promoted_version) == (RoundState.WAITING, 2)
        assert decisions(federation)[-1] == (2, "promoted", 2, 40)

    def test_trials_are_no_evidence(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)
        waiting = round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD), trial="t")
        assert (waiting.state, waiting.rejected) == (RoundState.WAITING, {"trial": 3})

    def test_devices_that_do_not_train_are_evidence_too(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)

        judging = round_of(None, base=1, scored=GOOD, challenged=(2, *BAD), **IDLE)

        assert (judging.state, judging.rejected) == (RoundState.EMPTY, {"not_trained": 3})
        assert decisions(federation)[-1] == (2, "rejected", 3, 30)

    def test_a_device_cannot_stop_rounds_by_impossible_scores(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)

        nothing = Metrics(2, 0, 0.0, 0, 0, 0, 0)
        empty = round_of(
            B, base=1, devices=["liar"], rows_labelled=0, rows_pseudo_labelled=10,
            label_source=LabelSource.ZSCORE, candidate_metrics=nothing,
            global_metrics=msgspec.structs.replace(nothing, version=1),
        )  # fmt: skip
        endless = (1.7e308, *GOOD[1:])
        huge = round_of(B, base=1, devices=["liar"], scored=endless, challenged=(2, *endless))

        for waiting in (empty, huge):
            assert (waiting.state, waiting.rejected) == (RoundState.WAITING, {"implausible": 1})
        judging = round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))
        assert judging.promoted_version == 2

    def test_a_candidate_whose_parent_is_not_the_head_is_rejected(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)
        round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))
        federation.query(
            "UPDATE federated_models SET parent_version = 1 WHERE version = 3 RETURNING version"
        )

        judging = round_of(B, base=2, scored=GOOD, challenged=(3, *GOOD))

        assert (judging.promoted_version, judging.version, head(federation)) == (None, 4, 2)
        assert federation.query(
            "SELECT decision, reason FROM promotion_decisions WHERE version = 3"
        ) == [("rejected", "its parent is not the head, version 2")]

    def test_a_fleet_without_labels_is_never_judged_by_a_loss(self, federation, round_of):
        unlabelled = {
            "rows_labelled": 0, "rows_pseudo_labelled": 10, "label_source": LabelSource.ZSCORE,
        }  # fmt: skip
        round_of(**unlabelled)
        second = round_of(B, base=1, **unlabelled)

        assert (second.version, second.promoted_version) == (2, 2)
        assert statuses(federation) == [(1, "promoted"), (2, "promoted")]
        assert federation.query(
            "SELECT reason, mean_difference FROM promotion_decisions WHERE version = 2"
        ) == [("not judged: no labels, or no gate", None)]
        assert federation.query("SELECT global_accuracy FROM federated_models") == [(None,)] * 2


class TestArtifacts:
    def test_every_version_has_the_file_that_its_row_names(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)
        round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))
        round_of(B, base=2, scored=GOOD, challenged=(3, *BAD))
        roll_back(federation.database_url, federation.settings, 1, "odd", "request-1")

        rows = federation.query(
            "SELECT status, artifact_path, artifact_sha256 FROM federated_models ORDER BY version"
        )

        assert [status for status, _, _ in rows] == [
            "promoted", "rolled_back", "rejected", "rejected", "promoted",
        ]  # fmt: skip
        for _, path, sha256 in rows:
            assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256

    def test_a_candidate_has_it_before_its_verdict(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)

        [(path,)] = federation.query(
            "SELECT artifact_path FROM federated_models WHERE status = 'candidate'"
        )
        scored = Path(path).read_bytes()
        round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))

        assert replay(federation.database_url, 2) == scored == Path(path).read_bytes()


class TestRejudging:
    def test_rounds_without_a_version_are_judged_as_they_were_when_heads_have_followed(
        self, federation, round_of, make_update
    ):
        federation.settings = msgspec.structs.replace(federation.settings, max_staleness=1)
        round_of()
        round_of(B, base=1, scored=GOOD)
        waiting = federation.run_round(
            make_update("a", B, base=1, scored=GOOD, challenged=(2, *GOOD)),
            make_update("b", 100 * A, base=1),
            make_update("c", B, base=2),
            make_update("d", B, features=["y"]),
        )
        round_of(B, base=1, devices=["b", "c"], scored=GOOD, challenged=(2, *GOOD))
        round_of(B, base=2, scored=GOOD, challenged=(3, *GOOD))
        empty = federation.run_round(
            make_update("a", B, base=1), make_update("b", None, base=3, **IDLE)
        )
        roll_back(federation.database_url, federation.settings, 1, "odd", "request-1")
        rolled_back = federation.run_round(
            make_update("a", B, base=3), make_update("b", B, base=2), make_update("c", B, base=9)
        )

        assert (waiting.state, waiting.rejected) == (
            RoundState.WAITING, {"norm": 1, "unknown_base": 1, "unknown_schema": 1},
        )  # fmt: skip
        assert rolled_back.rejected == {"rolled_back_base": 2, "unknown_base": 1}
        for completed in (waiting, empty, rolled_back):
            assert completed.version is None
            again = rejudge(federation.database_url, federation.settings, completed.number)
            assert (again.differing, len(again.stored)) == ([], completed.updates)

    def test_a_judgement_that_was_another_is_told(self, federation, round_of):
        round_of()
        round_of(B, base=1, scored=GOOD)
        waiting = round_of(B, base=1, devices=["a", "b"], scored=GOOD)
        federation.query(
            "UPDATE local_models SET status = 'rejected', reject_reason = 'norm'"
            " WHERE aggregation_round = %s AND device_id = 'b' RETURNING 1",
            waiting.number,
        )

        again = rejudge(federation.database_url, federation.settings, waiting.number)

        [(before, now)] = again.differing
        assert (before.read.update.device_id, before.reason, now.reason) == ("b", "norm", None)
        assert not again.is_identical


class TestRollback:
    @pytest.fixture
    def promoted(self, federation, round_of):
        """Two promoted versions, of which 2 is the head, and the candidate 3."""
        round_of()
        round_of(B, base=1, scored=GOOD)
        round_of(B, base=1, scored=GOOD, challenged=(2, *GOOD))
        return federation

    def test_on_request_publishes_the_good_weights_as_the_newest_version(self, promoted):
        start = end_offsets(promoted.kafka, Topic.GLOBAL_UPDATES)
        publish(promoted.database_url, promoted.kafka)
        start = end_offsets(promoted.kafka, Topic.GLOBAL_UPDATES)

        version = roll_back(promoted.database_url, promoted.settings, None, "odd", "request-1")
        again = roll_back(promoted.database_url, promoted.settings, None, "odd", "request-1")

        assert (version, again, head(promoted)) == (4, 4, 4)
        assert statuses(promoted) == [
            (1, "promoted"), (2, "rolled_back"), (3, "rejected"), (4, "promoted"),
        ]  # fmt: skip
        [(key, model)] = messages(promoted, start)
        assert (key, model.version, model.restored_version) == ("global", 4, 1)
        np.testing.assert_array_equal([*model.weights, model.intercept], A)
        # Nobody has measured this version, nor its parent in its name.
        assert (model.global_accuracy, model.global_loss) == (None, None)

    def test_a_second_request_says_to_where_unless_it_is_the_same(self, promoted):
        roll_back(promoted.database_url, promoted.settings, None, "odd", "request-1")

        with pytest.raises(RollbackError, match="version 4, restores 1 already"):
            roll_back(promoted.database_url, promoted.settings, None, "odd", "request-2")

        assert head(promoted) == 4

    def test_updates_based_on_the_bad_version_are_rejected_also_of_a_round_in_flight(
        self, promoted, make_update
    ):
        promoted.send(make_update("a", A, base=2, scored=GOOD), make_update("b", B, base=1))
        number = promoted.open().number
        roll_back(promoted.database_url, promoted.settings, 1, "odd", "request-1")

        completed = aggregate(promoted.database_url, promoted.settings, number)

        assert (completed.accepted, completed.rejected) == (1, {"rolled_back_base": 1})
        assert promoted.query("SELECT parent_version FROM federated_models WHERE version = 5") == [
            (4,)
        ]

    @pytest.mark.parametrize("challenged", [None, (3, *GOOD)])
    def test_a_head_whose_prequential_loss_is_worse_is_taken_back_before_another_follows(
        self, promoted, round_of, challenged
    ):
        taken_back = round_of(B, base=2, scored=BAD, challenged=challenged)

        assert (taken_back.promoted_version, head(promoted)) == (4, 4)
        assert taken_back.rejected == {"rolled_back_base": 3}
        assert statuses(promoted) == [
            (1, "promoted"), (2, "rolled_back"), (3, "rejected"), (4, "promoted"),
        ]  # fmt: skip
        assert promoted.query(
            "SELECT version, reference_version, devices, rows, mean_difference, decided_by"
            " FROM promotion_decisions WHERE decision = 'rolled_back'"
        ) == [(2, 1, 3, 30, pytest.approx(1.9), "aggregation_round")]

    def test_rounds_take_back_one_head_in_the_time_of_a_verdict(self, promoted, round_of):
        round_of(B, base=2, scored=BAD)
        round_of(B, base=4, scored=GOOD)
        round_of(B, base=4, scored=GOOD, challenged=(5, *GOOD))
        assert head(promoted) == 5

        too_soon = round_of(B, base=5, scored=BAD)
        assert (too_soon.state, head(promoted)) == (RoundState.WAITING, 5)
        promoted.query(
            "UPDATE promotion_decisions SET decided_at = decided_at - %s RETURNING version",
            timedelta(seconds=promoted.settings.gate_timeout_seconds),
        )
        taken_back = round_of(B, base=5, scored=BAD)

        assert (taken_back.promoted_version, head(promoted)) == (7, 7)
        assert statuses(promoted)[4:] == [(5, "rolled_back"), (6, "rejected"), (7, "promoted")]

    def test_evaluations_on_different_windows_are_not_compared(self, promoted, round_of):
        evaluate(promoted, hours_apart=1)

        judging = round_of(B, base=2, scored=GOOD)

        assert (judging.promoted_version, head(promoted)) == (None, 2)

    def test_a_passed_evaluation_against_its_parent_takes_a_head_back(self, promoted, round_of):
        evaluate(promoted)

        taken_back = round_of(B, base=1, scored=GOOD)

        assert taken_back.promoted_version == 4
        assert statuses(promoted)[:4] == [
            (1, "promoted"), (2, "rolled_back"), (3, "rejected"), (4, "promoted"),
        ]  # fmt: skip

    def test_what_an_evaluation_says_of_the_head_is_known_before_the_next_round(self, promoted):
        assert worse_by_evaluation(promoted.database_url, promoted.settings) is None

        evaluate(promoted)

        assert worse_by_evaluation(promoted.database_url, promoted.settings) == WorseHead(
            head=2, good=1, reason="evaluated log loss 0.9000 against 0.2000 of its parent"
        )
        assert head(promoted) == 2

    def test_an_evaluation_of_fewer_rows_than_a_gate_asks_for_says_nothing(self, promoted):
        evaluate(promoted, rows=promoted.settings.gate_min_rows - 1)

        assert worse_by_evaluation(promoted.database_url, promoted.settings) is None

    def test_a_head_that_is_named_is_taken_back_once_whoever_asks(self, promoted):
        evaluate(promoted)
        back = roll_back(promoted.database_url, promoted.settings, 1, "worse", "first", head=2)

        with pytest.raises(HeadReplacedError, match="the head is version 4, no longer 2"):
            roll_back(promoted.database_url, promoted.settings, 1, "worse", "second", head=2)
        again = roll_back(promoted.database_url, promoted.settings, 1, "worse", "first", head=2)

        assert (back, again, head(promoted)) == (4, 4, 4)
        assert worse_by_evaluation(promoted.database_url, promoted.settings) is None

    def test_after_an_evaluation_took_a_head_back_rounds_wait_with_the_next(
        self, promoted, round_of
    ):
        request = "rollback_model/evaluation_quality__run"
        roll_back(promoted.database_url, promoted.settings, 1, "worse", request, head=2)
        round_of(B, base=4, scored=GOOD)
        round_of(B, base=4, scored=GOOD, challenged=(5, *GOOD))
        assert head(promoted) == 5

        round_of(B, base=5, scored=BAD)
        too_soon = round_of(B, base=5, scored=BAD)

        assert (too_soon.state, head(promoted)) == (RoundState.WAITING, 5)

    @pytest.mark.parametrize(
        ("to_version", "message"), [(9, "no version 9"), (2, "not an earlier"), (3, "not an")]
    )
    def test_what_cannot_be_gone_back_to_is_an_error_that_says_why(
        self, promoted, to_version, message
    ):
        with pytest.raises(RollbackError, match=message):
            roll_back(promoted.database_url, promoted.settings, to_version, "odd", "request-1")
        assert head(promoted) == 2

    def test_of_two_at_once_each_goes_back_one_version(self, promoted, round_of):
        round_of(B, base=2, scored=GOOD, challenged=(3, *GOOD))
        assert head(promoted) == 3
        with ThreadPoolExecutor(2) as pool:
            made = list(
                pool.map(
                    lambda request: roll_back(
                        promoted.database_url, promoted.settings, 1, "odd", request
                    ),
                    ["request-1", "request-2"],
                )
            )
        assert len(set(made)) == 2
        assert head(promoted) == max(made)
        assert promoted.query("SELECT count(*) FROM model_head") == [(1,)]
