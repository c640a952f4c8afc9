"""The gate behind an evaluation: real Great Expectations on rows of a real database."""

import re

import pytest

from flead.quality.gate import SUITES, check_evaluation
from flead.quality.rounds import BadRoundError, check_round
from flead.storage import outbox, quality
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.quality import QualityStatus
from flead_airflow.preloading import preload
from tests.integration.airflow.evaluated_run import RUN, fill, fill_analyses, fill_round

pytestmark = pytest.mark.servers

POISONS = {
    "model_evaluations.accuracy_is_a_share": "UPDATE model_evaluations SET accuracy = 1.7"
    " WHERE device_id = 'a' AND model_version = 3",
    "model_evaluations.every_device_is_there": "DELETE FROM model_evaluations"
    " WHERE device_id = 'c'",
    "model_evaluations.evaluation_is_fresh": "UPDATE model_evaluations"
    " SET window_end = window_end - INTERVAL '2 hours',"
    " window_start = window_start - INTERVAL '2 hours'",
    "model_evaluations.one_evaluation_a_device": "INSERT INTO model_evaluations"
    " SELECT (jsonb_populate_record(made, jsonb_build_object("
    "'window_start', made.window_start - INTERVAL '1 hour'))).*"
    " FROM model_evaluations AS made WHERE device_id = 'a' AND model_version = 3",
    "model_feedback.one_prediction_a_row": "UPDATE model_feedback"
    " SET kafka_offset = 110, event_time = event_time + INTERVAL '1 second'"
    " WHERE kafka_offset = 111",
    "model_feedback.error_is_the_distance_of_prediction_and_actual": "UPDATE model_feedback"
    " SET error = 0.5 WHERE kafka_offset = 110",
    "federated_models.versions_have_no_gap": "DELETE FROM federated_models WHERE version = 2",
}
OTHER_POISONS = {
    "model_evaluations.figures_are_finite": "UPDATE model_evaluations SET log_loss = 'NaN'"
    " WHERE device_id = '*'",
    "model_evaluations.every_version_is_there": "DELETE FROM model_evaluations"
    " WHERE model_version = 1",
    "model_evaluations.figures_come_from_labels": "UPDATE model_evaluations SET accuracy = 0.5"
    " WHERE device_id = 'c'",
    "model_evaluations.f1_fits_precision_and_recall": "UPDATE model_evaluations SET f1 = 0.8"
    " WHERE device_id = 'a'",
    "model_evaluations.fleet_is_the_sum_of_its_devices": "UPDATE model_evaluations"
    " SET samples = 20, tn = 15, rows = 25 WHERE device_id = '*'",
    "model_evaluations.one_message_a_labelled_device": "DELETE FROM outbox WHERE key = 'b'",
    "model_evaluations.messages_say_what_was_measured": "UPDATE outbox"
    " SET value = jsonb_set(value::jsonb, '{accuracy}', '0.95')::text WHERE key = 'a'",
    "model_feedback.prediction_is_a_probability": "UPDATE model_feedback"
    " SET prediction = 1.25, error = 0.25, confidence = 1.5 WHERE kafka_offset = 110",
    "model_feedback.rows_lie_in_the_window": "UPDATE model_feedback SET kafka_offset = 99"
    " WHERE kafka_offset = 110",
    "federated_models.parent_is_known": "UPDATE federated_models SET feature_schema = 'another'"
    " WHERE version = 1",
    "federated_models.weights_are_finite": "UPDATE federated_models SET weights[2] = 'Infinity'"
    " WHERE version = 3",
    "local_models.every_update_is_there": "DELETE FROM local_models"
    " WHERE aggregation_round = 3 AND device_id = 'a'",
    "stream_analysis_results.anomalies_are_scored_rows": "UPDATE stream_analysis_results"
    " SET anomaly_count = 11",
    "stream_analysis_results.zscore_anomalies_are_rows": "UPDATE stream_analysis_results"
    " SET zscore_anomaly_count = 11",
    "batch_analysis_results.every_device_is_there": "DELETE FROM batch_analysis_results",
}


@pytest.fixture(scope="module")
def database(make_database):
    """Return the URL of a database with FLEAD's tables."""
    url = make_database()
    migrate(url)
    return url


