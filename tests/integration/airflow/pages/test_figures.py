"""A page shows what the database has, and says what to do where it has nothing."""

import html
import json
import re
from datetime import timedelta

import pytest

from flead.storage.copying import Jsonb
from flead_airflow.pages import URL_PREFIX, device
from flead_airflow.pages.formats import NOTHING

pytestmark = pytest.mark.servers

SECTIONS = ["overview", "devices", "pipeline", "models", "quality", "tuning"]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def read(viewer):
    """Return the function that reads a page: its text without markup, spaces made one."""

    def text_of(path):
        answer = viewer.get(f"{URL_PREFIX}/{path}")
        assert answer.status_code == 200, answer.text
        text = re.sub(r"<script.*?</script>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
        return re.sub(r"\s+", " ", html.unescape(text))

    return text_of


@pytest.fixture
def charts(viewer):
    """Return the function that reads the charts of a page: by id, the points of each series."""

    def points_of(path):
        found = re.findall(
            r'<script type="application/json" id="([^"]+)-data">(.*?)</script>',
            viewer.get(f"{URL_PREFIX}/{path}").text,
        )
        return {
            name: {each["name"]: each["points"] for each in json.loads(chart)["series"]}
            for name, chart in found
        }

    return points_of


class TestNothingYet:
    @pytest.mark.parametrize("section", SECTIONS)
    def test_an_empty_fleet_is_told_what_to_do(self, section, fleet, read):
        text = read(section)

        assert re.search("yet|No device has sent", text)
        assert "%" not in text

    @pytest.mark.parametrize("section", SECTIONS)
    def test_a_database_without_tables_leads_to_the_first_deployment(
        self, section, read, database_connection
    ):
        assert "Trigger deploy_training" in read(section)

    @pytest.mark.parametrize("page", ["overview", "models/1/download"])
    def test_a_database_that_does_not_answer_is_said_so(self, page, viewer, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", "postgresql://flead:wrong@127.0.0.1:1/flead")

        answer = viewer.get(f"{URL_PREFIX}/{page}")

        assert answer.status_code == 503
        assert "The database does not answer" in answer.text
        assert "wrong" not in answer.text

    def test_a_connection_that_is_not_there_is_named(self, viewer, monkeypatch):
        monkeypatch.delenv("AIRFLOW_CONN_FLEAD_DB", raising=False)

        answer = viewer.get(f"{URL_PREFIX}/overview")

        assert answer.status_code == 503
        assert "flead_db" in answer.text

    @pytest.mark.parametrize("page", ["devices/none", "devices/a%00b", "models/compare?a=1&b=2"])
    def test_what_there_is_not_is_not_found(self, page, fleet, viewer):
        answer = viewer.get(f"{URL_PREFIX}/{page}", headers={"Accept": "text/html"})

        assert answer.status_code == 404
        assert "<h1>There is no " in answer.text
        assert "<title>There is no " in answer.text


class TestOverview:
    def test_shows_the_head_and_what_the_newest_measured_version_was_measured_at(self, fleet, read):
        measured = {"metrics_rows": 400, "metrics_log_loss_sum": 50.0, "metrics_tp": 20}
        fleet.version(1, at=3 * MINUTE, **measured, metrics_tn=360, metrics_fp=20)
        fleet.version(2, at=2 * MINUTE)
        fleet.device("pump-1")
        fleet.device("pump-2", at=timedelta(hours=1))
        fleet.reading()

        text = read("overview")

        assert "Global model Version 2 promoted 2 min ago" in text
        assert "Accuracy 95.0 % of version 1, on 400 rows" in text
        assert "Log loss 0.1250 of version 1" in text
        assert "Devices 1 of 2 report" in text
        assert "Rows a second 516" in text
        assert "Updates a second 40.1" in text
        assert "Lag 2.5 s 1,307 rows wait" in text

    def test_marks_what_became_of_each_version(self, fleet, charts):
        rows = {"metrics_rows": 10, "metrics_log_loss_sum": 2.0, "metrics_tp": 1}
        for number, status in enumerate(("promoted", "rejected", "rolled_back", "candidate"), 1):
            fleet.version(number, head=number == 1, status=status, **rows, metrics_tn=number)

        accuracy = charts("overview")["accuracy"]

        assert accuracy["promoted"] == [[1, 0.2]]
        assert accuracy["rejected"] == [[2, 0.3]]
        assert accuracy["rolled back"] == [[3, 0.4]]
        assert accuracy["candidate"] == [[4, 0.5]]

    def test_a_fleet_without_labels_never_shows_an_accuracy(self, fleet, read, charts):
        fleet.version(1)
        unmeasured = dict.fromkeys(("accuracy", "log_loss", "global_accuracy", "global_log_loss"))
        fleet.device("pump-1", rows_labelled=0, **unmeasured)
        fleet.update("pump-1", MINUTE, 1, rows_labelled=0, accuracy=None, global_metrics=None,
                     personalized_metrics=None, label_source="zscore")  # fmt: skip

        for page in ("overview", "devices", "devices/pump-1", "models", "pipeline"):
            assert "%" not in read(page), page
            assert charts(page).keys() & {"accuracy", "loss"} == set()
        assert "no labels, so nothing is measured" in read("overview")

    def test_names_what_needs_a_person(self, fleet, read):
        fleet.version(1)
        fleet.reading(
            verdict="breached",
            reasons=Jsonb([{"rule": "lag_seconds", "value": 400.0, "limit": 315.0}]),
        )
        fleet.device("pump-1", training_status="drifting")
        fleet.evaluation("v1-run", [1], quality_status="quarantined")
        fleet.decision(3, status="awaiting_approval", decided_at=None, settled_at=None)

        text = read("overview")

        assert "lag seconds: 400 (limit 315)" in text
        assert "1 device drifts" in text
        assert "1 evaluation in quarantine" in text
        assert "A tuning decision (revision 3) waits for an approval" in text

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (1, "1 message waits longer than 5 minutes to be published"),
            (2, "2 messages wait longer than 5 minutes to be published"),
        ],
    )
    def test_counts_the_messages_that_wait_too_long(self, number, told, fleet, read):
        for _ in range(number):
            fleet.write(
                "outbox",
                {"topic": "evaluation-feedback", "key": "pump-1", "state": "ready", "value": "{}",
                 "created_at": fleet.now - 6 * MINUTE},
            )  # fmt: skip

        assert told in read("overview")

    def test_leads_from_the_newest_anomalies_to_their_devices(self, fleet, viewer, read):
        for number in range(7):
            fleet.anomaly(f"pump {number}", at=number * MINUTE, offset=number)

        page = viewer.get(f"{URL_PREFIX}/overview").text

        links = re.findall(r'href="([^"]+)">pump \d</a>', page)
        assert links[0] == f"{URL_PREFIX}/devices/pump%200?feature=speed"
        assert len(links) == 5
        assert "pump 1 speed +4.25 87.5 % 1 min ago" in read("overview")

    def test_a_gate_that_takes_no_readings_any_more_is_said_so(self, fleet, read):
        fleet.reading(at=20 * MINUTE)

        text = read("overview")

        assert "The health gate took its last reading 20 minutes ago" in text
        assert "Rows a second 516 read 20 min ago" in text
        assert "Updates a second 40.1 read 20 min ago" in text
        assert "Lag 2.5 s 1,307 rows wait, read 20 min ago" in text
        assert "not read any more" in read("pipeline")

    def test_a_clock_that_is_ahead_does_not_hide_the_anomalies_of_others(self, fleet, read):
        fleet.anomaly("ahead", at=timedelta(days=-365), offset=1)
        fleet.anomaly("pump-1", at=MINUTE, offset=2)

        text = read("overview")

        assert "pump-1 speed" in text
        assert "ahead" not in text

    def test_shows_the_newest_hyperparameters_and_rounds(self, fleet, read):
        for revision, rate in enumerate((0.05, 0.0125), 1):
            value = {"revision": revision, "hyperparameters": {"learning_rate": rate}, "trials": []}
            fleet.write(
                "outbox",
                {"topic": "training-control", "key": "control", "state": "ready",
                 "value": json.dumps(value)},
            )  # fmt: skip
        fleet.version(1)

        text = read("overview")

        assert "revision 2, waiting" in text
        assert "learning rate 0.0125" in text
        assert f" 1 aggregated 40 37 1 {NOTHING} 2.0 s " in text


