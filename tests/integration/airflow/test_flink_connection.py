"""How the hook reaches a cluster: TLS, basic auth, and what is tried again.

Flink's own REST endpoint has no accounts; a proxy before it has, and so has this server.
"""

import base64
import datetime
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flead_airflow.flink import hook as hook_module
from flead_airflow.flink.errors import FlinkRestError, FlinkSubmissionError, FlinkUnreachableError
from flead_airflow.flink.hook import FlinkRestHook

OVERVIEW = {
    "taskmanagers": 1,
    "slots-total": 4,
    "slots-available": 3,
    "jobs-running": 1,
    "flink-version": "2.3.0",
}


def certificate(folder, name):
    """Write a self-signed certificate for 127.0.0.1 and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(cert_file), str(key_file)


JAR = {"id": "1_flink-python.jar", "name": "flink-python.jar", "uploaded": 1}
CHECKPOINTS = {
    "counts": {"restored": 0, "total": 0, "in_progress": 0, "completed": 0, "failed": 0},
    "latest": {"completed": None, "savepoint": None, "failed": None, "restored": None},
}


class Cluster:
    """Answers `GET /overview` and what else it has, at first with the statuses it is told to."""

    def __init__(self):
        self.answers = {"/overview": OVERVIEW}
        self.refusal = json.dumps({"errors": ["not now"]})
        self.statuses = []
        self.seen = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_GET(self):
                outer.seen.append(self.headers.get("Authorization"))
                status = outer.statuses.pop(0) if outer.statuses else 200
                found = status == httpx.codes.OK
                text = json.dumps(outer.answers[self.path]) if found else outer.refusal
                content = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def cluster():
    made = Cluster()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def connect(cluster, monkeypatch):
    """Return the function that starts the server and makes a hook for it."""

    def make(context=None, login=None, password=None, **extra):
        if context:
            cluster.server.socket = context.wrap_socket(cluster.server.socket, server_side=True)
        threading.Thread(target=cluster.server.serve_forever, daemon=True).start()
        connection = {
            "conn_type": "http",
            "schema": "https" if context else "http",
            "host": "127.0.0.1",
            "port": cluster.server.server_port,
            "login": login,
            "password": password,
            "extra": extra,
        }
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER", json.dumps(connection))
        return FlinkRestHook("cluster")

    return make


@pytest.fixture
def own(tmp_path):
    return certificate(tmp_path, "cluster")


@pytest.fixture
def tls(own):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    return context


def test_sends_login_and_password_as_basic_auth(cluster, connect):
    with connect(login="airflow", password="se:cret") as hook:
        assert hook.overview().slots_available == 3

    assert cluster.seen == ["Basic " + base64.b64encode(b"airflow:se:cret").decode()]


def test_sends_no_account_without_a_login(cluster, connect):
    with connect() as hook:
        hook.overview()

    assert cluster.seen == [None]


def test_trusts_the_authority_that_the_connection_names(connect, tls, own):
    with connect(tls, ca_file=own[0]) as hook:
        assert hook.overview().flink_version == "2.3.0"


def test_trusts_nobody_else(connect, tls, tmp_path):
    another, _ = certificate(tmp_path, "another")

    with connect(tls, ca_file=another) as hook, pytest.raises(httpx.ConnectError, match="verify"):
        hook.overview()


def test_accepts_any_certificate_when_it_is_told_to(connect, tls):
    with connect(tls, verify=False) as hook:
        assert hook.overview().taskmanagers == 1


def test_shows_its_own_certificate_to_a_cluster_that_asks_for_it(connect, tls, own, tmp_path):
    cert_file, key_file = certificate(tmp_path, "airflow")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cert_file)

    with connect(tls, ca_file=own[0], cert_file=cert_file, key_file=key_file) as hook:
        assert hook.overview().slots_total == 4


def test_shows_its_own_certificate_to_a_cluster_whose_own_it_does_not_check(connect, tls, tmp_path):
    cert_file, key_file = certificate(tmp_path, "airflow")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cert_file)

    with connect(tls, verify=False, cert_file=cert_file, key_file=key_file) as hook:
        assert hook.overview().slots_total == 4


def test_says_why_a_script_failed_also_when_its_log_cannot_be_read(cluster, connect):
    cluster.answers = {"/jars": {"files": [JAR]}, "/jobmanager/thread-dump": {"threadInfos": []}}
    # the jar, the scripts that run, whether there is such a job, the POST, and the log
    cluster.statuses = [200, 200, 404, 400, *[503] * 5]
    cluster.refusal = json.dumps({"errors": ["org.apache.flink.util.FlinkException: it broke"]})

    with (
        connect(python_jar="flink-python.jar") as hook,
        pytest.raises(FlinkSubmissionError, match=r"it broke\n.*could not be read.*HTTP 503"),
    ):
        hook.run_python_job("0" * 32, "job.py")


def test_tries_again_what_the_cluster_could_not_answer(cluster, connect):
    cluster.statuses = [503, 500]

    with connect() as hook:
        assert hook.overview().jobs_running == 1

    assert len(cluster.seen) == 3


def test_does_not_try_again_what_was_refused(cluster, connect):
    cluster.statuses = [401]

    with connect() as hook, pytest.raises(FlinkRestError, match="HTTP 401: not now"):
        hook.overview()

    assert len(cluster.seen) == 1


def test_gives_up_after_five_tries(cluster, connect):
    cluster.statuses = [503] * 9

    with connect() as hook, pytest.raises(FlinkRestError, match="HTTP 503"):
        hook.overview()

    assert len(cluster.seen) == 5


@pytest.mark.parametrize(
    "refusal",
    [
        "404 page not found\n",
        "<html><title>default backend - 404</title></html>",
        '{"errors": [{"code": "NOT_FOUND", "message": "no such route"}]}',
        '{"errors": ["no such route"]}',
    ],
)
def test_does_not_take_a_proxy_that_reaches_no_cluster_for_one_without_the_job(
    cluster, connect, refusal
):
    cluster.statuses, cluster.refusal = [404] * 9, refusal

    with connect() as hook, pytest.raises(FlinkUnreachableError, match="HTTP 404"):
        hook.find_job("0" * 32)

    assert len(cluster.seen) == 5


@pytest.mark.parametrize(
    ("configuration", "seconds"),
    [
        ({}, 3.5),
        ({"web.refresh-interval": "20000"}, 20.5),
        ({"web.refresh-interval": "1 min", "rest.cache.checkpoint-statistics.timeout": "2 s"}, 2.5),
    ],
)
def test_waits_for_checkpoints_as_long_as_the_cluster_answers_from_its_cache(
    cluster, connect, configuration, seconds, monkeypatch
):
    waited = []
    monkeypatch.setattr(hook_module.time, "sleep", waited.append)
    entries = [{"key": key, "value": value} for key, value in configuration.items()]
    cluster.answers = {"/jobmanager/config": entries, "/jobs/one/checkpoints": CHECKPOINTS}

    with connect() as hook:
        assert hook.settled_checkpoints("one").latest.completed is None

    assert waited == [seconds]
