"""When the fleet's hyperparameters are kept, tried, or left alone."""

from dataclasses import replace

import pytest
from optuna.trial import TrialState
from psycopg2.errors import UniqueViolation

from flead.contracts.messages import Hyperparameters
from flead.storage import decisions
from flead.storage.connection import connect
from flead.storage.decisions import DecisionStatus
from flead.tuning import opening
from flead.tuning.opening import NothingToDecideError, decide_or_resume
from flead.tuning.proposing import open_study

pytestmark = pytest.mark.servers


def decide(fleet, **named):
    return decide_or_resume(fleet.database_url, fleet.settings, **named)


def test_while_the_log_loss_falls_the_hyperparameters_are_kept(fleet):
    fleet.promote(1, 2, 3, 4)
    fleet.evaluate({1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2})

    kept = decide(fleet)

    assert (kept.status, kept.revision, kept.parent_revision) == (DecisionStatus.KEPT, 2, 1)
    assert kept.evidence["comparison"]["improvement"] == pytest.approx(0.2 / 0.45)
    assert fleet.decisions() == [kept]
    assert [sent.revision for sent in fleet.controls()] == [1]


def test_the_next_decision_waits_for_as_many_versions_again(fleet):
    fleet.promote(1, 2, 3, 4)
    fleet.evaluate({1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2})
    decide(fleet)
    fleet.promote(5)

    with pytest.raises(NothingToDecideError, match="1 of 2 versions have been promoted since"):
        decide(fleet)

    fleet.promote(6)
    fleet.evaluate({5: 0.1, 6: 0.05})
    assert decide(fleet).revision == 3


def test_when_it_falls_no_longer_trials_within_the_bounds_are_proposed(stuck):
    proposed = decide(stuck)

    assert proposed.status is DecisionStatus.PROPOSED
    assert proposed.decided_by == "flead"
    [_, sent] = stuck.controls()
    assert (sent.revision, sent.hyperparameters) == (2, Hyperparameters())
    assert sent.trials == proposed.trials
    assert [trial.trial for trial in sent.trials] == ["2-1", "2-2"]
    assert [trial.fraction for trial in sent.trials] == [0.2, 0.2]
    # The first two of a study are steps down and up from 0.05.
    rates = [trial.hyperparameters.learning_rate for trial in sent.trials]
    assert rates == pytest.approx([0.025, 0.1])


def test_the_study_knows_the_incumbent_first_and_lives_in_a_schema_of_its_own(stuck):
    study = decide(stuck).evidence["study"]

    incumbent, *asked = open_study(stuck.database_url, study["name"], 0).trials
    assert incumbent.params == {
        "learning_rate": 0.05,
        "alpha": 1e-4,
        "window_rows": 30,
        "local_epochs": 3,
        "ditto_pull": 0.03,
    }
    assert (incumbent.value, incumbent.state) == (0.0, TrialState.COMPLETE)
    assert [trial.state for trial in asked] == [TrialState.RUNNING] * 2
    tables = stuck.query("SELECT schemaname FROM pg_tables WHERE tablename = 'trials'")
    assert tables == [("optuna",)]


def test_one_change_is_in_flight_and_is_resumed(stuck):
    first = decide(stuck)

    assert decide(stuck) == first
    assert decide(stuck, forced_by="ada") == first
    second = replace(first, revision=9, parent_revision=1)
    with (
        pytest.raises(UniqueViolation, match="tuning_decisions_one_in_flight"),
        connect(stuck.database_url) as connection,
        connection.cursor() as cursor,
    ):
        decisions.insert(cursor, second)


def test_a_crash_before_the_decision_is_stored_leaves_nothing_and_is_made_good(stuck, monkeypatch):
    def crash(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(opening.decisions, "insert", crash)
        with pytest.raises(RuntimeError, match="killed"):
            decide(stuck)

    assert (stuck.decisions(), len(stuck.controls())) == ([], 1)
    study = decide(stuck).evidence["study"]
    states = [trial.state for trial in open_study(stuck.database_url, study["name"], 0).trials]
    # What was asked in the lost attempt counts for nothing.
    assert states[1:3] == [TrialState.FAIL] * 2
    assert [states[number] for number in study["numbers"].values()] == [TrialState.RUNNING] * 2


@pytest.mark.parametrize("quality", ["quarantined", "pending"])
def test_evaluations_that_did_not_pass_the_quality_checks_decide_nothing(fleet, quality):
    fleet.promote(1, 2, 3, 4)
    fleet.evaluate({1: 0.5, 2: 0.4, 3: 0.3, 4: 0.2}, quality=quality)

    with pytest.raises(NothingToDecideError, match="0 have an evaluation that passed"):
        decide(fleet)

    assert fleet.decisions() == []


@pytest.mark.parametrize("forced_by", [None, "ada"])
def test_a_fleet_without_labels_is_never_tuned(fleet, forced_by):
    fleet.promote(1, 2, 3, 4, rows_labelled=0)
    fleet.evaluate({1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})

    with pytest.raises(NothingToDecideError, match="trained without labels"):
        decide(fleet, forced_by=forced_by)

    assert (fleet.decisions(), len(fleet.controls())) == ([], 1)


def test_a_person_may_have_others_tried_without_any_evaluation(fleet):
    fleet.promote(1)

    forced = decide(fleet, forced_by="ada")

    assert (forced.status, forced.decided_by) == (DecisionStatus.PROPOSED, "ada")
    assert forced.evidence["not_compared"] == "1 of 4 versions have been promoted"


def test_nothing_is_decided_before_there_is_a_model(fleet):
    with pytest.raises(NothingToDecideError, match="no promoted model"):
        decide(fleet)