class TestDevices:
    @pytest.fixture
    def many(self, fleet):
        unmeasured = dict.fromkeys(("log_loss", "accuracy", "global_accuracy"))
        fleet.devices(
            {"device_id": "a", "log_loss": 0.1, "accuracy": 0.99},
            {"device_id": "b", "log_loss": 0.9, "accuracy": 0.5},
            {"device_id": "c", "log_loss": 0.2, "training_status": "drifting"},
            {"device_id": "d_50%", "rows_labelled": 0, **unmeasured},
            {"device_id": "e", "log_loss": 0.3, "kafka_timestamp": fleet.now - 60 * MINUTE},
            {"device_id": "f", "training_status": "drifting", "rows_labelled": 0, **unmeasured},
            *(
                {"device_id": f"x-{number:02}", "log_loss": 0.05, "training_status": "converged"}
                for number in range(60)
            ),
        )

    @pytest.fixture
    def names(self, viewer):
        def listed(query=""):
            page = viewer.get(f"{URL_PREFIX}/devices{query}").text
            return re.findall(r'<th scope="row"><a[^>]*>([^<]*)</a>', page)

        return listed

    def test_the_worst_come_first(self, many, names):
        assert names()[:6] == ["c", "f", "b", "e", "a", "x-00"]

    def test_pages_follow_each_other_without_a_gap(self, many, names, read):
        pages = [names(f"?page={page}") for page in (1, 2, 3)]

        assert [len(page) for page in pages] == [25, 25, 16]
        assert len({name for page in pages for name in page}) == 66
        assert pages[2][-1] == "d_50%"
        assert "51 to 66 of 66" in read("devices?page=3")

    @pytest.mark.parametrize(
        ("query", "first"),
        [
            ("?sort=device", "a"),
            ("?sort=device&order=desc", "x-59"),
            ("?sort=accuracy", "b"),
            ("?sort=accuracy&order=desc", "a"),
            ("?sort=log_loss&order=asc", "x-00"),
            ("?sort=seen&order=asc", "e"),
            ("?sort=worst&order=asc", "x-00"),
        ],
    )
    def test_columns_sort_both_ways(self, query, first, many, names):
        assert names(query)[0] == first

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("?status=drifting", ["c", "f"]),
            ("?status=silent", ["e"]),
            ("?search=X-1&status=converged", [f"x-{number}" for number in range(10, 20)]),
            ("?search=50%25", ["d_50%"]),
            ("?search=_", ["d_50%"]),
            ("?search=nothing'; --", []),
        ],
    )
    def test_status_and_name_narrow_the_list(self, query, found, many, names):
        assert sorted(names(query)) == found

    @pytest.mark.parametrize(
        ("query", "kept"),
        [
            ("", {}),
            ("?sort=accuracy&order=desc", {"sort": "accuracy", "order": "desc"}),
            ("?sort=accuracy&order=asc", {"sort": "accuracy"}),
            ("?order=asc&status=drifting", {"status": "drifting", "order": "asc"}),
        ],
    )
    def test_a_search_keeps_status_and_order(self, query, kept, many, viewer):
        page = viewer.get(f"{URL_PREFIX}/devices{query}").text

        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)">', page)
        assert dict(hidden) == kept

    @pytest.mark.parametrize("query", ["?sort=device_id; DROP", "?page=0", "?status=odd"])
    def test_what_cannot_be_asked_for_is_refused(self, query, fleet, viewer):
        assert viewer.get(f"{URL_PREFIX}/devices{query}").status_code == 422

    def test_a_row_has_the_figures_of_the_newest_window(self, fleet, read):
        fleet.device("a", at=3 * MINUTE, accuracy=0.875, log_loss=0.34567, learning_rate=0.0375)
        fleet.anomaly("a", at=10 * MINUTE, offset=1)
        fleet.anomaly("a", at=20 * MINUTE, offset=2)
        fleet.anomaly("a", at=90 * MINUTE, offset=3)

        assert "a training 87.5 % 0.3457 80.0 % 2 0.0375 3 min ago" in read("devices")

    def test_a_clock_that_is_ahead_does_not_end_the_hour_of_others(self, fleet, read):
        fleet.device("a", at=3 * MINUTE)
        fleet.anomaly("a", at=10 * MINUTE, offset=1)
        fleet.anomaly("ahead", at=timedelta(days=-365), offset=2)

        assert "a training 90.0 % 0.2500 80.0 % 1 0.05 3 min ago" in read("devices")

    def test_a_name_is_shown_as_text_and_leads_to_its_page(self, fleet, viewer):
        fleet.device("plant/line <b>&1</b>")

        page = viewer.get(f"{URL_PREFIX}/devices").text

        assert "<b>&1" not in page
        link = re.search(r'<th scope="row"><a href="([^"]+)"', page)[1]
        assert "plant/line &lt;b&gt;" in viewer.get(link).text


