"""The fleet pages: what people see of devices, models and the pipeline, behind Airflow's login."""

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from fastapi import FastAPI

URL_PREFIX: Final = "/flead"
"""Where the app is mounted in Airflow's API server."""


def make_app() -> "FastAPI":
    """Return the app."""
    from flead_airflow.pages.app import make_app as make  # noqa: PLC0415 - heavy: see LazyApp

    return make()


def navigation_entry() -> dict[str, object]:
    """Return what puts the pages into Airflow's side bar, at `/plugin/fleet`."""
    # An API server behind a proxy may have a path of its own.
    base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
    return {
        "name": "Fleet",
        "href": f"{base}{URL_PREFIX}/overview",
        "icon": f"{base}{URL_PREFIX}/static/icon.svg",
        "icon_dark_mode": f"{base}{URL_PREFIX}/static/icon-dark.svg",
        "url_route": "fleet",
        "destination": "nav",
        "nav_top_level": True,
    }
