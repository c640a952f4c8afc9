"""Quality: which evaluations passed their checks, and what broke a rule."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from flead.storage.connection import Cursor
from flead.storage.queries import rows
from flead_airflow.pages.rendering import PagesDep

RUNS: Final = 20
FAILURES: Final = 20

router = APIRouter()


@router.get("/quality")
def quality(pages: PagesDep, run: Annotated[str, Query(max_length=256)] = "") -> HTMLResponse:
    """Show the page, with the rules of one run."""
    return pages.show("quality", lambda cursor: gather(cursor, run.replace("\0", "")))


def gather(cursor: Cursor, run: str) -> dict[str, Any]:
    """Read what the page shows: the named run, or the newest that was checked."""
    runs = rows(cursor, "evaluations", {"max_rows": RUNS})
    if not run:
        checked = (each["evaluation_run_id"] for each in runs if each["rules"])
        run = next(checked, "")
    return {
        "runs": runs,
        "run": run,
        "results": rows(cursor, "quality_results", {"run": run}) if run else [],
        "versions": rows(cursor, "evaluated_versions", {"run": run}) if run else [],
        "failures": rows(cursor, "quality_failures", {"max_rows": FAILURES}),
    }
