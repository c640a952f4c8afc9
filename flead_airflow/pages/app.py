"""The app: every route asks for a login, and no page can be made to act for others."""

from collections.abc import Awaitable, Callable
from typing import Final

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, Request, Response

from flead_airflow.pages import device, devices, files, models, overview, pipeline, quality, tuning
from flead_airflow.pages.errors import answer_with_pages

HEADERS: Final = {
    # Nothing from elsewhere, nothing inline: what a device has sent cannot run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ROUTERS: Final = tuple(
    page.router for page in (files, overview, devices, device, pipeline, models, quality, tuning)
)


def make_app() -> FastAPI:
    """Return the app."""
    # Airflow mounts it without a login, and the guard covers no pages of FastAPI's own.
    app = FastAPI(
        title="Fleet",
        dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.middleware("http")
    async def with_headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    answer_with_pages(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
