"""Where the embedded servers answer, and with which login."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from flead.stack.credentials import Credentials
from flead.stack.home import Home
from flead.stack.ports import HOST, Ports


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs and logins for clients; those with a password are left out of the repr."""

    kafka_bootstrap: str
    """`bootstrap.servers` of librdkafka."""
    database_url: str = field(repr=False)
    """FLEAD's database, as its owner: the embedded one, or `FLEAD_DATABASE_URL`."""
    airflow_database_url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    """The embedded PostgreSQL as `postgres`, database `postgres`."""
    flink_url: str
    airflow_url: str
    airflow_user: str
    airflow_password: str = field(repr=False)
    spark_history_url: str

    @classmethod
    def of(cls, home: Home, environ: Mapping[str, str] = os.environ) -> "Addresses":
        """Return the addresses of a home, whether or not its servers run."""
        ports, credentials = Ports.of(home), Credentials.of(home)

        def postgres_url(user: str, password: str, database: str) -> str:
            return f"postgresql://{user}:{password}@{HOST}:{ports.postgres}/{database}"

        embedded_url = postgres_url("flead", credentials.postgres_flead, "flead")
        return cls(
            kafka_bootstrap=f"{HOST}:{ports.kafka}",
            database_url=environ.get("FLEAD_DATABASE_URL") or embedded_url,
            airflow_database_url=postgres_url("airflow", credentials.postgres_airflow, "airflow"),
            superuser_url=postgres_url("postgres", credentials.postgres_superuser, "postgres"),
            flink_url=f"http://{HOST}:{ports.flink_rest}",
            airflow_url=f"http://{HOST}:{ports.airflow}",
            airflow_user="admin",
            airflow_password=credentials.airflow_admin,
            spark_history_url=f"http://{HOST}:{ports.spark_history}",
        )
