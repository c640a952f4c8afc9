"""Airflow as its own four processes on the embedded PostgreSQL."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flead.settings import MODELS_VARIABLE, Settings
from flead.stack import health, processes
from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.environments import WEB, web_libraries
from flead.stack.files import write_file
from flead.stack.flink import python_jar
from flead.stack.home import CHECKOUT, Home
from flead.stack.ports import HOST, Ports
from flead.stack.service import Service, StackError, once
from flead.stack.spark import (
    STREAM,
    prepare_spark,
    spark_configuration,
    spark_environment,
    spark_submit,
)

API_SERVER = "airflow-api-server"
# Each with its arguments and its name in the answer of the health endpoint.
PROCESSES = {
    API_SERVER: (("api-server",), "metadatabase"),
    "airflow-scheduler": (("scheduler", "--skip-serve-logs"), "scheduler"),
    "airflow-dag-processor": (("dag-processor",), "dag_processor"),
    "airflow-triggerer": (("triggerer", "--skip-serve-logs"), "triggerer"),
}


def airflow_services(home: Home, ports: Ports, credentials: Credentials) -> list[Service]:
    """Return the API server, scheduler, DAG processor and triggerer."""
    addresses = Addresses.of(home)
    environment = airflow_environment(home, ports, credentials, addresses)
    prepare = once(lambda: _prepare(home, environment, credentials))

    def answers(component: str) -> Callable[[float], bool]:
        def is_healthy(started_at: float) -> bool:
            report = health.get_json(f"{addresses.airflow_url}/api/v2/monitor/health") or {}
            status = report.get(component) or {}
            heartbeat = status.get(f"latest_{component}_heartbeat")
            is_own = component == "metadatabase" or _is_after(heartbeat, started_at)
            return status.get("status") == "healthy" and is_own

        return is_healthy

    return [
        Service(
            name=name,
            command=(str(home.python("airflow")), "-m", "airflow", *arguments),
            is_healthy=answers(component),
            cwd=home.work_folder(name),
            port=ports.airflow if name == API_SERVER else None,
            environment=environment,
            # A scheduler that comes first would waste the tries of tasks on an API that is not up.
            depends_on=("postgres",) if name == API_SERVER else ("postgres", API_SERVER),
            # Its tasks submit the analyses, its API server has the pages.
            environments=("airflow", "spark", WEB),
            jars=("spark",),
            prepare=prepare,
            stop_seconds=20,
        )
        for name, (arguments, component) in PROCESSES.items()
    ]


def airflow_environment(
    home: Home, ports: Ports, credentials: Credentials, addresses: Addresses
) -> dict[str, str]:
    """Return the settings of every Airflow process, trimmed for a machine of two cores."""
    database = addresses.airflow_database_url.replace("postgresql://", "postgresql+psycopg2://")
    sections: dict[str, dict[str, object]] = {
        "CORE": {
            "DAGS_FOLDER": CHECKOUT / "dags",
            "PLUGINS_FOLDER": CHECKOUT / "plugins",
            "LOAD_EXAMPLES": False,
            "DAGS_ARE_PAUSED_AT_CREATION": False,
            "EXECUTOR": "LocalExecutor",
            "PARALLELISM": 4,
            "MAX_ACTIVE_TASKS_PER_DAG": 4,
            "FERNET_KEY": credentials.airflow_fernet_key,
            "SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
            "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": _passwords_file(home),
            "EXECUTION_API_SERVER_URL": f"{addresses.airflow_url}/execution/",
        },
        "DATABASE": {"SQL_ALCHEMY_CONN": database, "SQL_ALCHEMY_POOL_SIZE": 5},
        "API": {
            "HOST": HOST,
            "PORT": ports.airflow,
            "BASE_URL": addresses.airflow_url,
            "WORKERS": 1,
            "SECRET_KEY": credentials.airflow_secret_key,
        },
        "API_AUTH": {"JWT_SECRET": credentials.airflow_jwt_secret, "JWT_ISSUER": "flead"},
        "SCHEDULER": {
            # The latency of every step from task to task.
            "SCHEDULER_IDLE_SLEEP_TIME": 0.25,
            "USE_JOB_SCHEDULE": True,
            # How soon a task whose process was killed is tried again.
            "TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
            # How soon those of a killed scheduler are: the time-out is for its successor's own.
            "ORPHANED_TASKS_CHECK_INTERVAL": 30,
        },
        "DAG_PROCESSOR": {
            "PARSING_PROCESSES": 1,
            "REFRESH_INTERVAL": 30,
            "MIN_FILE_PROCESS_INTERVAL": 60,
            "PRINT_STATS_INTERVAL": 300,
        },
        "LOGGING": {"BASE_LOG_FOLDER": home.logs / "airflow-tasks"},
    }
    settings = {
        f"AIRFLOW__{section}__{key}": str(value)
        for section, options in sections.items()
        for key, value in options.items()
    }
    connections = {
        "FLEAD_KAFKA": {
            "conn_type": "kafka",
            "extra": {"bootstrap.servers": addresses.kafka_bootstrap},
        },
        "FLEAD_FLINK": {
            "conn_type": "http",
            "schema": "http",
            "host": HOST,
            "port": ports.flink_rest,
            "extra": {"python_jar": str(python_jar(home))},
        },
        "FLEAD_SPARK": {
            "conn_type": "spark",
            "host": Settings.from_environment().spark_master,
            "extra": {
                "spark_submit": str(spark_submit(home)),
                "environment": spark_environment(home),
                "stream_environment": home.variables | {processes.MARKER: STREAM},
                "conf": spark_configuration(home),
                "history_url": addresses.spark_history_url,
            },
        },
    }
    return {
        "AIRFLOW_HOME": str(_airflow_home(home)),
        **settings,
        **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()},
        "AIRFLOW_CONN_FLEAD_DB": addresses.database_url,
        # Tasks reach Airflow's own database by this alone.
        "AIRFLOW_CONN_FLEAD_AIRFLOW_DB": addresses.airflow_database_url,
        MODELS_VARIABLE: os.environ.get(MODELS_VARIABLE, str(home.models)),
        **{name: os.environ.get(name, value) for name, value in _chosen(home).items()},
        "PATH": f"{home.envs / 'airflow' / 'bin'}:{os.environ.get('PATH', os.defpath)}",
    }


def _chosen(home: Home) -> dict[str, str]:
    """Return settings that differ from their defaults on one machine, unless they are given."""
    return {
        # A small fleet: shorter rounds than a cluster's show progress sooner.
        "FLEAD_ROUND_SECONDS": "10",
        "FLEAD_ARCHIVE_URI": (home.data / "archive").as_uri(),
        "FLEAD_STREAM_URI": (home.data / "stream").as_uri(),
        "FLEAD_STREAM_LOG": str(home.log_file(STREAM)),
        "FLEAD_DATA_DOCS_DIR": str(home.data / "data-docs"),
        "FLEAD_WEB_LIBRARIES_DIR": str(web_libraries(home)),
    }


def _airflow_home(home: Home) -> Path:
    return home.data / "airflow"


def _passwords_file(home: Home) -> Path:
    return _airflow_home(home) / "passwords.json"


def _prepare(home: Home, environment: dict[str, str], credentials: Credentials) -> None:
    passwords = {"admin": credentials.airflow_admin, "viewer": credentials.airflow_viewer}
    write_file(_passwords_file(home), json.dumps(passwords))
    prepare_spark(home)
    lock = (CHECKOUT / "requirements" / "airflow.lock").read_bytes()
    stamp, version = _airflow_home(home) / "migrated", hashlib.sha256(lock).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="ascii") == version:
        return
    migrated = subprocess.run(
        [str(home.python("airflow")), "-m", "airflow", "db", "migrate"],
        cwd=_airflow_home(home),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if migrated.returncode != 0:
        raise StackError(f"airflow db migrate failed:\n{migrated.stdout}{migrated.stderr}")
    write_file(stamp, version)


def _is_after(heartbeat: str | None, started_at: float) -> bool:
    """Tell whether a heartbeat is not that of an earlier life of the process."""
    return heartbeat is not None and datetime.fromisoformat(heartbeat).timestamp() > started_at
