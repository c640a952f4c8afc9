"""Who may see the pages, who may act, and what keeps other sites from acting for them."""

import html
import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi.routing import APIRoute
from sqlalchemy import select

from flead_airflow.pages import URL_PREFIX, make_app

pytestmark = pytest.mark.servers

ROUTES = [route for route in make_app().routes if isinstance(route, APIRoute)]
PLACES = {"device_id:path": "pump-1", "version": "1", "name": "pages.css"}
QUERIES = {"/models/compare": "?a=1&b=1"}
OWN = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}
ASKED = {"version": "1", "reason": "worse at night"}


def address(route):
    path = re.sub(r"\{([^}]*)\}", lambda found: PLACES[found[1]], route.path)
    return (
        URL_PREFIX
        + path.replace("libraries/pages.css", "libraries/htmx.js")
        + QUERIES.get(path, "")
    )


def visits(method):
    return [address(route) for route in ROUTES if method in route.methods]


@pytest.fixture(autouse=True)
def small_fleet(fleet, artifact):
    """Lay out what every route finds something of."""
    fleet.device("pump-1")


def started_runs():
    with create_session() as session:
        return set(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == "rollback_model")))


def test_the_login_covers_every_route():
    app = make_app()

    # Mounted folders and routes that FastAPI adds by itself would not be.
    assert [route.path for route in app.routes if not isinstance(route, APIRoute)] == []
    assert {method for route in ROUTES for method in route.methods} == {"GET", "POST"}
    assert len(ROUTES) == 12


@pytest.mark.parametrize("page", visits("GET"))
def test_a_page_asks_for_a_login(page, client, viewer):
    assert client.get(page).status_code == 401
    assert client.get(page, headers={"Authorization": "Bearer nonsense"}).status_code == 403
    assert viewer.get(page).status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        "/overview",
        "/devices?status=drifting&sort=seen",
        "/devices/line%20%3Cb%3E%3F/1",
        "/devices/?next=https://elsewhere.example",
        "/devices//elsewhere.example",
    ],
)
def test_who_is_logged_out_reads_so_and_is_led_back_by_the_login(asked, client):
    page = f"{URL_PREFIX}{asked}"

    answer = client.get(page, headers={"Accept": "text/html"})

    assert answer.status_code == 401
    assert "<title>You are logged out · Fleet</title>" in answer.text
    assert "<h1>You are logged out</h1>" in answer.text
    login = html.unescape(re.search(r'<a href="([^"]*)" data-airflow>Log in</a>', answer.text)[1])
    assert login.startswith("/api/v2/auth/login?")
    form = client.get(login, follow_redirects=False)
    assert form.status_code == 307
    assert parse_qs(urlsplit(form.headers["Location"]).query) == {"next": [page]}


@pytest.mark.parametrize("page", visits("POST"))
def test_only_who_may_run_the_dag_acts(page, client, viewer, logged_in):
    before = started_runs()

    assert client.post(page, data=ASKED, headers=OWN).status_code == 401
    assert viewer.post(page, data=ASKED, headers=OWN).status_code == 403
    assert started_runs() == before
    for role in ("user", "op", "admin"):
        assert logged_in(role).post(page, data=ASKED, headers=OWN).status_code == 202
    assert len(started_runs() - before) == 3


@pytest.mark.parametrize(
    "sent",
    [
        {},
        OWN | {"HX-Request": ""},
        OWN | {"Sec-Fetch-Site": "cross-site"},
        OWN | {"Sec-Fetch-Site": "same-site"},
        OWN | {"Origin": "https://elsewhere.example"},
        OWN | {"Origin": "null"},
    ],
)
def test_another_site_cannot_act_with_the_cookie_of_an_operator(sent, logged_in):
    before = started_runs()

    answer = logged_in("admin").post(f"{URL_PREFIX}/models/rollback", data=ASKED, headers=sent)

    assert answer.status_code == 403
    assert started_runs() == before


