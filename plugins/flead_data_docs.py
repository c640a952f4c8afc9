"""Registers the pages of the quality checks in Airflow's API server."""

from airflow.plugins_manager import AirflowPlugin

from flead_airflow.data_docs import DataDocsApp
from flead_airflow.quality import URL_PREFIX


class FleadDataDocs(AirflowPlugin):
    """Data Docs, linked from the tasks of `evaluation_quality`."""

    name = "flead_data_docs"
    fastapi_apps = [{"app": DataDocsApp(), "url_prefix": URL_PREFIX, "name": "Data Docs"}]  # noqa: RUF012
