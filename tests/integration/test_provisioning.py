"""What the containers' `init` does, and their health check of a broker, on servers of this test."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

import psycopg2
import pytest

from flead.contracts.topics import Topic
from flead.messaging.client import admin
from flead.stack import provisioning
from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.home import CHECKOUT
from flead.storage.connection import connect
from flead.storage.migrations import is_migrated

pytestmark = pytest.mark.servers

HEALTHY = CHECKOUT / "deploy" / "images" / "healthy.py"


@pytest.fixture
def servers(breakable_servers):
    return Addresses.of(breakable_servers, environ={})


@pytest.fixture
def environment(servers, breakable_home, tmp_path):
    """Return what the compose file gives to `init`."""
    credentials = Credentials.of(breakable_home)
    for role in ("superuser", "airflow", "flead", "grafana"):
        (tmp_path / f"postgres_{role}").write_text(getattr(credentials, f"postgres_{role}"))
    where = urlsplit(servers.superuser_url)
    return {
        "FLEAD_SECRETS": str(tmp_path),
        "FLEAD_POSTGRES": f"{where.hostname}:{where.port}",
        "FLEAD_KAFKA": servers.kafka_bootstrap,
    }


def run(environment):
    ran = subprocess.run(
        [sys.executable, "-m", provisioning.__name__],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_after_it_nothing_is_missing_and_changed_passwords_are_set(servers, environment, tmp_path):
    run(environment)
    (tmp_path / "postgres_airflow").write_text("another: p@ssword")

    again = run(environment)

    assert again == ["migrations: none was missing", "topics: none was missing"]
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        assert is_migrated(cursor)
    topics = admin({"bootstrap.servers": servers.kafka_bootstrap}).list_topics(timeout=10).topics
    assert topics.keys() >= set(Topic)
    host, port = environment["FLEAD_POSTGRES"].split(":")
    psycopg2.connect(
        host=host, port=port, user="airflow", dbname="airflow", password="another: p@ssword"
    ).close()


@pytest.mark.parametrize(("node", "status"), [("1", 0), ("2", 1)])
def test_a_broker_is_healthy_when_it_answers_as_itself(servers, node, status):
    asked = subprocess.run(
        [sys.executable, HEALTHY, "kafka", servers.kafka_bootstrap, node], check=False
    )

    assert asked.returncode == status


def test_a_broker_that_does_not_answer_is_not_healthy():
    asked = subprocess.run(
        [sys.executable, HEALTHY, "kafka", "127.0.0.1:9", "1"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert asked.returncode == 1
    assert asked.stderr.startswith("kafka: UnhealthyError: ")
