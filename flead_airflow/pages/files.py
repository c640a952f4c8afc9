"""Style, scripts and icons: the package's own, and the libraries that npm has installed."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from flead.settings import Settings

OWN: Final = Path(__file__).with_name("static")
LIBRARIES: Final = {
    "htmx.js": "htmx.org/dist/htmx.min.js",
    "echarts.js": "echarts/dist/echarts.min.js",
}
TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# A file is asked for by the version of its content, or changes with the next release.
HEADERS: Final = {"Cache-Control": "private, max-age=3600"}

# Routes, since the login of an app covers no mounted folder.
router = APIRouter()


@router.get("/static/{name}")
def own_file(name: str) -> FileResponse:
    """Send a file of the package."""
    path = OWN / name
    if path.suffix not in TYPES or path.parent != OWN or not path.is_file():
        raise HTTPException(404, f"there is no file {name}")
    return FileResponse(path, media_type=TYPES[path.suffix], headers=HEADERS)


@router.get("/libraries/{name}")
def library(name: str) -> FileResponse:
    """Send a library."""
    if name not in LIBRARIES:
        raise HTTPException(404, f"there is no library {name}")
    path = Path(Settings.from_environment().web_libraries_dir) / LIBRARIES[name]
    if not path.is_file():
        raise HTTPException(
            404,
            f"{path} is not there: run `bin/flead prepare airflow`, or `npm ci` with the lock of"
            " flead_airflow/pages, and let FLEAD_WEB_LIBRARIES_DIR name its node_modules",
        )
    return FileResponse(path, media_type=TYPES[path.suffix], headers=HEADERS)
