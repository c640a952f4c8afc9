"""Airflow connections as what `flead.storage` and `flead.messaging` take."""

import re
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from airflow.sdk import BaseHook, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from flead.settings import Settings, TrainingCluster
from flead_airflow.flink.hook import FlinkRestHook

DATABASE: Final = "flead_db"
METADATA: Final = "flead_airflow_db"
KAFKA: Final = "flead_kafka"
FLINK: Final = "flead_flink"
SPARK: Final = "flead_spark"
SECRET: Final = re.compile(
    r"password|secret|^sasl\.jaas\.config$|^ssl\.keystore\.key$", re.IGNORECASE
)
"""Names of properties of Kafka's Java clients that hold secrets."""


class Servers(msgspec.Struct, frozen=True):
    """Where the shared state is.

    `database_url` is a libpq URL, `kafka` holds librdkafka properties.
    """

    database_url: str
    kafka: dict[str, str]

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of the brokers."""
        return self.kafka["bootstrap.servers"]


def servers() -> Servers:
    """Look up `flead_db` and `flead_kafka`, from a task or a thread of a trigger."""
    return Servers(
        database_url(BaseHook.get_connection(DATABASE)),
        kafka_properties(BaseHook.get_connection(KAFKA)),
    )


def spark_kafka() -> dict[str, str]:
    """Properties of Spark's Kafka clients: the brokers of `flead_kafka`, the rest of `flead_spark`.

    Raises
    ------
    ValueError
        See `spark_kafka_properties`.
    """
    brokers = kafka_properties(BaseHook.get_connection(KAFKA))["bootstrap.servers"]
    properties = spark_kafka_properties(BaseHook.get_connection(SPARK))
    return {"bootstrap.servers": brokers} | properties


def spark_event_logs() -> str | None:
    """Return the address of the folder that Spark's event logs are in, None when there is none."""
    properties = BaseHook.get_connection(SPARK).extra_dejson.get("conf", {})
    where = properties.get("spark.eventLog.dir")
    return None if where is None else str(where)


def metadata_url() -> str | None:
    """Return the URL of Airflow's own database, None without the connection `flead_airflow_db`."""
    try:
        return database_url(BaseHook.get_connection(METADATA))
    except AirflowNotFoundException:
        return None


def flink() -> FlinkRestHook:
    """Return the hook of the Flink cluster, a context manager.

    Raises
    ------
    ValueError
        When it is to be made on Kubernetes and the manifest cannot be read.
    """
    if Settings.from_environment().training_cluster is TrainingCluster.SESSION:
        return FlinkRestHook(FLINK)
    # the client of Kubernetes takes a second to import
    from flead_airflow.flink.kubernetes import FlinkApplicationHook  # noqa: PLC0415
    from flead_airflow.kubernetes import KUBERNETES, template  # noqa: PLC0415

    return FlinkApplicationHook(FLINK, template(), KUBERNETES)


def database_url(connection: Connection) -> str:
    """URL of a `postgres` connection; its extra is passed to libpq, `sslmode` for one.

    Raises
    ------
    ValueError
        When it names no host or no database.
    """
    if not connection.host or not connection.schema:
        raise ValueError(f"connection {connection.conn_id} needs a host and a database (schema)")
    account = quote(connection.login or "", safe="")
    if connection.password:
        account += f":{quote(connection.password, safe='')}"
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    address = f"{account}@{host}" if account else host
    port = f":{connection.port}" if connection.port else ""
    query = urlencode(connection.extra_dejson, quote_via=quote)
    return f"postgresql://{address}{port}/{quote(connection.schema)}{'?' if query else ''}{query}"


def kafka_properties(connection: Connection) -> dict[str, str]:
    """Librdkafka properties of a `kafka` connection: its extra, as strings.

    Raises
    ------
    ValueError
        When it has no `bootstrap.servers`.
    """
    properties = {name: property_text(value) for name, value in connection.extra_dejson.items()}
    if "bootstrap.servers" not in properties:
        raise ValueError(f"connection {connection.conn_id} needs `bootstrap.servers` in its extra")
    return properties


def flink_kafka_properties(connection: Connection) -> dict[str, str]:
    """Properties of Flink's Kafka clients: `kafka` in the extra of the Flink connection.

    They are those of the Java client, which names security differently from librdkafka.

    Raises
    ------
    ValueError
        When one holds a secret: they are stored with the deployment and shown by Airflow and Flink.
    """
    return _java_client_properties(
        connection,
        "where everybody who sees a deployment would read it: put secrets into files on the Flink"
        " cluster (a login file named by -Djava.security.auth.login.config in its"
        " `env.java.opts.all`, key stores as PEM files) and set only what names them here",
    )


def spark_kafka_properties(connection: Connection) -> dict[str, str]:
    """Properties of Spark's Kafka clients: `kafka` in the extra of the Spark connection.

    They are those of the Java client, which names security differently from librdkafka.

    Raises
    ------
    ValueError
        When one holds a secret: they are arguments of the job, and shown by Airflow.
    """
    return _java_client_properties(
        connection,
        "where everybody who sees the processes or the task would read it: put secrets into files"
        " on the machines of Spark (a login file named by -Djava.security.auth.login.config in"
        " `spark.driver.extraJavaOptions` and `spark.executor.extraJavaOptions`, key stores as PEM"
        " files) and set only what names them here",
    )


def _java_client_properties(connection: Connection, why_not_secrets: str) -> dict[str, str]:
    properties: dict[str, Any] = connection.extra_dejson.get("kafka", {})
    secrets = sorted(name for name in properties if SECRET.search(name))
    if secrets:
        raise ValueError(
            f"connection {connection.conn_id} has {', '.join(secrets)} under `kafka` in its extra,"
            f" {why_not_secrets}"
        )
    return {name: property_text(value) for name, value in properties.items()}


def property_text(value: Any) -> str:
    """Value of a property as servers in Java and librdkafka write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