class TestDevice:
    @pytest.fixture
    def pump(self, fleet):
        fleet.round(1)
        fleet.device("pump-1")
        for offset, minutes in enumerate((50, 40, 30), 1):
            fleet.sample("pump-1", minutes * MINUTE, offset, probability=offset / 8)
        fleet.anomaly("pump-1", 35 * MINUTE, 9)
        fleet.anomaly("pump-1", timedelta(hours=5), 10)
        fleet.sample("other", 30 * MINUTE, 20)
        fleet.update("pump-1", 2 * MINUTE, 30)
        fleet.update("pump-1", MINUTE, 31, learning_rate=0.025)

    def test_draws_the_stream_with_its_anomalies(self, pump, charts):
        drawn = charts("devices/pump-1")

        assert [value for _, value in drawn["stream"]["speed"]] == [30, 30, 30]
        assert [value for _, value in drawn["stream"]["anomaly"]] == [77.5]
        assert [value for _, value in drawn["probability"]["sample"]] == [0.125, 0.25, 0.375]
        assert [value for _, value in drawn["probability"]["anomaly by z-score"]] == [0.875]
        assert [value for _, value in drawn["z-scores"]["z-score"]] == [4.25]

    def test_the_stream_ends_with_its_newest_row_not_with_the_begin_of_its_slot(
        self, fleet, viewer
    ):
        newest = fleet.now - MINUTE
        for offset, (row, slot) in enumerate([(0, 14), (2, 14), (6, 29)], 1):
            fleet.sample(
                "pump-1", MINUTE + timedelta(seconds=row), offset,
                slot_start=newest - timedelta(seconds=slot),
            )  # fmt: skip

        page = viewer.get(f"{URL_PREFIX}/devices/pump-1").text

        stream = json.loads(re.search(r'id="stream-data">(.*?)</script>', page)[1])
        assert stream["ends"][1] == newest.timestamp() * 1_000

    def test_reaches_back_as_far_as_asked(self, pump, charts):
        assert len(charts("devices/pump-1?reach=6h")["z-scores"]["z-score"]) == 2
        assert "speed" in charts("devices/pump-1?reach=1h")["stream"]

    def test_says_that_there_may_be_more_anomalies_than_it_draws(
        self, pump, fleet, read, monkeypatch
    ):
        fleet.anomaly("pump-1", 36 * MINUTE, 11)
        fleet.anomaly("pump-1", 37 * MINUTE, 12)
        assert "Anomalies 3 in the 1h shown" in read("devices/pump-1")

        monkeypatch.setattr(device, "ANOMALIES", 2)

        text = read("devices/pump-1")
        assert "Anomalies 2 or more in the 1h shown; the newest 2 are drawn" in text
        assert "Anomalies, the newest 2 of 2 or more" in text

    def test_another_feature_is_drawn_when_asked_for(self, pump, charts):
        stream = charts("devices/pump-1?feature=pressure")["stream"]

        assert [value for _, value in stream["pressure"]] == [1.5, 1.5, 1.5]
        assert "anomaly" not in stream

    def test_marks_an_anomaly_with_the_value_of_its_own_row_only(self, pump, fleet, charts):
        both = '{"speed": 4.25, "pressure": 3.0}'
        fleet.sample("pump-1", 20 * MINUTE, 40, features='{"pressure": 9.5, "speed": 30}')
        fleet.anomaly("pump-1", 20 * MINUTE, 40, features=both)
        fleet.sample("pump-1", 10 * MINUTE, 42, features='{"speed": 30}')
        for at, offset in ((30, 41), (10, 43)):
            fleet.anomaly("pump-1", at * MINUTE, offset, features=both)

        stream = charts("devices/pump-1?feature=pressure")["stream"]

        assert [value for _, value in stream["anomaly"]] == [9.5]

    def test_compares_the_personalized_with_the_global_model_on_the_same_rows(self, pump, charts):
        drawn = charts("devices/pump-1")

        assert [value for _, value in drawn["accuracy"]["personalized"]] == [0.875, 0.875]
        assert [value for _, value in drawn["accuracy"]["global"]] == [0.75, 0.75]
        assert [value for _, value in drawn["loss"]["global"]] == [0.5, 0.5]
        assert [value for _, value in drawn["rate"]["learning rate"]] == [0.0375, 0.025]

    def test_shows_only_evaluations_and_feedback_that_have_passed(self, pump, fleet, read):
        shared = {"window_start": fleet.now, "window_end": fleet.now, "device_id": "pump-1",
                  "status": "evaluated", "evaluation_timestamp": fleet.now, "rows": 60,
                  "samples": 60, "tp": 6, "fp": 3, "tn": 51, "fn": 0, "log_loss_sum": 9.0,
                  "brier_sum": 1.0, "log_loss": 0.15}  # fmt: skip
        feedback = {"kafka_partition": 0, "event_time": fleet.now, "device_id": "pump-1",
                    "evaluation_run_id": "r", "evaluation_timestamp": fleet.now, "actual": 0,
                    "error": 0.375, "confidence": 0.25, "prediction": 0.375}  # fmt: skip
        for version, verdict, accuracy in ((71, "passed", 0.95), (72, "quarantined", 0.11)):
            judged = {"model_version": version, "quality_status": verdict}
            fleet.write("model_evaluations", shared | judged | {"accuracy": accuracy})
            fleet.write("model_feedback", feedback | judged | {"kafka_offset": version})

        text = read("devices/pump-1")

        assert "71 60 95.0 %" in text
        assert "71 37.5 % normal 0.375 0.250" in text
        assert "72" not in re.sub(r"\d\d:\d\d:\d\d", "", text)