@pytest.fixture(autouse=True)
def clean_run(database):
    """Store a clean run and what the analyses have written."""
    fill(database)
    fill_analyses(database)


@pytest.fixture
def check(database, tmp_path):
    """Return the function that checks the run."""
    return lambda: check_evaluation(database, RUN, tmp_path, "a-dag-run")


@pytest.fixture
def query(database):
    """Return the function that runs a statement."""

    def run(statement, *parameters):
        with connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    return run


def released(database):
    with connect(database) as connection, connection.cursor() as cursor:
        return [queued.message.key for queued in outbox.next_ready(cursor, 10)]


def names(findings):
    return {f"{finding.suite}.{finding.rule}" for finding in findings}


def test_a_clean_run_passes_and_its_messages_become_ready(check, query, database, tmp_path):
    verdict = check()

    assert (verdict.status, verdict.failed, verdict.warned) == (QualityStatus.PASSED, [], [])
    assert verdict.messages == 2
    assert released(database) == ["a", "b"]
    assert query("SELECT count(*) FROM passed_evaluations") == [(8,)]
    assert query("SELECT count(*) FROM passed_feedback") == [(3,)]
    with connect(database) as connection, connection.cursor() as cursor:
        assert quality.unchecked_runs(cursor) == []
    assert query("SELECT DISTINCT suite FROM data_quality_results ORDER BY suite") == [
        (suite,) for suite in sorted(SUITES)
    ]
    assert query("SELECT bool_and(success), bool_and(element_count > 0) FROM data_quality_results")
    overview = (tmp_path / RUN / "index.html").read_text()
    assert overview.count("<td>passed</td>") == overview.count("<tr><td>") > 0


def test_the_pages_of_a_run_say_why_and_load_nothing_from_elsewhere(check, query, tmp_path):
    query("UPDATE model_evaluations SET accuracy = 1.7 WHERE device_id = '*' RETURNING 1")

    check()

    overview = (tmp_path / RUN / "index.html").read_text()
    first = overview.partition("<tr><td>")[2].partition("</tr>")[0]
    assert first.startswith("<strong>critical</strong>")
    assert "1.7" in first
    (linked,) = set(re.findall(r'href="([^"]+)"', first))
    assert (tmp_path / RUN / linked).is_file()
    loaded = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']https?:""", re.I)
    pages = list((tmp_path / RUN).rglob("*.html"))
    assert len(pages) > len(SUITES)
    assert [page for page in pages if loaded.search(page.read_text())] == []


@pytest.mark.parametrize(("rule", "statement"), POISONS.items(), ids=POISONS)
def test_a_poisoned_run_is_quarantined_by_the_rule_s_name(rule, statement, check, query, database):
    query(statement)

    verdict = check()

    assert verdict.status is QualityStatus.QUARANTINED
    assert rule in names(verdict.failed)
    assert released(database) == []
    assert query("SELECT state, is_quarantined FROM outbox GROUP BY 1, 2") == [("held", True)]
    assert query("SELECT count(*) FROM passed_evaluations") == [(0,)]
    assert query("SELECT count(*) FROM passed_feedback") == [(0,)]
    [(severity, why)] = query(
        "SELECT severity, reason FROM data_quality_results"
        " WHERE NOT success AND suite || '.' || rule = %s",
        rule,
    )
    assert (severity, bool(why)) == ("critical", True)


def test_every_broken_rule_is_named(check, query):
    for statement in OTHER_POISONS.values():
        query(statement)

    verdict = check()

    assert names(verdict.failed) >= set(OTHER_POISONS)


def test_a_run_without_rows_is_quarantined(check, query):
    query("DELETE FROM model_evaluations")

    assert "model_evaluations.rows_exist" in names(check().failed)


def test_a_failing_row_is_kept_as_an_example_by_its_key(check, query):
    query(POISONS["model_evaluations.accuracy_is_a_share"])

    check()

    assert query(
        "SELECT element_count, unexpected_count, failing_examples FROM data_quality_results"
        " WHERE rule = 'accuracy_is_a_share' AND suite = 'model_evaluations'"
    ) == [(8, 1, [{"accuracy": 1.7, "model_version": 3, "device_id": "a"}])]


