"""The clients of servers on loopback go there directly, whatever proxy the environment names."""

import http.server
import json
import threading

import pytest

from flead.stack.airflow_rest import AirflowClient
from flead.stack.flink_rest import FlinkClient


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "RUNNING", "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
        airflow.wait_for_dag("deploy_training", timeout_seconds=0)
