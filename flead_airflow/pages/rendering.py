"""From what the database has to a page."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import psycopg2
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from psycopg2 import errors

from flead.storage.connection import Cursor, connect_read_only
from flead_airflow import connections
from flead_airflow.pages import URL_PREFIX, formats

STATEMENT_SECONDS: Final = 10.0
ROLLBACK_DAG: Final = "rollback_model"
NAVIGATION: Final = (
    ("overview", "Overview"),
    ("devices", "Devices"),
    ("pipeline", "Pipeline"),
    ("models", "Models"),
    ("quality", "Quality"),
    ("tuning", "Tuning"),
)

Found = TypeVar("Found")

TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= formats.FILTERS


class Pages:
    """Answers requests of a user with pages."""

    def __init__(self, request: Request, user: GetUserDep) -> None:
        self._request = request
        self._user = user

    def show(self, section: str, gather: Callable[[Cursor], dict[str, Any]]) -> HTMLResponse:
        """Fill the template of a section with what is gathered in one transaction.

        Without FLEAD's tables, or without a database, the page says so and what to do.
        """
        context = self.read(section, gather)
        if isinstance(context, HTMLResponse):
            return context
        return self._render(f"{context.pop('template', section)}.html", section, context)

    def read(self, section: str, gather: Callable[[Cursor], Found]) -> Found | HTMLResponse:
        """Return what is gathered in one transaction, or the page that says why it cannot be."""
        try:
            with (
                connect_read_only(database_url(), STATEMENT_SECONDS) as connection,
                connection.cursor() as cursor,
            ):
                return gather(cursor)
        except (errors.UndefinedTable, errors.UndefinedColumn):
            return self._render("unprepared.html", section, {})
        except (psycopg2.OperationalError, AirflowNotFoundException) as error:
            return self._render("unreachable.html", section, {"error": str(error).strip()}, 503)

    def _render(
        self, template: str, section: str, context: dict[str, Any], status: int = 200
    ) -> HTMLResponse:
        known = context | {"may_roll_back": may_roll_back(self._user)}
        return render(self._request, template, section, known, status)


PagesDep = Annotated[Pages, Depends(Pages)]


def render(
    request: Request, template: str, section: str, context: dict[str, Any], status: int
) -> HTMLResponse:
    """Fill a template with what every page has, and what this one shows."""
    page = TEMPLATES.get_template(template).render(
        context
        | {
            "root": request.scope["root_path"],
            "airflow": airflow_path(request),
            "section": section,
            "navigation": NAVIGATION,
            "now": datetime.now(UTC),
        }
    )
    return HTMLResponse(page, status)


def airflow_path(request: Request) -> str:
    """Return the path of Airflow's own pages: what comes before the app's prefix."""
    return str(request.scope["root_path"]).removesuffix(URL_PREFIX)


def database_url() -> str:
    """Return where FLEAD's state is."""
    return connections.database_url(BaseHook.get_connection(connections.DATABASE))


def may_roll_back(user: GetUserDep) -> bool:
    """Whether a user may run the DAG that takes models back."""
    return get_auth_manager().is_authorized_dag(
        method="POST",
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=ROLLBACK_DAG),
        user=user,
    )


def not_found(what: str) -> HTTPException:
    """Return the answer for what there is not."""
    return HTTPException(404, f"there is no {what}")