def test_a_run_that_was_repaired_is_released_by_another_check(check, query, database):
    query("UPDATE model_evaluations SET accuracy = 1.7 WHERE device_id = 'a'")
    assert check().status is QualityStatus.QUARANTINED

    query("UPDATE model_evaluations SET accuracy = 0.9 WHERE device_id = 'a'")
    verdict = check()

    assert verdict.status is QualityStatus.PASSED
    assert released(database) == ["a", "b"]
    assert query("SELECT count(*) FROM passed_evaluations") == [(8,)]
    # The check of the same DAG run was repeated: its results are there once.
    assert query("SELECT count(*) FROM data_quality_results WHERE NOT success") == [(0,)]


def test_a_quarantined_run_holds_up_no_later_feedback(check, query, database):
    query("UPDATE model_evaluations SET accuracy = 1.7 WHERE device_id = 'a'")
    query(
        "INSERT INTO outbox (topic, key, value, state)"
        " VALUES ('model-feedback', 'a', '{\"evaluation_run_id\": \"v4\"}', 'ready')"
    )
    assert released(database) == []

    check()

    assert released(database) == ["a"]


def test_a_warning_annotates_and_releases(check, query):
    query("UPDATE analysis_days SET late_rows = 7")

    verdict = check()

    assert verdict.status is QualityStatus.PASSED
    assert names(verdict.warned) == {"batch_analysis_results.day_is_complete"}


def test_an_accuracy_far_from_last_week_s_is_a_warning(check, query):
    query(
        "INSERT INTO model_evaluations"
        " SELECT (jsonb_populate_record(made, jsonb_build_object("
        "'window_end', made.window_end - number * INTERVAL '10 minutes', 'accuracy',"
        " 0.5 + 0.01 * (number % 2), 'evaluation_run_id', 'v1', 'quality_status', 'passed'))).*"
        " FROM model_evaluations AS made CROSS JOIN generate_series(1, 10) AS number"
        " WHERE device_id = '*' AND model_version = 1"
    )

    verdict = check()

    assert verdict.status is QualityStatus.PASSED
    assert names(verdict.warned) == {"model_evaluations.accuracy_is_like_last_week"}


def test_what_forks_tasks_loads_the_library_once_and_other_processes_do_not(monkeypatch):
    assert not preload(["airflow", "triggerer"])
    assert not preload(["airflow", "celery", "flower"])
    assert preload(["airflow", "scheduler"])
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    assert not preload(["airflow", "scheduler"])
    assert preload(["airflow", "celery", "worker"])


class TestCheckOfARound:
    @pytest.fixture(autouse=True)
    def open_round(self, database):
        with connect(database) as connection, connection.cursor() as cursor:
            fill_round(cursor, 4)

    def test_of_good_updates_lets_it_be_averaged_and_keeps_the_results(self, database, query):
        check_round(database, 4, "a-dag-run")

        assert query(
            "SELECT bool_and(success), count(*) > 5 FROM data_quality_results"
            " WHERE run_id = 'round-4'"
        ) == [(True, True)]

    @pytest.mark.parametrize(
        ("rule", "statement"),
        {
            "positions_are_unique": "UPDATE local_models SET kafka_offset = 12,"
            " kafka_timestamp = kafka_timestamp + INTERVAL '1 second' WHERE kafka_offset = 13",
            "weights_are_finite": "UPDATE local_models SET weights[1] = 'NaN'"
            " WHERE kafka_offset = 12",
            "rows_add_up": "UPDATE local_models SET rows_labelled = 3 WHERE kafka_offset = 12",
            "every_update_is_there": "DELETE FROM local_models WHERE aggregation_round = 4",
        }.items(),
    )
    def test_of_bad_updates_names_the_rule_and_leaves_it_open(
        self, rule, statement, database, query
    ):
        query(statement)

        with pytest.raises(BadRoundError, match=f"local_models.{rule} "):
            check_round(database, 4, "a-dag-run")

        assert query("SELECT state FROM aggregation_rounds WHERE round = 4") == [("open",)]
        assert query(
            "SELECT rule FROM data_quality_results WHERE run_id = 'round-4' AND NOT success"
            " AND rule = %s",
            rule,
        ) == [(rule,)]
