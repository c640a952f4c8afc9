"""The pages that the embedded stack shows to people, and whether their servers run."""

from typing import Final

import msgspec

from flead.stack.addresses import Addresses
from flead.stack.airflow import API_SERVER
from flead.stack.home import Home
from flead.stack.spark import HISTORY
from flead.stack.status import stack_status


class WebPage(msgspec.Struct, frozen=True):
    """One page."""

    name: str
    url: str
    service: str
    """The server that shows it."""
    is_running: bool
    needs_login: bool
    shows: str


class WebPages(msgspec.Struct, frozen=True):
    """All pages, with where the login of those that need one is."""

    pages: list[WebPage]
    user: str
    password_file: str
    password_name: str
    """The key of the password in that file."""


FLEET_PATH: Final = "/plugin/fleet"
# Path below the server's address, and what is there.
OF_AIRFLOW = {
    "fleet": (FLEET_PATH, "the fleet: models, devices, pipeline, quality, tuning"),
    "airflow": ("/", "DAGs, runs, logs, approvals"),
    "data-docs": ("/flead/data-docs/", "quality checks of each evaluation"),
}


def fleet_page(addresses: Addresses) -> str:
    """Return where people begin: two clicks from the picture of a device's anomalies."""
    return addresses.airflow_url + FLEET_PATH


def web_pages(home: Home) -> WebPages:
    """Return every page with its address, whether or not its server runs."""
    addresses = Addresses.of(home)
    running = {each.name for each in stack_status(home).services if each.state == "running"}

    def page(name: str, url: str, service: str, shows: str) -> WebPage:
        return WebPage(name, url, service, service in running, service == API_SERVER, shows)

    pages = [
        *(
            page(name, addresses.airflow_url + path, API_SERVER, shows)
            for name, (path, shows) in OF_AIRFLOW.items()
        ),
        page("flink", addresses.flink_url, "flink-jobmanager", "the training job, checkpoints"),
        page("spark", addresses.spark_history_url, HISTORY, "analyses that have ended"),
    ]
    return WebPages(pages, addresses.airflow_user, str(home.secrets_file), "airflow_admin")
