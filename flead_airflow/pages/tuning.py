"""Tuning: decisions about the fleet's hyperparameters, each with what it was decided on."""

from typing import Any, Final

from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from flead.storage.connection import Cursor
from flead.storage.queries import Row, row, rows
from flead_airflow.pages.rendering import PagesDep

DECISIONS: Final = 20
DAG: Final = "hyperparameter_tuning"

router = APIRouter()


@router.get("/tuning")
def tuning(pages: PagesDep) -> HTMLResponse:
    """Show the page."""
    return pages.show("tuning", gather)


def gather(cursor: Cursor) -> dict[str, Any]:
    """Read what the page shows."""
    decisions = rows(cursor, "tuning", {"max_rows": DECISIONS})
    is_waiting = any(each["status"] == "awaiting_approval" for each in decisions)
    return {
        "control": row(cursor, "control"),
        "decisions": [decision | {"changes": changes(decision)} for decision in decisions],
        "approval": approval_page() if is_waiting else None,
    }


def changes(decision: Row) -> list[tuple[str, object, object]]:
    """Return what a decision changes, or an approval would: name, value before, value after."""
    before, after = decision["incumbent"], decision["hyperparameters"]
    if decision["status"] == "awaiting_approval":
        # Until then the decision's own are the incumbent's, which the fleet trains with meanwhile.
        winner = decision["evidence"]["judgement"]["winner"]
        tried = {each["trial"]: each["hyperparameters"] for each in decision["trials"]}
        after = tried[winner]
    return [
        (name, before.get(name), value)
        for name, value in after.items()
        if value != before.get(name)
    ]


def approval_page() -> str:
    """Return the page of Airflow's on which the approval that waits is given."""
    with create_session() as session:
        run_id = session.scalar(
            select(TaskInstance.run_id).where(
                TaskInstance.dag_id == DAG,
                TaskInstance.task_id == "approve",
                TaskInstance.state == TaskInstanceState.AWAITING_INPUT,
            )
        )
    if run_id is None:
        return "/required_actions?response_received=false"
    return f"/dags/{DAG}/runs/{run_id}/tasks/approve/required_actions"
