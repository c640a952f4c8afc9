"""The clients of servers on loopback go there directly, and say what they are told."""

import http.server
import json
import threading
from typing import ClassVar

import pytest

from flead.stack.airflow_rest import AirflowClient, AirflowError
from flead.stack.flink_rest import FlinkClient


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.answer()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self):
        if self.path.endswith("/taskInstances"):
            return {"task_instances": []}
        return {"status": "RUNNING", "path": self.path, "state": "failed", "is_paused": True}

    def log_message(self, *_):
        """Say nothing on standard error."""


@pytest.fixture
def url(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        # Nothing listens there.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_flink_is_asked_without_a_proxy(url):
    assert FlinkClient(url).job_state("f" * 32) == "RUNNING"


def test_airflow_is_asked_without_a_proxy(url):
    with AirflowClient(url, "admin", "password") as airflow:
        answer = airflow.wait_for_dag("deploy_training", timeout_seconds=0)
    assert answer["path"] == "/api/v2/dags/deploy_training"


def test_a_run_that_failed_is_named_with_its_page(url):
    with AirflowClient(url, "admin", "password") as airflow, pytest.raises(AirflowError) as failure:
        airflow.wait("daily_batch_analysis", "manual__2026-03-02T01:00:00+00:00", 10)

    assert str(failure.value) == (
        "daily_batch_analysis run manual__2026-03-02T01:00:00+00:00 failed; see "
        f"{url}/dags/daily_batch_analysis/runs/manual__2026-03-02T01%3A00%3A00%2B00%3A00"
    )


def test_a_dag_that_is_paused_is_not_triggered(url):
    with (
        AirflowClient(url, "admin", "password") as airflow,
        pytest.raises(AirflowError, match="daily_batch_analysis is paused: let it run again on "),
    ):
        airflow.trigger("daily_batch_analysis", {})


class LateAnswer(Answer):
    """Makes a run for each id, and fails to say so when it is first asked."""

    made: ClassVar[list[str]] = []

    def answer(self):
        return {"is_paused": False, "state": "running"}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 409 if body["dag_run_id"] in self.made else 503
        if status == 503:
            self.made.append(body["dag_run_id"])
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_a_run_whose_answer_got_lost_is_started_once():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LateAnswer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with AirflowClient(f"http://127.0.0.1:{server.server_port}", "admin", "no") as airflow:
            run_id = airflow.trigger("deploy_training", {})
        server.shutdown()

    assert LateAnswer.made == [run_id]
    assert run_id.startswith("manual__")
