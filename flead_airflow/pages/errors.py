"""What went wrong, as a page for who reads pages, as JSON for scripts and actions."""

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError

from flead_airflow.pages.rendering import render

LOGGED_OUT = 401


def answer_with_pages(app: FastAPI) -> None:
    """Have an app answer readers of pages with pages."""

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        if not reads_pages(request):
            return await http_exception_handler(request, error)
        detail = "You are logged out" if error.status_code == LOGGED_OUT else str(error.detail)
        return render(request, "error.html", "", {"detail": detail}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        if not reads_pages(request):
            return await request_validation_exception_handler(request, error)
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return render(request, "error.html", "", {"detail": wrong}, 422)


def reads_pages(request: Request) -> bool:
    """Whether a request is that of a page."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")
