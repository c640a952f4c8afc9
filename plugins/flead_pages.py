"""Registers FLEAD's pages in Airflow's API server, and the fleet's in its side bar."""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from flead_airflow import data_docs, pages
from flead_airflow.lazy_app import LazyApp
from flead_airflow.quality import URL_PREFIX


class FleadPages(AirflowPlugin):
    """The fleet pages, and the Data Docs that tasks of `evaluation_quality` link to."""

    name = "flead_pages"
    # In this order: the first whose prefix fits answers.
    fastapi_apps: list[Any] = [  # noqa: RUF012
        {"app": LazyApp(data_docs.make_app), "url_prefix": URL_PREFIX, "name": "Data Docs"},
        {"app": LazyApp(pages.make_app), "url_prefix": pages.URL_PREFIX, "name": "Fleet"},
    ]
    external_views: list[Any] = [pages.navigation_entry()]  # noqa: RUF012
