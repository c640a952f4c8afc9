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

from flead_airflow.flink.errors import FlinkRestError
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


class Cluster:
    """Answers `GET /overview`, at first with the statuses that it is told to."""

    def __init__(self):
        self.statuses = []
        self.seen = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.seen.append(self.headers.get("Authorization"))
                status = outer.statuses.pop(0) if outer.statuses else 200
                body = OVERVIEW if status == httpx.codes.OK else {"errors": ["not now"]}
                content = json.dumps(body).encode()
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
