"""The whole of docker-compose.yaml but Grafana, started from it: a fleet's rows become a model.

PostgreSQL stands for TimescaleDB and Redis for Valkey, behind the file's own commands and checks.
"""

import json

import pytest

from flead.contracts.topics import KEYED_PARTITIONS, Topic
from flead.stack.home import Home
from flead.stack.postgres import wheel_programs
from tests.broker.programs import broker_programs
from tests.containers import Containers, Image

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1200)]

START_SECONDS = 600
DEVICES = 40
VARIABLES = {
    "FLEAD_DEVICES": str(DEVICES),
    "FLEAD_RATE": "9600/min",
    "FLEAD_AIRFLOW_TASKS": "4",
}
AIRFLOW = (
    "airflow-api-server",
    "airflow-worker",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
)
# What the image's own does: https://github.com/docker-library/postgres, docker-entrypoint.sh.
POSTGRES_ENTRYPOINT = """
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    printf "listen_addresses = '*'\\nunix_socket_directories = '%s'\\n" "$PGDATA" \\
        >> "$PGDATA/postgresql.conf"
fi
exec "$@"
"""

SETTINGS = """
import json, sys
from pathlib import Path
import psycopg2
password = Path("/run/secrets/postgres_superuser").read_text()
with psycopg2.connect(host="timescaledb", user="postgres", password=password) as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT lower(name), setting FROM pg_settings")
        print(json.dumps(dict(cursor.fetchall())))
"""

# Until there are rows of every device in every partition.
READ = f"""
import json, sys
from confluent_kafka import Consumer
consumer = Consumer({{
    "bootstrap.servers": sys.argv[1], "group.id": "read", "auto.offset.reset": "earliest",
}})
consumer.subscribe(["{Topic.TELEMETRY}"])
devices, partitions = set(), set()
while len(devices) < {DEVICES}:
    message = consumer.poll(60)
    assert message is not None and message.error() is None
    devices.add(message.key().decode())
    partitions.add(message.partition())
print(json.dumps([len(devices), sorted(partitions)]))
"""

# To its end; then its tasks, and the log of the first.
RUN = """
import json, sys
import httpx
from flead.stack.airflow_rest import AirflowClient
dag_id, password = sys.argv[1:]
url, account = "http://airflow-api-server:8080", {"username": "admin", "password": password}
with AirflowClient(url, **account) as airflow:
    run_id = airflow.trigger(dag_id, {})
    airflow.wait(dag_id, run_id, 400)
api = httpx.Client(base_url=url, timeout=60, headers={"Accept": "application/json"})
token = api.post("/auth/token", json=account).json()["access_token"]
api.headers["Authorization"] = f"Bearer {token}"
tasks = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances"
ran = api.get(tasks).json()["task_instances"]
first = min((each for each in ran if each["start_date"]), key=lambda each: each["start_date"])
log = api.get(f"{tasks}/{first['task_id']}/logs/1").json()["content"]
print(json.dumps({"tasks": ran, "log": log}))
"""

# Until a round has made a model.
MODEL = """
import json, time
from pathlib import Path
import psycopg2
password = Path("/run/secrets/postgres_flead").read_text()
deadline, found = time.monotonic() + 240, None
while found is None and time.monotonic() < deadline:
    with psycopg2.connect(host="timescaledb", user="flead", password=password) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT min(version) FROM federated_models")
            [found] = cursor.fetchone()
    time.sleep(1)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    home = Home.from_environment()
    images = {
        "timescaledb": Image(
            wheel_programs(home) / "bin", ("sh", "-euc", POSTGRES_ENTRYPOINT, "entrypoint")
        ),
        "airflow-broker": Image(broker_programs(home)),
    }
    stack = Containers(tmp_path_factory.mktemp("compose"), home, images, VARIABLES)
    try:
        stack.up(*AIRFLOW, "simulator", "spark-history", seconds=START_SECONDS)
        yield stack
    finally:
        stack.close()


def python(containers, name, code, *arguments):
    ran = containers.run(name, ["python", "-c", code, *arguments])
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_all_that_the_file_starts_is_healthy_by_its_own_check(containers):
    checked = {
        name
        for name, service in containers.services.items()
        if "test" in service.get("healthcheck", {}) and name != "grafana"
    }

    healthy = {name for name in checked if containers.is_healthy(name)}

    assert healthy == checked
    assert {"timescaledb", "kafka-4", "flink-taskmanager", "spark-history", *AIRFLOW} <= healthy


def test_the_database_has_the_settings_of_its_command(containers):
    command = containers.services["timescaledb"]["command"]
    wanted = dict(option.split("=", 1) for option in command if "=" in option)

    found = python(containers, "init", SETTINGS)

    assert wanted == {name: found[name] for name in wanted}
    assert found["password_encryption"] == "scram-sha-256"


def test_the_simulator_sends_rows_of_its_fleet_into_every_partition(containers):
    servers = containers.services["init"]["environment"]["FLEAD_KAFKA"]

    assert python(containers, "simulator", READ, servers) == [
        DEVICES,
        list(range(KEYED_PARTITIONS)),
    ]


def test_a_worker_runs_the_tasks_that_the_api_was_asked_for_until_a_fleet_has_a_model(containers):
    password = (containers.folder / "secrets" / "airflow_admin").read_text()

    run = python(containers, "init", RUN, "deploy_training", password)

    # What an EmptyOperator does, the scheduler does.
    ran = {
        each["task_id"]: each["hostname"]
        for each in run["tasks"]
        if each["state"] == "success" and each["operator"] != "EmptyOperator"
    }
    assert ran.keys() >= {"migrate", "create_topics", "submit", "record_active"}
    assert set(ran.values()) == {"airflow-worker"}
    assert run["log"]
    assert python(containers, "init", MODEL) == 1


def test_what_is_down_is_not_healthy(containers):
    # Those that others need come last.
    for names in (
        ("spark-history", "airflow-worker"),
        ("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
        ("airflow-broker", "airflow-api-server", "timescaledb"),
    ):
        for name in names:
            containers.kill(name)
        for name in names:
            containers.await_unhealthy(name)
        assert 0 not in [containers.health(name).returncode for name in names]
