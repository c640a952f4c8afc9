"""The life of a change, from its trials to the watch; each step may be lost and repeated."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from optuna.trial import TrialState

from flead.contracts.messages import Hyperparameters, Trial
from flead.storage import decisions
from flead.storage.connection import connect
from flead.storage.decisions import DecisionStatus
from flead.storage.progress import Decided, decided_since
from flead.tuning import changing
from flead.tuning.changing import answer, begin_trials, describe, is_due, judge_trials, settle
from flead.tuning.evidence import Answer
from flead.tuning.opening import decide_or_resume
from flead.tuning.proposing import open_study
from tests.integration.tuned_fleet import DEVICES, HORIZON, START

pytestmark = pytest.mark.servers

BEFORE = START - timedelta(seconds=60)
DURING = START + timedelta(seconds=60)
END = START + HORIZON
AFTER = END + timedelta(seconds=60)
YES, NO = Answer(approved=True, answered_by="ada"), Answer(approved=False, answered_by="timeout")


def propose(fleet):
    return decide_or_resume(fleet.database_url, fleet.settings)


@pytest.fixture
def tried(stuck):
    """Return a fleet whose trials 2-1 and 2-2 have begun, with the period before them."""
    proposed = propose(stuck)
    stuck.train(BEFORE, revision=1, loss_of=lambda trial: 0.5)
    begin_trials(stuck.database_url, proposed.revision, START)
    return stuck


def judge(fleet, at=END):
    return judge_trials(fleet.database_url, fleet.settings, 2, at)


def won(fleet):
    """Let trial 2-2, with twice the learning rate, be better than the control cohort."""
    fleet.train(DURING, revision=2, loss_of=lambda trial: 0.3 if trial == "2-2" else 0.5)


def won_by_far(fleet):
    """Let a trial win that is further from the incumbent than may be adopted by itself."""
    [decision] = fleet.decisions()
    far = Hyperparameters(learning_rate=0.4)
    trials = [decision.trials[0], Trial("2-2", 0.2, far)]
    fleet.query(
        "UPDATE tuning_decisions SET trials = %s RETURNING revision",
        msgspec.json.encode(trials).decode(),
    )
    won(fleet)
    return far


class TestTrials:
    def test_begin_once_however_often_the_step_is_taken(self, stuck):
        propose(stuck)
        begin_trials(stuck.database_url, 2, START)

        again = begin_trials(stuck.database_url, 2, AFTER)

        assert (again.status, again.trial_started_at) == (DecisionStatus.TRYING, START)

    def test_leave_the_rest_of_the_fleet_the_rates_that_it_has(self, tried):
        judge(tried)

        began, ended = tried.control(2), tried.control(3)
        assert (began.unchanged_since, ended.unchanged_since) == (1, 1)
        assert ended.hyperparameters == began.hyperparameters

    @pytest.mark.parametrize(
        ("rates", "first"), [((0.01, 0.02, 0.04), 0.02), ((0.00625, 0.00625, 0.05), 0.0015625)]
    )
    def test_begin_with_the_rate_that_devices_have_moved_to_or_would_if_they_could(
        self, stuck, rates, first
    ):
        now = datetime.now(UTC)
        for device, rate in zip(DEVICES, rates, strict=False):
            stuck.send(device, now - timedelta(seconds=60), loss=0.5, revision=1, learning_rate=9.0)
            stuck.send(device, now, loss=0.5, revision=1, learning_rate=rate)
        stuck.send(DEVICES[9], now, loss=0.5, revision=1, learning_rate=9.0, trial="1-1")

        proposed = propose(stuck)

        tried = [trial.hyperparameters for trial in proposed.trials]
        assert tried[0] == Hyperparameters(learning_rate=first)

    def test_are_over_when_rounds_have_read_what_was_sent_until_their_end(self, tried):
        def due(at):
            return is_due(tried.database_url, tried.settings, 2, at)

        assert not due(END - timedelta(seconds=1))
        assert not due(END)
        tried.send("device-000", END, loss=0.5)
        assert due(END)

    def test_are_over_a_while_after_their_end_when_nothing_is_sent_any_more(self, tried):
        wait = timedelta(seconds=tried.settings.max_wait_seconds)

        assert not is_due(tried.database_url, tried.settings, 2, END)
        assert is_due(tried.database_url, tried.settings, 2, END + wait)

    def test_are_over_at_once_when_other_hyperparameters_are_deployed(self, tried):
        tried.deploy(Hyperparameters(learning_rate=0.2))

        assert is_due(tried.database_url, tried.settings, 2, DURING)
        expired = judge(tried, DURING)
        assert expired.status is DecisionStatus.EXPIRED
        assert [sent.revision for sent in tried.controls()] == [1, 2, 3]


class TestJudgement:
    def test_a_trial_that_beats_the_control_cohort_is_adopted(self, tried):
        won(tried)

        adopted = judge(tried)

        assert (adopted.status, adopted.fleet_revision) == (DecisionStatus.ADOPTED, 3)
        assert adopted.settled_at is None
        sent = tried.control(3)
        assert sent.hyperparameters == adopted.hyperparameters == adopted.trials[1].hyperparameters
        assert sent.trials == []
        assert sent.unchanged_since == 3
        judgement = adopted.evidence["judgement"]
        assert judgement["winner"] == "2-2"
        # Every device has the same outcome in its cohort: 0.3 - 0.5, and 0 of the control.
        assert judgement["arms"][1]["mean_difference"] == pytest.approx(-0.2)
        assert sum(arm["devices"] for arm in judgement["arms"]) + judgement[
            "control_devices"
        ] == len(DEVICES)

    def test_without_a_winner_the_incumbent_is_sent_again_without_trials(self, tried):
        tried.train(DURING, revision=2, loss_of=lambda trial: 0.5)

        rejected = judge(tried)

        assert (rejected.status, rejected.settled_at) == (DecisionStatus.REJECTED, END)
        assert tried.controls()[-1] == msgspec.structs.replace(
            tried.control(1), revision=3, fleet_revision=1
        )

    def test_too_few_devices_end_the_trials_without_a_judgement(self, tried):
        tried.send("device-000", DURING, loss=0.5, revision=2)

        expired = judge(tried)

        assert expired.status is DecisionStatus.EXPIRED
        assert expired.reason.startswith("fewer than 10 devices of the cohorts")
        assert tried.control(3).trials == []

    def test_a_device_counts_in_the_cohort_of_its_name_only(self, tried):
        # All claim to be in the trial that would win, with the figures to go with it.
        for device in DEVICES:
            tried.send(device, DURING, loss=0.1, revision=2, trial="2-2")

        arms = judge(tried).evidence["judgement"]["arms"]

        assert arms[0]["devices"] == 0
        assert 0 < arms[1]["devices"] < len(DEVICES) / 3

    @pytest.mark.parametrize(
        "nonsense",
        [
            {"rows_labelled": 59},
            {"personalized_metrics": None},
            {"status": "rejected", "reject_reason": "implausible"},
            {"hyperparameters_revision": 1},
            {"kafka_timestamp": END},
            {"feature_schema": "another"},
        ],
    )
    def test_windows_that_do_not_belong_or_fit_together_do_not_count(self, tried, nonsense):
        for device in DEVICES:
            tried.send(device, DURING, loss=0.5, revision=2, **nonsense)

        assert judge(tried).status is DecisionStatus.EXPIRED

    def test_a_loss_that_no_model_can_have_does_not_count(self, tried):
        for device in DEVICES:
            tried.send(device, DURING, loss=1e300, revision=2)

        assert judge(tried).status is DecisionStatus.EXPIRED

    def test_the_study_is_told_what_the_trials_were_worth_and_goes_on(self, tried):
        won(tried)
        adopted = judge(tried)
        study = adopted.evidence["study"]

        first, second = open_study(tried.database_url, study["name"], 0).trials[1:3]

        assert (first.state, first.value) == (TrialState.COMPLETE, pytest.approx(0.0, abs=1e-9))
        assert (second.state, second.value) == (TrialState.COMPLETE, pytest.approx(-0.2))
        settle(tried.database_url, tried.settings, 2, AFTER + HORIZON)
        tried.promote(5, 6)
        tried.evaluate({5: 0.5, 6: 0.5})
        following = propose(tried).evidence["study"]
        assert following["name"] == study["name"]
        assert following["incumbent_value"] == pytest.approx(-0.2)


class TestApproval:
    def test_a_large_step_waits_while_the_fleet_trains_with_the_incumbent(self, tried):
        won_by_far(tried)

        waiting = judge(tried)

        assert waiting.status is DecisionStatus.AWAITING_APPROVAL
        assert "factor of 8 needs an approval" in waiting.reason
        assert waiting.hyperparameters == tried.control(3).hyperparameters == Hyperparameters()
        assert "| learning_rate | 0.05 | 0.4 |" in describe(waiting)["body"]

    def test_an_approved_step_is_adopted_by_who_approved_it(self, tried):
        far = won_by_far(tried)
        judge(tried)

        adopted = answer(tried.database_url, 2, YES, AFTER)

        assert (adopted.status, adopted.decided_by) == (DecisionStatus.ADOPTED, "ada")
        assert (adopted.fleet_revision, tried.control(4).hyperparameters) == (4, far)
        assert adopted.evidence["answer"] == {"approved": True, "answered_by": "ada"}

    def test_a_step_that_is_not_approved_changes_nothing(self, tried):
        won_by_far(tried)
        judge(tried)

        rejected = answer(tried.database_url, 2, NO, AFTER)

        assert (rejected.status, rejected.decided_by) == (DecisionStatus.REJECTED, "timeout")
        assert rejected.hyperparameters == Hyperparameters()
        assert len(tried.controls()) == 3

    def test_an_approval_comes_too_late_when_others_were_deployed(self, tried):
        won_by_far(tried)
        judge(tried)
        tried.deploy(Hyperparameters(learning_rate=0.2))

        assert answer(tried.database_url, 2, YES, AFTER).status is DecisionStatus.EXPIRED
        assert tried.controls()[-1].hyperparameters.learning_rate == 0.2


class TestWatch:
    @pytest.fixture
    def adopted(self, tried):
        won(tried)
        judge(tried)
        return tried

    def settle(self, fleet):
        return settle(fleet.database_url, fleet.settings, 2, END + HORIZON)

    def test_a_change_after_which_devices_are_worse_is_taken_back(self, adopted):
        adopted.train(AFTER, revision=3, loss_of=lambda trial: 0.9)

        reverted = self.settle(adopted)

        assert (reverted.status, reverted.parent_revision) == (DecisionStatus.REVERTED, 2)
        assert adopted.control(4).hyperparameters == reverted.hyperparameters == Hyperparameters()
        [change, _] = adopted.decisions()
        assert (change.status, change.settled_at) == (DecisionStatus.ADOPTED, END + HORIZON)
        assert change.evidence["watched"]["mean_change"] == pytest.approx(0.4)

    def test_a_change_after_which_devices_are_not_worse_stays(self, adopted):
        adopted.train(AFTER, revision=3, loss_of=lambda trial: 0.3)

        settled = self.settle(adopted)

        assert (settled.status, settled.settled_at) == (DecisionStatus.ADOPTED, END + HORIZON)
        assert len(adopted.controls()) == 3

    def test_no_other_change_begins_while_it_lasts(self, adopted):
        adopted.promote(5, 6)
        adopted.evaluate({5: 0.5, 6: 0.5})

        assert propose(adopted).revision == 2

    def test_ends_when_others_are_deployed(self, adopted):
        adopted.deploy(Hyperparameters(learning_rate=0.2))

        settled = self.settle(adopted)

        assert (settled.status, settled.settled_at) == (DecisionStatus.ADOPTED, END + HORIZON)
        assert "watched" not in settled.evidence


class TestCrashes:
    """A step that is lost before its transaction ends leaves nothing and can be repeated."""

    @pytest.fixture
    def crash(self, monkeypatch):
        def crash_in(step):
            def killed(*_):
                raise RuntimeError("killed")

            with monkeypatch.context() as patched:
                patched.setattr(changing.decisions, "update", killed)
                with pytest.raises(RuntimeError, match="killed"):
                    step()

        return crash_in

    def unchanged_by(self, fleet, crash, step):
        before = fleet.decisions(), fleet.controls()
        crash(step)
        assert (fleet.decisions(), fleet.controls()) == before
        return step()

    def test_of_the_begin(self, stuck, crash):
        propose(stuck)

        begun = self.unchanged_by(stuck, crash, lambda: begin_trials(stuck.database_url, 2, START))

        assert begun.status is DecisionStatus.TRYING

    def test_of_the_judgement(self, tried, crash):
        won(tried)

        adopted = self.unchanged_by(tried, crash, lambda: judge(tried))

        assert (adopted.status, adopted.fleet_revision) == (DecisionStatus.ADOPTED, 3)
        assert judge(tried) == adopted

    def test_of_the_answer(self, tried, crash):
        won_by_far(tried)
        judge(tried)

        adopted = self.unchanged_by(tried, crash, lambda: answer(tried.database_url, 2, YES, AFTER))

        assert answer(tried.database_url, 2, NO, AFTER) == adopted

    def test_of_the_end(self, tried, crash):
        won(tried)
        judge(tried)
        tried.train(AFTER, revision=3, loss_of=lambda trial: 0.9)

        def end():
            return settle(tried.database_url, tried.settings, 2, END + HORIZON)

        reverted = self.unchanged_by(tried, crash, end)

        assert reverted.status is DecisionStatus.REVERTED
        assert end().status is DecisionStatus.ADOPTED
        assert len(tried.decisions()) == 2

    def test_between_the_judgement_and_the_study_tells_the_study_later(self, tried, monkeypatch):
        won(tried)

        def killed(*_):
            raise RuntimeError("killed")

        with monkeypatch.context() as patched:
            patched.setattr(changing, "tell", killed)
            with pytest.raises(RuntimeError, match="killed"):
                judge(tried)
        judged = judge(tried)

        name = judged.evidence["study"]["name"]
        states = [trial.state for trial in open_study(tried.database_url, name, 0).trials]
        assert states == [TrialState.COMPLETE] * 3


class TestCountsForThoseWhoWatch:
    def counted(self, fleet):
        with connect(fleet.database_url) as connection, connection.cursor() as cursor:
            return decided_since(cursor, START)

    def test_a_decision_counts_once_it_is_taken(self, tried):
        won(tried)

        before = self.counted(tried)
        arms = judge(tried).evidence["judgement"]["arms"]
        after = self.counted(tried)

        updates = sum(arm["devices"] for arm in arms)
        assert before == Decided(0, 0, 0, 0, updates)
        assert after == Decided(0, 0, 1, 1, updates)

    def test_one_that_has_expired_has_decided_nothing(self, tried):
        assert judge(tried).status is DecisionStatus.EXPIRED

        counted = self.counted(tried)

        assert (counted.tuning_decisions, counted.decisions_on_trials) == (0, 0)


def test_a_change_that_is_not_stored_cannot_be_written(fleet, stuck):
    missing = replace(propose(stuck), revision=99)
    with (
        pytest.raises(LookupError, match="no tuning decision 99"),
        connect(fleet.database_url) as connection,
        connection.cursor() as cursor,
    ):
        decisions.update(cursor, missing)