class TestPipeline:
    def test_shows_each_part_with_its_figures(self, fleet, read):
        fleet.version(1, at=2 * MINUTE)
        fleet.reading()
        fleet.evaluation("v1-run", [1], at=MINUTE)

        text = read("pipeline")

        assert "Training job Flink ok state running vertices 6 of 6 rows/s 516" in text
        assert "edge-iiot-stream topic ok rows wait 1,307 the oldest for 2.5 s" in text
        assert "Aggregation Airflow ok round 1, 2 min ago updates 37 of 40" in text
        assert "Model evaluation Spark ok versions 1 labelled rows 1,900 run 1 min ago" in text

    def test_an_accuracy_has_the_version_that_it_was_measured_of(self, fleet, read):
        measured = {"metrics_rows": 400, "metrics_log_loss_sum": 50.0, "metrics_tp": 20}
        fleet.version(1, at=3 * MINUTE, **measured, metrics_tn=360, metrics_fp=20)
        fleet.version(2, at=2 * MINUTE)

        text = read("pipeline")

        assert (
            "global-model-updates topic ok version 2, 2 min ago accuracy 95.0 % of version 1"
            in text
        )

    def test_a_model_that_was_not_measured_has_no_accuracy(self, fleet, read):
        fleet.version(2, at=2 * MINUTE)

        assert f"version 2, 2 min ago accuracy {NOTHING} " in read("pipeline")

    def test_a_broken_rule_shows_at_the_part_that_it_is_about(self, fleet, read):
        broken = [{"rule": "stream_lag_seconds", "value": 400.0, "limit": 330.0}]
        fleet.reading(verdict="breached", reasons=Jsonb(broken), stream_lag_rows=9_000)
        fleet.write(
            "stream_deployments",
            {"deployment_id": "s", "state": "active", "configuration": "{}"},
        )

        text = read("pipeline")

        assert "Stream analysis Spark bad rows wait 9,000" in text
        assert "Training job Flink ok" in text

    def test_an_old_reading_says_nothing_of_now(self, fleet, read):
        broken = [{"rule": "stream_lag_seconds", "value": 400.0, "limit": 330.0}]
        fleet.reading(
            at=20 * MINUTE, verdict="breached", reasons=Jsonb(broken), job_state=None,
            flink_error="refused", kafka_error="refused", stream_state="lost",
        )  # fmt: skip
        fleet.write(
            "stream_deployments",
            {"deployment_id": "s", "state": "active", "configuration": "{}"},
        )

        text = read("pipeline")

        assert "Stream analysis Spark unknown" in text
        assert "edge-iiot-stream topic unknown" in text
        assert "Training job Flink not deployed" in text


