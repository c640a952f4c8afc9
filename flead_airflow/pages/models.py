"""Models: the global versions, two of them weight by weight, and the way back."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.exceptions import DagNotFound
from airflow.utils.types import DagRunTriggeredByType
from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response

from flead.federation.difference import compare_weights
from flead.settings import Settings
from flead.storage import catalog
from flead.storage import models as stored_models
from flead.storage.connection import Cursor
from flead.storage.queries import row, rows
from flead_airflow.pages.forgery import requires_own_page
from flead_airflow.pages.rendering import (
    ROLLBACK_DAG,
    TEMPLATES,
    PagesDep,
    airflow_path,
    not_found,
)

PAGE_ROWS: Final = 25
NEWEST: Final = 2**63 - 1
Version = Annotated[int, Query(ge=1, le=NEWEST)]

router = APIRouter()


@router.get("/models")
def models(pages: PagesDep, page: Annotated[int, Query(ge=1, le=1_000_000)] = 1) -> HTMLResponse:
    """Show a page of the versions."""
    return pages.show("models", lambda cursor: gather(cursor, page))


def gather(cursor: Cursor, page: int) -> dict[str, Any]:
    """Read what the page shows."""
    window = {"max_rows": PAGE_ROWS, "first_row": (page - 1) * PAGE_ROWS}
    total = (row(cursor, "models_count") or {"versions": 0})["versions"]
    return {
        "models": rows(cursor, "models", window),
        "page": page,
        "total": total,
        "last_page": max(-(-total // PAGE_ROWS), 1),
    }


@router.get("/models/compare")
def compare(pages: PagesDep, a: Version, b: Version) -> HTMLResponse:
    """Show two versions weight by weight."""
    return pages.show("models", lambda cursor: gather_comparison(cursor, a, b))


def gather_comparison(cursor: Cursor, a: int, b: int) -> dict[str, Any]:
    """Read what the comparison shows: `b` against `a`."""
    listed = [catalog.listed(cursor, version) for version in (a, b)]
    stored = stored_models.models(cursor, (a, b))
    for version in (a, b):
        if version not in stored:
            raise not_found(f"version {version}")
    try:
        difference = compare_weights(stored[a].model, stored[b].model)
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    weights = difference.weights
    return {
        "template": "compare",
        "before": listed[0],
        "after": listed[1],
        "difference": difference,
        "largest": max((abs(each.change) for each in weights), default=0.0) or 1.0,
    }


@router.get("/models/{version}/download")
def download(pages: PagesDep, version: Annotated[int, InPath(ge=1, le=NEWEST)]) -> Response:
    """Send the artifact of a version, if it is the one that was stored."""
    stored = pages.read(
        "models", lambda cursor: stored_models.models(cursor, [version]).get(version)
    )
    if isinstance(stored, HTMLResponse):
        return stored
    if stored is None:
        raise not_found(f"version {version}")
    folder = Path(Settings.from_environment().global_models_dir).resolve()
    path = Path(stored.artifact_path).resolve()
    if not path.is_relative_to(folder):
        raise HTTPException(409, f"the artifact of version {version} is not in {folder}")
    if not path.is_file():
        raise not_found(f"artifact of version {version}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != stored.artifact_sha256:
        raise HTTPException(409, f"the artifact of version {version} is not what was stored")
    return Response(
        content,
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="{path.name}"',
            "X-Content-SHA256": digest,
        },
    )


@router.post(
    "/models/rollback",
    dependencies=[
        Depends(requires_own_page),
        Depends(requires_access_dag("POST", DagAccessEntity.RUN, param_dag_id=ROLLBACK_DAG)),
    ],
)
def roll_back(
    request: Request,
    user: GetUserDep,
    version: Annotated[int, Form(ge=1, le=NEWEST)],
    reason: Annotated[str, Form(min_length=1, max_length=500)],
) -> HTMLResponse:
    """Start the DAG that makes a version of an earlier one's weights."""
    try:
        run = trigger_dag(
            dag_id=ROLLBACK_DAG,
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=user.get_name(),
            conf={"version": version, "reason": reason},
        )
    except DagNotFound:
        raise HTTPException(409, f"Airflow does not know the DAG {ROLLBACK_DAG} yet") from None
    assert run is not None  # noqa: S101 - one run was asked for
    address = f"{airflow_path(request)}/dags/{ROLLBACK_DAG}/runs/{quote(run.run_id, safe='')}"
    answer = TEMPLATES.get_template("started.html").render(
        version=version, run_id=run.run_id, address=address
    )
    return HTMLResponse(answer, 202)
