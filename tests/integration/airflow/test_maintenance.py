"""The DAG that deletes what is old, against real databases: FLEAD's own and one of Airflow's."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag
from airflow.utils import db

from flead.contracts.topics import Topic
from flead.storage.connection import connect
from flead.storage.migrations import migrate
from flead.storage.outbox import OutboxMessage, add
from flead_airflow.maintenance import CleanError, clean_metadata, remove_applications, remove_files

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=100)


def write(path, at=NOW):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    age(path, at)


def age(path, at):
    os.utime(path, (at.timestamp(), at.timestamp()))


class TestFiles:
    def test_old_ones_go_with_the_folders_that_they_leave_empty(self, tmp_path):
        write(tmp_path / "dag_id=a" / "run_id=1" / "attempt=1.log", OLD)
        age(tmp_path / "dag_id=a" / "run_id=1", OLD)
        age(tmp_path / "dag_id=a", OLD)
        write(tmp_path / "dag_id=b" / "run_id=1" / "attempt=1.log", OLD)
        write(tmp_path / "dag_id=b" / "run_id=2" / "attempt=1.log")
        (tmp_path / "just_made").mkdir()

        removed = remove_files(tmp_path, NOW - timedelta(days=14))

        assert removed == 2
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["dag_id=b", "just_made"]
        assert [path.parent.name for path in tmp_path.rglob("*.log")] == ["run_id=2"]

    def test_an_event_log_that_is_still_written_stays_whole(self, tmp_path):
        for name, newest in [("eventlog_v2_ended", OLD), ("eventlog_v2_running", NOW)]:
            write(tmp_path / name / "events_1", OLD)
            write(tmp_path / name / "events_2", newest)
            age(tmp_path / name, OLD)
        write(tmp_path / "local-1", OLD)

        removed = remove_applications(tmp_path, NOW - timedelta(days=14))

        assert removed == 2
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            "eventlog_v2_running",
            "events_1",
            "events_2",
        ]

    def test_there_may_be_none(self, tmp_path):
        assert remove_files(tmp_path / "none", NOW) == 0
        assert remove_applications(tmp_path / "none", NOW) == 0


@pytest.fixture(scope="module")
def run_maintenance(checkout):
    db.initdb()
    DagBundlesManager().sync_bundles_to_db()

    def run():
        return DagBag(str(checkout / "dags" / "maintenance.py")).dags["maintenance"].test()

    return run


@pytest.fixture(scope="module")
def metadata_url(make_database):
    """Return the URL of a migrated database of Airflow's."""
    url = make_database()
    address = url.replace("postgresql://", "postgresql+psycopg2://")
    migrated = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    return url


@pytest.fixture
def log_entries(metadata_url):
    """Store an old and a young entry of Airflow's audit log."""
    with connect(metadata_url) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE log")
        cursor.executemany(
            "INSERT INTO log (dttm, event) VALUES (%s, %s)", [(OLD, "old"), (NOW, "young")]
        )


def events(metadata_url):
    with connect(metadata_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT event FROM log WHERE event IN ('old', 'young') ORDER BY event")
        return [event for (event,) in cursor.fetchall()]


@pytest.mark.servers
class TestMetadata:
    def test_old_rows_go_and_are_counted(self, metadata_url, log_entries):
        deleted = clean_metadata(metadata_url, NOW - timedelta(days=30))

        assert deleted == {"log": 1}
        assert events(metadata_url) == ["young"]
        with connect(metadata_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_tables WHERE tablename LIKE '%airflow_deleted%'")
            assert cursor.rowcount == 0

    def test_a_database_that_is_not_airflows_is_an_error_with_what_was_said(self):
        with pytest.raises(CleanError, match=r"airflow db clean ended with 1:\n"):
            clean_metadata("postgresql://nobody@127.0.0.1:1/none", NOW)


@pytest.mark.servers
@pytest.mark.timeout(600)
class TestMaintenance:
    @pytest.fixture(autouse=True)
    def connections(self, database_connection, database_url, monkeypatch, tmp_path):
        migrate(database_url)
        monkeypatch.setenv(
            "AIRFLOW_CONN_FLEAD_KAFKA",
            json.dumps({"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:1"}}),
        )
        events = (tmp_path / "spark-events").as_uri()
        monkeypatch.setenv(
            "AIRFLOW_CONN_FLEAD_SPARK",
            json.dumps(
                {
                    "conn_type": "spark",
                    "host": "local[1]",
                    "extra": {"conf": {"spark.eventLog.dir": events}},
                }
            ),
        )
        monkeypatch.setenv("GLOBAL_MODELS_DIR", str(tmp_path / "models"))
        write(tmp_path / "spark-events" / "eventlog_v2_ended" / "events_1", OLD)
        age(tmp_path / "spark-events" / "eventlog_v2_ended", OLD)
        for version in (1, 2):
            write(tmp_path / "models" / f"global-model-{version:08d}.json", OLD)
        write(tmp_path / "models" / "global-model-00000003.json")
        write(tmp_path / "models" / "notes.json", OLD)
        with connect(database_url) as connection, connection.cursor() as cursor:
            add(cursor, [OutboxMessage(Topic.FEEDBACK, name, "{}") for name in ("old", "ready")])
            cursor.execute(
                "UPDATE outbox SET state = 'published', published_at = %s WHERE key = 'old'", (OLD,)
            )
            cursor.execute(
                """
                INSERT INTO federated_models (
                    version, parent_version, status, feature_schema, feature_names, strategy,
                    options, weights, intercept, standardizer, num_devices, num_updates,
                    total_samples, input_offsets, hyperparameters_revision, artifact_path,
                    artifact_sha256, created_at
                ) VALUES (
                    2, 1, 'promoted', 'x', '{x}', 'fedavg', '{}', '{0}', 0, '{}', 1, 1, 1, '{}',
                    0, %s, repeat('0', 64), %s
                )
                """,
                (str(tmp_path / "models" / "global-model-00000002.json"), NOW),
            )

    def states(self, run):
        return {task.task_id: task.state for task in run.get_task_instances()}

    def kept(self, database_url, tmp_path):
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT key FROM outbox")
            messages = [key for (key,) in cursor.fetchall()]
        models = sorted(path.name for path in (tmp_path / "models").iterdir())
        return messages, models, list((tmp_path / "spark-events").iterdir())

    EXPECTED = (
        ["ready"],
        ["global-model-00000002.json", "global-model-00000003.json", "notes.json"],
        [],
    )

    def test_deletes_rows_artifacts_logs_and_metadata(
        self, run_maintenance, database_url, metadata_url, log_entries, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("AIRFLOW_CONN_FLEAD_AIRFLOW_DB", metadata_url)

        run = run_maintenance()

        assert run.state == "success"
        assert set(self.states(run).values()) == {"success"}
        assert self.kept(database_url, tmp_path) == self.EXPECTED
        assert events(metadata_url) == ["young"]

    def test_goes_on_when_a_step_fails_and_says_which(
        self, run_maintenance, database_url, tmp_path, monkeypatch
    ):
        with connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("ALTER TABLE evaluation_runs RENAME TO hidden")

        run = run_maintenance()

        assert run.state == "failed"
        states = self.states(run)
        assert states.pop("analyses") == "failed"
        # Without a connection to Airflow's database
        assert states.pop("airflow_metadata") == "skipped"
        assert set(states.values()) == {"success"}
        assert self.kept(database_url, tmp_path) == self.EXPECTED
