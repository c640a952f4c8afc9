"""The pages of quality checks, through Airflow's API server."""

import pytest
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.utils import db
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from flead_airflow.data_docs import make_app
from flead_airflow.quality import URL_PREFIX, page_of

RUN = "v3-20261124T073000000000Z"


@pytest.fixture(scope="module")
def client():
    db.initdb()
    return TestClient(create_app(apps="core"))


@pytest.fixture
def viewer():
    user = SimpleAuthManagerUser(username="viewer", role="viewer")
    return {"Authorization": f"Bearer {get_auth_manager().generate_jwt(user)}"}


@pytest.fixture(autouse=True)
def pages(tmp_path, monkeypatch):
    """Lay out the pages of a run, one that is being written, and a secret beside the folder."""
    folder = tmp_path / "docs"
    for name in (RUN, ".v4"):
        (folder / name).mkdir(parents=True)
        (folder / name / "index.html").write_text(f"pages of {name}")
    (tmp_path / "secret").write_text("a secret")
    monkeypatch.setenv("FLEAD_DATA_DOCS_DIR", str(folder))


def test_every_route_asks_for_a_login(client):
    routes = make_app().routes

    assert [route.path for route in routes if not isinstance(route, APIRoute)] == []
    for path in ("/", f"/{RUN}/index.html"):
        assert client.get(URL_PREFIX + path).status_code == 401
    assert len(routes) == 2


def test_who_is_logged_in_sees_the_runs_and_their_pages(client, viewer):
    index = client.get(f"{URL_PREFIX}/", headers=viewer)
    page = client.get(f"{URL_PREFIX}/{RUN}/index.html", headers=viewer)

    assert index.text.count("<li>") == 1
    assert f'href="{RUN}/index.html"' in index.text
    assert page.text == f"pages of {RUN}"
    assert page.headers["Content-Security-Policy"] == index.headers["Content-Security-Policy"]
    assert page_of(RUN).endswith(f"{URL_PREFIX}/{RUN}/index.html")


def test_what_devices_have_sent_neither_runs_nor_fetches_anything(client, viewer):
    page = client.get(f"{URL_PREFIX}/{RUN}/index.html", headers=viewer)

    policy = dict(
        directive.strip().partition(" ")[::2]
        for directive in page.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["sandbox"] == "allow-popups"
    # https://www.w3.org/TR/CSP3/#directive-default-src: what falls back to it is not let in again
    assert set(policy) - {"default-src", "sandbox"} == {
        "style-src", "img-src", "base-uri", "form-action",
    }  # fmt: skip
    assert (policy["style-src"], policy["img-src"]) == ("'unsafe-inline'", "data:")


@pytest.mark.parametrize(
    "path", ["nothing.html", RUN, ".v4/index.html", "%2e%2e/secret", "..%2Fsecret"]
)
def test_nothing_but_pages_is_served(path, client, viewer):
    assert client.get(f"{URL_PREFIX}/{path}", headers=viewer).status_code == 404