class TestModels:
    def test_compares_named_weights_the_largest_change_first(self, fleet, read):
        fleet.version(1, weights=[0.5, 0, 0, 0, 0, 0, 0, 0.25], intercept=-1.0)
        fleet.version(2, weights=[0.5, 0, 0, 0, 0, 0, 0, -0.5], intercept=-1.25)

        text = read("models/compare?a=1&b=2")

        assert "Distance 0.7906" in text
        first = "speed.rolling_std +0.2500 -0.5000 -0.7500 intercept -1.0000 -1.2500 -0.2500"
        assert first in text

    def test_models_of_different_features_are_not_compared(self, fleet, viewer):
        fleet.version(1)
        fleet.version(2, head=False, feature_schema="other")

        assert viewer.get(f"{URL_PREFIX}/models/compare?a=1&b=2").status_code == 409

    def test_says_what_was_decided_on_what(self, fleet, read):
        fleet.version(1)
        fleet.write(
            "promotion_decisions",
            {"version": 1, "decision": "promoted", "reason": "the first of its schema",
             "decided_by": "aggregation_round"},
        )  # fmt: skip

        assert f"1 promoted in use {NOTHING} 12" in read("models")
        assert "the first of its schema" in read("models")

    def test_the_newest_versions_come_first_and_the_others_on_further_pages(self, fleet, viewer):
        for number in range(1, 31):
            fleet.version(number, head=number == 30)

        pages = [viewer.get(f"{URL_PREFIX}/models?page={page}").text for page in (1, 2)]

        shown = [re.findall(r'id="version-(\d+)"', page) for page in pages]
        assert shown[0][0] == "30"
        assert shown[1] == ["5", "4", "3", "2", "1"]