def test_a_rollback_says_who_asked_for_what(logged_in):
    before = started_runs()

    answer = logged_in("op").post(f"{URL_PREFIX}/models/rollback", data=ASKED, headers=OWN)

    (run_id,) = started_runs() - before
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.run_id == run_id))
        assert run.conf == {"version": 1, "reason": "worse at night"}
        assert run.triggering_user_name == "op"
    assert run_id in html.unescape(answer.text)


@pytest.mark.parametrize("asked", [{"version": "0", "reason": "x"}, {"version": "1", "reason": ""}])
def test_a_rollback_needs_a_version_and_a_reason(asked, logged_in):
    before = started_runs()

    answer = logged_in("op").post(f"{URL_PREFIX}/models/rollback", data=asked, headers=OWN)

    assert answer.status_code == 422
    assert started_runs() == before


def test_a_viewer_is_not_offered_what_an_operator_may(fleet, viewer, logged_in):
    fleet.version(2, at=timedelta(minutes=1))

    pages = [browser.get(f"{URL_PREFIX}/models").text for browser in (viewer, logged_in("op"))]

    assert [page.count('data-rollback="1"') for page in pages] == [0, 1]
    assert ["<dialog" in page for page in pages] == [False, True]


def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(viewer):
    answer = viewer.get(f"{URL_PREFIX}/overview")

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.text) == []
    assert re.findall(r"\s(?:style|on[a-z]+)=", answer.text) == []
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


class TestFiles:
    @pytest.mark.parametrize("name", ["htmx.js", "echarts.js"])
    def test_libraries_are_those_that_npm_has_installed(self, name, viewer, web_libraries):
        answer = viewer.get(f"{URL_PREFIX}/libraries/{name}")

        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/javascript")
        assert answer.content in {file.read_bytes() for file in web_libraries.rglob("*.min.js")}

    @pytest.mark.parametrize(
        "path", ["static/app.py", "static/..%2fapp.py", "static/none.css", "libraries/tslib.js"]
    )
    def test_nothing_else_is_served(self, path, viewer):
        assert viewer.get(f"{URL_PREFIX}/{path}").status_code == 404

    def test_a_missing_library_says_what_to_do(self, viewer, monkeypatch, tmp_path):
        monkeypatch.setenv("FLEAD_WEB_LIBRARIES_DIR", str(tmp_path))

        answer = viewer.get(f"{URL_PREFIX}/libraries/htmx.js")

        assert answer.status_code == 404
        assert "bin/flead prepare" in answer.json()["detail"]


class TestDownload:
    PAGE = f"{URL_PREFIX}/models/1/download"

    def test_sends_the_artifact(self, viewer, artifact):
        answer = viewer.get(self.PAGE)

        assert answer.content == artifact.read_bytes()
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{artifact.name}"'

    def test_refuses_a_file_that_is_not_what_was_stored(self, viewer, artifact):
        artifact.write_bytes(b'{"version":2}')

        assert viewer.get(self.PAGE).status_code == 409

    def test_refuses_a_path_outside_the_folder_of_the_models(self, viewer, fleet, tmp_path):
        outside = tmp_path / "secret.json"
        outside.write_text("{}")
        fleet.version(2, artifact_path=f"{tmp_path}/models/../secret.json")

        assert viewer.get(f"{URL_PREFIX}/models/2/download").status_code == 409

    def test_a_version_without_a_file_is_not_found(self, viewer, artifact):
        artifact.unlink()

        assert viewer.get(self.PAGE).status_code == 404
        assert viewer.get(f"{URL_PREFIX}/models/9/download").status_code == 404


def test_airflow_shows_the_pages_in_its_side_bar(viewer):
    plugins = viewer.get("/api/v2/plugins").json()["plugins"]

    (view,) = [
        view for plugin in plugins for view in plugin["external_views"] if view["name"] == "Fleet"
    ]
    assert view["href"] == f"{URL_PREFIX}/overview"
    assert (view["url_route"], view["destination"]) == ("fleet", "nav")
    assert viewer.get(view["icon"]).headers["Content-Type"] == "image/svg+xml"
