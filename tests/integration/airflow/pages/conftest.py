"""A small fleet in a real database of which the tests know every figure, and Airflow around it."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.utils import db
from starlette.testclient import TestClient

from flead.stack import environments
from flead.stack.home import Home
from flead.storage.migrations import migrate
from tests.integration.airflow.pages.small_fleet import SmallFleet


@pytest.fixture(scope="session")
def airflow_app(checkout):
    """Return Airflow's API server with the plugins of this checkout, and one DAG that it knows."""
    db.initdb()
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(str(checkout / "dags" / "rollback_model.py"))
    sync_bag_to_db(bag, "dags-folder", None)
    return create_app(apps="core")


@pytest.fixture
def client(airflow_app):
    """Return a browser that nobody has logged in with."""
    return TestClient(airflow_app)


@pytest.fixture
def logged_in(airflow_app):
    """Return the function that logs a role in, as the cookie of Airflow's form does."""

    def log_in(role):
        browser = TestClient(airflow_app)
        user = SimpleAuthManagerUser(username=role, role=role)
        browser.cookies.set("_token", get_auth_manager().generate_jwt(user))
        return browser

    return log_in


@pytest.fixture
def viewer(logged_in):
    """Return a browser of who may look."""
    return logged_in("viewer")


@pytest.fixture(scope="session")
def migrated_database(make_database):
    """Return the URL of a database with FLEAD's tables."""
    url = make_database()
    migrate(url)
    return url


@pytest.fixture
def fleet(migrated_database, monkeypatch):
    """Return what writes to a database, empty at first, that the pages read."""
    monkeypatch.setenv("AIRFLOW_CONN_FLEAD_DB", migrated_database)
    fleet = SmallFleet(migrated_database, now=datetime.now(UTC))
    fleet.clear()
    return fleet


@pytest.fixture
def artifact(fleet, tmp_path, monkeypatch):
    """Write version 1 with its artifact; return the file."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("GLOBAL_MODELS_DIR", str(folder))
    file = folder / "global-model-00000001.json"
    file.write_bytes(b'{"version":1}')
    digest = hashlib.sha256(b'{"version":1}').hexdigest()
    fleet.version(1, at=timedelta(minutes=2), artifact_path=str(file), artifact_sha256=digest)
    return file


@pytest.fixture(autouse=True)
def web_libraries(monkeypatch):
    """Return the folder that `bin/flead prepare` has filled, which the pages serve from."""
    folder = environments.web_libraries(Home.from_environment())
    monkeypatch.setenv("FLEAD_WEB_LIBRARIES_DIR", str(folder))
    return folder