class TestQuality:
    def test_shows_the_rules_of_a_run_with_failing_examples(self, fleet, read):
        fleet.evaluation("v7-run", [7], quality_status="quarantined")
        fleet.result("v7-run", "a_rule_that_held")
        fleet.result(
            "v7-run", "accuracy_fits_counts", success=False, unexpected_count=2,
            failing_examples=Jsonb([{"device_id": "pump-1", "accuracy_gap": 0.25}]),
        )  # fmt: skip

        text = read("quality")

        assert "7 quarantined 2 1 0 1,900" in text
        assert text.index("accuracy fits counts", text.index("What was checked")) < text.index(
            "a rule that held"
        )
        assert "device_id accuracy_gap pump-1 0.25" in text

    def test_a_run_is_shown_as_it_was_checked_last(self, fleet, read):
        fleet.evaluation("v7-run", [7])
        fleet.result("v7-run", "once_broken", at=9 * MINUTE, success=False, unexpected_count=1)
        fleet.result("v7-run", "once_broken", at=MINUTE)

        assert "7 passed 1 0 0" in read("quality")


class TestTuning:
    def test_shows_a_decision_with_its_evidence_and_the_way_to_approve_it(
        self, fleet, viewer, read
    ):
        trial = {"trial": "3-1", "fraction": 0.1, "hyperparameters": {"learning_rate": 0.2}}
        other = {"trial": "3-2", "fraction": 0.1, "hyperparameters": {"learning_rate": 0.1}}
        arm = {"trial": "3-1", "devices": 41, "mean_difference": -0.034, "p_value": 0.002,
               "p_holm": 0.006}  # fmt: skip
        lost = {"trial": "3-2", "devices": 40, "mean_difference": 0.004, "p_value": 0.41,
                "p_holm": 0.41}  # fmt: skip
        judged = {"control_devices": 280, "control_mean": -0.012, "arms": [lost, arm],
                  "winner": "3-1"}  # fmt: skip
        fleet.decision(
            3, status="awaiting_approval", decided_at=None, settled_at=None,
            reason="3-1 has won by far",
            trials=Jsonb([other, trial]), evidence=Jsonb({"judgement": judged}),
        )  # fmt: skip

        text = read("tuning")

        assert "learning rate 0.05 → 0.2" in text
        assert "3-1 learning rate 0.2 10.0 % 41 -0.0340 0.002 0.006 won" in text
        assert "280 devices in the control cohort" in text
        page = viewer.get(f"{URL_PREFIX}/tuning").text
        assert 'href="/required_actions?response_received=false" data-airflow' in page

    def test_other_decisions_ask_for_nothing(self, fleet, viewer):
        fleet.decision(3)

        assert "Decide in Airflow" not in viewer.get(f"{URL_PREFIX}/tuning").text
