"""Airflow connections as what the library takes."""

import json

import pytest
from airflow.sdk import Connection
from psycopg2.extensions import parse_dsn

from flead_airflow.connections import database_url, flink_kafka_properties, kafka_properties


def connection(**fields):
    extra = fields.pop("extra", {})
    return Connection(conn_id="flead_test", extra=json.dumps(extra), **fields)


def test_a_database_connection_becomes_a_url_that_libpq_reads_back():
    url = database_url(
        connection(
            conn_type="postgres",
            host="::1",
            port=5433,
            login="us er",
            password="p@ss/w:rd%",
            schema="fl ead",
            extra={"sslmode": "verify-full", "sslrootcert": "/etc/ssl/my ca.pem"},
        )
    )

    assert parse_dsn(url) == {
        "host": "::1",
        "port": "5433",
        "user": "us er",
        "password": "p@ss/w:rd%",
        "dbname": "fl ead",
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ssl/my ca.pem",
    }


def test_a_database_connection_without_account_and_port_leaves_them_to_libpq():
    url = database_url(connection(conn_type="postgres", host="db", schema="flead"))

    assert parse_dsn(url) == {"host": "db", "dbname": "flead"}


def test_a_database_connection_without_a_database_is_refused_by_name():
    with pytest.raises(ValueError, match="flead_test needs a host and a database"):
        database_url(connection(conn_type="postgres", host="db"))


def test_every_librdkafka_property_of_a_kafka_connection_passes_through_as_text():
    properties = kafka_properties(
        connection(
            conn_type="kafka",
            extra={
                "bootstrap.servers": "a:9092,b:9092",
                "security.protocol": "SASL_SSL",
                "socket.timeout.ms": 5000,
                "enable.ssl.certificate.verification": False,
            },
        )
    )

    assert properties == {
        "bootstrap.servers": "a:9092,b:9092",
        "security.protocol": "SASL_SSL",
        "socket.timeout.ms": "5000",
        "enable.ssl.certificate.verification": "false",
    }


def test_a_kafka_connection_without_brokers_is_refused_by_name():
    with pytest.raises(ValueError, match=r"flead_test needs `bootstrap.servers`"):
        kafka_properties(connection(conn_type="kafka"))


@pytest.mark.parametrize(
    "name",
    [
        "sasl.jaas.config",
        "ssl.keystore.password",
        "ssl.key.password",
        "ssl.truststore.password",
        "ssl.keystore.key",
        "sasl.oauthbearer.client.credentials.client.secret",
    ],
)
def test_a_secret_for_flinks_kafka_clients_is_refused_by_name_and_not_shown(name):
    extra = {"kafka": {"security.protocol": "SASL_SSL", name: "hunter2"}}

    with pytest.raises(
        ValueError, match=f"flead_test has {name} under `kafka`.*cluster"
    ) as refusal:
        flink_kafka_properties(connection(conn_type="http", extra=extra))

    assert "hunter2" not in str(refusal.value)


def test_properties_of_flinks_own_kafka_clients_come_with_the_flink_connection():
    security = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "ssl.truststore.location": "/etc/kafka/ca.pem",
    }
    extra = {"python_jar": "/opt/flink-python.jar", "kafka": security}

    assert flink_kafka_properties(connection(conn_type="http", extra=extra)) == security
    assert flink_kafka_properties(connection(conn_type="http")) == {}
