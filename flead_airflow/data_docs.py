"""Serve the Data Docs of the quality checks to people who are logged in to Airflow."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from flead.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

HEADERS: Final = {
    # Pages quote what devices have sent: nothing in them runs, or is fetched. The scripts of Great
    # Expectations are of no use without those that they would load from public servers.
    "Content-Security-Policy": (
        "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def make_app() -> "FastAPI":
    """Return the app: a list of the runs, and the files of each."""
    from airflow.api_fastapi.auth.managers.models.resource_details import (  # noqa: PLC0415 - heavy
        AccessView,
    )
    from airflow.api_fastapi.core_api.security import requires_access_view  # noqa: PLC0415
    from fastapi import Depends, FastAPI, HTTPException  # noqa: PLC0415
    from fastapi.responses import FileResponse, HTMLResponse  # noqa: PLC0415

    # Airflow mounts it without a login, and the guard covers no pages of FastAPI's own.
    app = FastAPI(
        title="Data Docs",
        dependencies=[Depends(requires_access_view(AccessView.WEBSITE))],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(index_page(directory()), headers=HEADERS)

    @app.get("/{path:path}")
    def page(path: str) -> FileResponse:
        file = file_of(directory(), path)
        if file is None:
            raise HTTPException(404, "there is no such page: the oldest are removed")
        return FileResponse(file, headers=HEADERS)

    return app


def directory() -> Path:
    """Return the folder that holds the pages."""
    return Path(Settings.from_environment().data_docs_dir)


def file_of(folder: Path, path: str) -> Path | None:
    """Return the file at a path below a folder; None when there is none, or it is hidden."""
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        return None
    hidden = any(part.startswith(".") for part in file.relative_to(folder.resolve()).parts)
    return None if hidden else file


def index_page(folder: Path) -> str:
    """Return the page that lists the runs, newest first."""
    # The quality layer is for requests only.
    from flead.quality.overview import STYLE  # noqa: PLC0415
    from flead.quality.pages import runs  # noqa: PLC0415

    items = "".join(
        f'<li><a href="{quote(run)}/index.html">{escape(run)}</a></li>' for run in runs(folder)
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Data Docs</title>"
        f"{STYLE}<h1>Data Docs</h1>"
        f"<p>Evaluations that were checked, the newest first.</p><ul>{items}</ul>"
    )
