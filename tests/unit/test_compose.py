"""docker-compose.yaml and its images: valid, safe by default, and set up as the embedded stack."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.topics import KEYED_PARTITIONS, LAYOUTS
from flead.dashboards import boards
from flead.settings import Settings
from flead.stack import flink, kafka, postgres, provisioning, spark
from flead.stack.addresses import Addresses
from flead.stack.airflow import PROCESSES, airflow_environment
from flead.stack.credentials import Credentials
from flead.stack.home import CHECKOUT, Home
from flead.stack.jars import locked_jars
from flead.stack.ports import Ports
from flead.stack.secret_files import IMAGE_USER, write_secret_files
from flead.storage.roles import GRAFANA
from tests import compose

IMAGES = CHECKOUT / "deploy" / "images"
SCHEMA = Path(__file__).parent / "fixtures" / "compose-spec" / "compose-spec.json"
USER = {"FLEAD_UID": "1000", "FLEAD_SECRETS": ".flead/secrets"}
IMAGE_HOME = Home(
    root=Path("/opt/flead"), envs=Path("/opt/flead/envs"), jars=Path("/opt/flead/jars")
)
PORTS = Ports(9092, 9093, 5432, 8081, 6123, 8080, 18080)
NODES = ("kafka-1", "kafka-2", "kafka-3", "kafka-4")
AIRFLOW = (*PROCESSES, "airflow-worker")
ONCE = ("init", "airflow-init")
WITHOUT_SERVER = (*ONCE, "simulator")
SECRETS = {
    "AIRFLOW__CORE__FERNET_KEY": "airflow_fernet_key",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow_database_url",
    "AIRFLOW__API__SECRET_KEY": "airflow_secret_key",
    "AIRFLOW__API_AUTH__JWT_SECRET": "airflow_jwt_secret",
    "AIRFLOW__CELERY__BROKER_URL": "airflow_broker_url",
}


@pytest.fixture(scope="module")
def stack():
    return compose.read(USER)


@pytest.fixture(scope="module")
def services(stack):
    return stack["services"]


@pytest.fixture(scope="module")
def embedded_airflow():
    addresses = Addresses(
        kafka_bootstrap="127.0.0.1:9092",
        database_url="postgresql://flead@127.0.0.1/flead",
        airflow_database_url="postgresql://airflow@127.0.0.1/airflow",
        superuser_url="postgresql://postgres@127.0.0.1/postgres",
        flink_url="http://127.0.0.1:8081",
        airflow_url="http://127.0.0.1:8080",
        airflow_user="admin",
        airflow_password="",
        spark_history_url="http://127.0.0.1:18080",
    )
    return airflow_environment(IMAGE_HOME, PORTS, Credentials(), addresses)


def differences(embedded, containers):
    """Return the names whose values differ, or that only one of them has."""
    names = embedded.keys() | containers.keys()
    return {
        name
        for name in names
        if str(embedded.get(name)).lower() != containers.get(name, "absent").lower()
    }


# What is valid


def test_the_file_is_one_of_the_compose_specification(stack):
    schema = json.loads(SCHEMA.read_text())

    errors = jsonschema.Draft7Validator(schema).iter_errors(stack)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_without_secrets_the_file_is_valid_and_docker_names_the_command_that_makes_them():
    stack = compose.read({})

    assert list(jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).iter_errors(stack)) == []
    assert {service["user"] for service in stack["services"].values()} == {f"{IMAGE_USER}:0"}
    # Docker mounts a secret from a file that exists only, and says which one it has not found.
    folders = {Path(secret["file"]).parent for secret in stack["secrets"].values()}
    assert folders == {Path("run bin/flead secrets first")}
    assert not any((CHECKOUT / folder).exists() for folder in folders)


def test_hadolint_finds_nothing_in_the_images():
    hadolint = Path(sys.executable).with_name("hadolint")

    found = subprocess.run(
        [hadolint, IMAGES / "Dockerfile"], capture_output=True, text=True, check=False
    )

    assert (found.returncode, found.stdout) == (0, "")


def test_every_image_that_is_built_is_a_target_of_the_dockerfile_and_has_the_version(services):
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    built = {
        (service["image"], service["build"]["target"])
        for service in services.values()
        if "build" in service
    }

    assert built == {
        (f"flead/{name}:{version}", name)
        for name in ("airflow", "flink", "kafka", "spark", "tools")
    }
    assert {target for _, target in built} <= set(targets)


def test_images_of_others_are_pinned_by_version(services):
    bases = re.findall(r"^FROM (\S+:\S+)", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    pulled = {service["image"] for service in services.values() if "build" not in service}

    for image in [*bases, *pulled]:
        assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+(-[\w-]+)?", image), image


def test_the_images_hold_every_lock_and_every_folder_that_runs():
    dockerfile = (IMAGES / "Dockerfile").read_text()
    locks = {path.name for path in (CHECKOUT / "requirements").glob("*.lock")}
    copied = set(re.findall(r"^COPY (?:--chmod=\d+ )?([^-]\S*)", dockerfile, re.MULTILINE))
    passed = {
        line[1:]
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }

    assert locks == set(re.findall(r"requirements/([\w.]+\.lock) ", dockerfile))
    assert {"dags", "expectations", "flead", "flead_airflow", "jobs", "plugins", "sql"} <= copied
    assert all(any(Path(each).is_relative_to(name) for name in passed) for each in copied)


# What is safe


def test_nothing_is_published_beyond_loopback_unless_asked(services):
    by_default = [port for service in services.values() for port in service.get("ports", ())]
    asked = compose.read(USER | {"FLEAD_BIND": "192.0.2.7"})["services"]

    assert by_default
    assert all(port.startswith("127.0.0.1:") for port in by_default)
    assert [port for service in asked.values() for port in service.get("ports", ())] == [
        port.replace("127.0.0.1", "192.0.2.7") for port in by_default
    ]


def test_no_two_services_publish_one_port(services):
    published = [
        port.split(":")[1] for service in services.values() for port in service.get("ports", ())
    ]

    assert len(set(published)) == len(published)


def test_no_container_runs_as_root_or_may_become_it(services):
    for name, service in services.items():
        assert service["user"] == "1000:0", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    users = re.findall(r"^USER (\S+)$", (IMAGES / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001:0"] * 5


def test_every_secret_is_a_file_that_the_command_makes_and_is_in_no_variable(stack, tmp_path):
    made = write_secret_files(tmp_path / "secrets", tmp_path / ".env")

    files = {name: secret["file"] for name, secret in stack["secrets"].items()}
    assert files == {name: f".flead/secrets/{name}" for name in files}
    assert set(files) <= set(made.files)
    # Logins of people are in a file that Airflow takes as a whole.
    assert set(made.files) - set(files) == {"airflow_admin", "airflow_viewer"}
    given = {name for service in stack["services"].values() for name in service.get("secrets", ())}
    assert given == set(files)
    secret = re.compile("PASSWORD|(FERNET|SECRET)_KEY|JWT_SECRET|TOKEN|SQL_ALCHEMY_CONN|BROKER_URL")
    for service in stack["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert "/run/secrets" in value or value.endswith("passwords.json"), name


def test_containers_get_the_secrets_that_they_need_only(services):
    given = {name: set(service.get("secrets", ())) for name, service in services.items()}

    assert given["timescaledb"] == {"postgres_superuser"}
    assert given["grafana"] == {"grafana_admin", "postgres_grafana"}
    assert all("postgres_superuser" not in given[name] for name in AIRFLOW)
    assert given["airflow-broker"] == {"airflow_broker", "airflow_broker.conf"}
    # Code of tasks can sign no token that the API server takes.
    assert "airflow_jwt_secret" not in given["airflow-worker"]
    assert "airflow_connections.json" not in given["airflow-scheduler"]
    assert [name for name in AIRFLOW if "airflow_broker_url" in given[name]] == [
        "airflow-scheduler",
        "airflow-worker",
    ]
    assert not any(given[name] for name in (*NODES, "flink-jobmanager", "flink-taskmanager"))
    assert not any(given[name] for name in ("spark-master", "spark-worker", "simulator"))


# What starts when


def test_every_server_has_a_health_check_and_comes_back(services):
    for name, service in services.items():
        if name in ONCE:
            assert service["healthcheck"] == {"disable": True}
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped"
            assert ("test" in service.get("healthcheck", {})) is (name not in WITHOUT_SERVER), name


def test_a_worker_outlives_the_scheduler_and_ends_its_tasks_before_it_is_killed(services):
    assert "airflow-worker" in services["airflow-scheduler"]["depends_on"]
    assert services["airflow-worker"]["stop_grace_period"] == "5m"
    assert "stop_signal" not in services["airflow-worker"]


def test_servers_wait_for_those_that_they_need_to_be_healthy(services):
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how == {"condition": wanted}, (name, needed)
    needs = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert needs["init"] == {"timescaledb", *NODES}
    assert needs["kafka-4"] == set(NODES[:3])
    assert needs["airflow-init"] == {"init"}
    assert needs["airflow-api-server"] == {"airflow-init"}
    for name in AIRFLOW[1:]:
        assert "airflow-api-server" in needs[name]
    assert needs["flink-taskmanager"] == {"flink-jobmanager"}
    assert needs["spark-worker"] == {"spark-master"}
    assert needs["simulator"] == {"init"}


def test_optional_services_are_behind_profiles(services):
    profiles = {
        name: service["profiles"] for name, service in services.items() if "profiles" in service
    }

    assert profiles == {"simulator": ["simulator"], "spark-history": ["history"]}


def test_what_must_not_be_lost_is_in_named_volumes(stack):
    for service in stack["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in stack["volumes"] or source.startswith("./grafana/"), volume
    mounted = {
        name: {volume.split(":")[1] for volume in service.get("volumes", ())}
        for name, service in stack["services"].items()
    }
    state = Settings.from_environment({})
    analysis = {uri.removeprefix("file://") for uri in (state.archive_uri, state.stream_uri)}
    assert analysis <= mounted["airflow-worker"] & mounted["spark-worker"]
    assert "/var/lib/flead/flink" in mounted["airflow-worker"] & mounted["flink-taskmanager"]
    written = {"/var/lib/flead/models", "/var/lib/flead/data-docs", "/var/log/flead"}
    assert written <= mounted["airflow-worker"] & mounted["airflow-api-server"]
    assert mounted["airflow-scheduler"] == set()
    assert len({stack["services"][node]["volumes"][0] for node in NODES}) == 4


# What equals the embedded stack


def properties_of(service):
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in service["environment"].items()
        if name.startswith("KAFKA_")
    }


@pytest.mark.parametrize("node", NODES)
def test_brokers_differ_from_the_embedded_one_in_addresses_roles_and_replication_only(
    services, node
):
    embedded = kafka.kafka_properties(IMAGE_HOME, PORTS)

    found = properties_of(services[node])

    of_the_place = {
        "node.id", "listeners", "advertised.listeners", "listener.security.protocol.map",
        "inter.broker.listener.name", "controller.quorum.bootstrap.servers", "log.dirs",
    }  # fmt: skip
    replication = {
        "default.replication.factor": "3",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "share.coordinator.state.topic.replication.factor": "3",
        "share.coordinator.state.topic.min.isr": "2",
    }
    roles = {"process.roles"} if node == "kafka-4" else set()
    allowed = of_the_place | replication.keys() | roles
    # `node.id` and the place of the controllers may happen to be the same.
    assert differences(embedded, found) | of_the_place == allowed
    assert {name: found[name] for name in replication} == replication
    assert services[node]["environment"]["JAVA_OPTIONS"].split() == list(kafka.JAVA_OPTIONS)


def test_three_nodes_are_brokers_and_controllers_and_one_is_a_broker(services):
    roles = {name: services[name]["environment"]["KAFKA_PROCESS_ROLES"] for name in NODES}
    controllers = services["kafka-1"]["environment"]["INITIAL_CONTROLLERS"].split(",")

    assert roles == dict.fromkeys(NODES[:3], "broker,controller") | {"kafka-4": "broker"}
    assert [each.rpartition(":")[0] for each in controllers] == [
        f"{number}@kafka-{number}:9093" for number in (1, 2, 3)
    ]
    assert len({each.rpartition(":")[2] for each in controllers}) == 3
    assert {services[name]["environment"]["KAFKA_NODE_ID"] for name in NODES} == set("1234")


def test_topics_get_the_partitions_of_the_embedded_stack_and_brokers_keep_their_transactions(
    services,
):
    found = properties_of(services["kafka-1"])

    # create_topics leaves replication to the brokers, and partitions to the layouts.
    assert {layout.partitions for layout in LAYOUTS} == {1, KEYED_PARTITIONS}
    assert found["num.partitions"] == str(KEYED_PARTITIONS)
    job = TrainingDeployment(features=["pressure"], bootstrap_servers="")
    assert int(found["transaction.max.timeout.ms"]) > job.transaction_timeout_seconds * 1000


def test_flink_differs_from_the_embedded_one_in_addresses_and_folders_only(stack):
    embedded = flink.flink_configuration(IMAGE_HOME, PORTS)

    found = yaml.safe_load(stack["configs"]["flink"]["content"])

    assert differences(embedded, {name: str(value) for name, value in found.items()}) == {
        "jobmanager.rpc.address", "jobmanager.bind-host", "rest.address", "rest.bind-address",
        "taskmanager.host", "taskmanager.bind-host",
        "execution.checkpointing.dir", "execution.checkpointing.savepoint-dir", "io.tmp.dirs",
    }  # fmt: skip


def test_airflow_differs_from_the_embedded_one_in_addresses_secrets_and_folders_only(
    services, embedded_airflow
):
    settings = dict(
        line.split("=", 1)
        for line in (CHECKOUT / "deploy" / "settings.env").read_text().splitlines()
        if not line.startswith("#")
    )

    # Celery is the containers' own, compared below.
    assert embedded_airflow["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    for name in AIRFLOW:
        given = set(services[name]["secrets"])
        found = {
            key: value
            for key, value in (settings | services[name]["environment"]).items()
            if not key.startswith("AIRFLOW__CELERY")
        }
        assert differences(embedded_airflow, found) == {
            # The home and the path are the image's.
            "AIRFLOW_HOME", "PATH",
            "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER", "GLOBAL_MODELS_DIR", "FLEAD_ARCHIVE_URI",
            "FLEAD_STREAM_URI", "FLEAD_STREAM_LOG", "FLEAD_DATA_DOCS_DIR",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
            "AIRFLOW__API__HOST", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
            # Workers run the tasks.
            "AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__PARALLELISM",
            # Compared below.
            "AIRFLOW_CONN_FLEAD_KAFKA", "AIRFLOW_CONN_FLEAD_FLINK", "AIRFLOW_CONN_FLEAD_SPARK",
            # Secrets come from files, to those that need them.
            "AIRFLOW_CONN_FLEAD_DB", "AIRFLOW_CONN_FLEAD_AIRFLOW_DB",
            *SECRETS.keys() - {"AIRFLOW__CELERY__BROKER_URL"},
            *(
                f"{setting}_CMD"
                for setting, file in SECRETS.items()
                if file in given and not setting.startswith("AIRFLOW__CELERY")
            ),
            *(
                ("AIRFLOW__SECRETS__BACKEND", "AIRFLOW__SECRETS__BACKEND_KWARGS")
                if "airflow_connections.json" in given
                else ()
            ),
        }  # fmt: skip


def test_a_process_reads_the_secrets_that_it_is_given_and_no_others(services):
    for name in AIRFLOW:
        environment = services[name]["environment"]
        read = {
            setting: environment.get(f"{setting}_CMD", "").removeprefix("cat /run/secrets/")
            for setting in SECRETS
        }
        given = set(services[name]["secrets"])
        assert read == {key: file if file in given else "" for key, file in SECRETS.items()}, name
        assert ("/run/secrets/airflow_connections.json" in str(environment)) is (
            "airflow_connections.json" in given
        )


def test_scheduler_and_workers_agree_on_the_queue(services, tmp_path):
    write_secret_files(tmp_path, tmp_path / ".env")
    broker = services["airflow-broker"]
    common = {
        name: services["airflow-scheduler"]["environment"][name]
        for name in services["airflow-scheduler"]["environment"]
        if name.startswith("AIRFLOW__CELERY")
    }

    url = urlsplit((tmp_path / "airflow_broker_url").read_text())
    assert (url.scheme, url.hostname, url.port) == ("redis", broker["hostname"], 6379)
    assert common.items() <= services["airflow-worker"]["environment"].items()
    assert common["AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER"] == "1"
    assert common["AIRFLOW__CELERY__TASK_ACKS_LATE"] == "True"
    assert "ports" not in broker
    # Its account may write nowhere: it must not refuse work because it cannot save.
    assert broker["command"][1:4] == ["/run/secrets/airflow_broker.conf", "--save", ""]


def connection(environment, name):
    return json.loads(environment[f"AIRFLOW_CONN_FLEAD_{name}"])


def test_airflow_reaches_the_same_kinds_of_servers(services, embedded_airflow, tmp_path):
    found = services["airflow-worker"]["environment"]
    write_secret_files(tmp_path, tmp_path / ".env")
    in_files = json.loads((tmp_path / "airflow_connections.json").read_text())

    embedded = [name for name in embedded_airflow if name.startswith("AIRFLOW_CONN_")]
    assert {name.removeprefix("AIRFLOW_CONN_").lower() for name in embedded} == {
        *in_files,
        "flead_kafka",
        "flead_flink",
        "flead_spark",
    }
    nodes = ",".join(f"{node}:9092" for node in NODES)
    assert connection(found, "KAFKA")["extra"] == {"bootstrap.servers": nodes}
    flink_server = connection(found, "FLINK")
    assert flink_server.keys() == connection(embedded_airflow, "FLINK").keys()
    assert flink_server["extra"] == {"python_jar": "/opt/flead/config/flink-python.jar"}
    port = yaml.safe_load(compose.read(USER)["configs"]["flink"]["content"])["rest.port"]
    assert (flink_server["host"], flink_server["port"]) == ("flink-jobmanager", port)
    assert in_files["flead_db"].endswith("@timescaledb:5432/flead")


def test_spark_gets_the_environment_properties_and_jars_of_the_embedded_one(services):
    found = connection(services["airflow-worker"]["environment"], "SPARK")["extra"]
    embedded = spark.spark_environment(IMAGE_HOME)
    properties = spark.spark_configuration(IMAGE_HOME)

    assert found["spark_submit"] == str(spark.spark_submit(IMAGE_HOME))
    # Its address is the container's own.
    assert differences(embedded, found["environment"]) == {"SPARK_LOCAL_IP", "PATH"}
    assert differences(properties, found["conf"]) == {
        "spark.driver.host", "spark.driver.bindAddress", "spark.local.dir", "spark.eventLog.dir",
        "spark.jars", "spark.cores.max", "spark.executor.memory",
    }  # fmt: skip
    jars = {f"/opt/flead/jars/spark/{jar.file_name}" for jar in locked_jars("spark")}
    assert set(found["conf"]["spark.jars"].split(",")) == jars


def test_links_of_dashboards_lead_to_the_host_of_airflows_login(services):
    address = services["airflow-api-server"]["environment"]["AIRFLOW__API__BASE_URL"]

    assert address == boards.AIRFLOW


def test_commands_of_airflow_are_those_of_the_embedded_stack(services):
    for name, (arguments, component) in PROCESSES.items():
        command = services[name]["command"]
        assert " ".join(command).endswith(" ".join(("airflow", *arguments))), name
        assert services[name]["healthcheck"]["test"][-1] == component


def test_the_database_has_the_settings_of_the_embedded_one(services):
    given = dict(
        option.split("=", 1) for option in services["timescaledb"]["command"] if "=" in option
    )

    of_the_place = {"listen_addresses", "unix_socket_directories"}
    # The image chooses these by the machine; TimescaleDB's jobs are workers, too.
    chosen = {"shared_buffers", "max_worker_processes"}
    assert differences(postgres.SETTINGS, given) == of_the_place | chosen
    assert set(services["init"]["secrets"]) == {
        f"postgres_{role}" for role in ("superuser", GRAFANA, *provisioning.DATABASES)
    }
