"""What went wrong, as a page for who reads pages, as JSON for scripts and actions."""

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError

from flead_airflow.pages.rendering import airflow_path, render

LOGGED_OUT = 401


def answer_with_pages(app: FastAPI) -> None:
    """Have an app answer readers of pages with pages."""

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        if not reads_pages(request):
            return await http_exception_handler(request, error)
        if error.status_code == LOGGED_OUT:
            return page(request, "You are logged out", LOGGED_OUT, login=login_path(request))
        return page(request, str(error.detail), error.status_code)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        if not reads_pages(request):
            return await request_validation_exception_handler(request, error)
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return page(request, wrong, 422)


def reads_pages(request: Request) -> bool:
    """Whether a request is that of a page."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def page(request: Request, detail: str, status: int, **context: Any) -> Response:
    """Return the page that says what went wrong; `login` is where to log in again."""
    heading = detail[:1].upper() + detail[1:]
    return render(request, "error.html", "", {"heading": heading, "login": None, **context}, status)


def login_path(request: Request) -> str:
    """Return the path of Airflow's login that leads back to the page which was asked for."""
    root = str(request.scope["root_path"])
    # It begins with the app's own path whatever was asked for: no address of another site does.
    asked = quote(root + str(request.scope["path"]).removeprefix(root))
    if query := request.url.query:
        asked += f"?{query}"
    return f"{airflow_path(request)}/api/v2/auth/login?{urlencode({'next': asked})}"
