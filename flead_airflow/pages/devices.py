"""Devices: all of the fleet, found, sorted and paged by the database."""

from datetime import timedelta
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from flead.storage.connection import Cursor
from flead.storage.queries import row, rows
from flead_airflow.pages.rendering import PagesDep

Sort = Literal[
    "worst", "device", "accuracy", "log_loss", "global_accuracy", "learning_rate", "seen"
]
Status = Literal["", "drifting", "training", "converged", "paused", "silent"]
PAGE_ROWS: Final = 25
SILENCE: Final = timedelta(minutes=15)
"""A device is silent whose newest update is so far behind the fleet's newest."""
DESCENDING_FIRST: Final = frozenset({"worst", "log_loss", "learning_rate", "seen"})
COLUMNS: Final = (
    ("device", "Device", False),
    ("accuracy", "Accuracy, own", True),
    ("log_loss", "Log loss, own", True),
    ("global_accuracy", "Accuracy, global", True),
    ("learning_rate", "Learning rate", True),
    ("seen", "Newest update", False),
)
"""What can be sorted by, as headed; whether it is a number."""

router = APIRouter()


class View(msgspec.Struct, frozen=True):
    """Which devices are shown."""

    search: str
    status: str
    sort: str
    descending: bool
    page: int

    def address(self, **changes: object) -> str:
        """Return the query of this view with changes, without what is the default."""
        view = {**msgspec.structs.asdict(self), "page": 1, **changes}
        view["order"] = _order(view["sort"], descending=view.pop("descending"))
        default = {"search": "", "status": "", "sort": "worst", "page": 1, "order": ""}
        return "?" + urlencode({name: view[name] for name in view if view[name] != default[name]})

    @property
    def order(self) -> str:
        """Which way the view is sorted, as addresses have it: "" is that of its column."""
        return _order(self.sort, descending=self.descending)

    def sorted_by(self, sort: str) -> str:
        """Return the query that sorts by a column, the other way round if it is already."""
        if sort == self.sort:
            return self.address(descending=not self.descending)
        return self.address(sort=sort, descending=sort in DESCENDING_FIRST)

    def aria_sort(self, sort: str) -> str:
        """Return what a screen reader is told of a column."""
        if sort != self.sort:
            return "none"
        return "descending" if self.descending else "ascending"


def _order(sort: str, *, descending: bool) -> str:
    return "" if descending == (sort in DESCENDING_FIRST) else "desc" if descending else "asc"


@router.get("/devices")
def devices(
    pages: PagesDep,
    search: Annotated[str, Query(max_length=256)] = "",
    status: Status = "",
    sort: Sort = "worst",
    order: Literal["asc", "desc", ""] = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> HTMLResponse:
    """Show a page of the devices that fit."""
    descending = order == "desc" if order else sort in DESCENDING_FIRST
    view = View(search.strip().replace("\0", ""), status, sort, descending, page)
    return pages.show("devices", lambda cursor: gather(cursor, view))


def gather(cursor: Cursor, view: View) -> dict[str, Any]:
    """Read what the page shows."""
    asked = {"search": view.search, "status": view.status, "silence": SILENCE}
    fleet = row(cursor, "fleet", {"silence": SILENCE}) or {}
    if view.search:
        fitting = (row(cursor, "devices_found", asked) or {})["fitting"]
    else:
        fitting = fleet[view.status or "devices"]
    window = {
        "sort": view.sort,
        "direction": -1 if view.descending else 1,
        "max_rows": PAGE_ROWS,
        "first_row": (view.page - 1) * PAGE_ROWS,
    }
    return {
        "view": view,
        "fleet": fleet,
        "found": rows(cursor, "devices", asked | window),
        "fitting": fitting,
        "first": (view.page - 1) * PAGE_ROWS + 1,
        "last_page": max(-(-fitting // PAGE_ROWS), 1),
        "columns": COLUMNS,
        "statuses": get_args(Status)[1:],
    }
