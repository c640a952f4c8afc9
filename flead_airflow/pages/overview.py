"""Overview: how the models do, what flows, and what waits for a person."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flead.storage.connection import Cursor
from flead.storage.queries import Row, row, rows
from flead_airflow.pages import charts
from flead_airflow.pages.attention import attention, is_stale
from flead_airflow.pages.devices import SILENCE
from flead_airflow.pages.rendering import PagesDep

VERSIONS: Final = 200
ROUNDS: Final = 8
ANOMALIES: Final = 5
REACH: Final = timedelta(hours=6)
SLOT: Final = timedelta(minutes=2)

STATUSES: Final = (
    ("promoted", "good", "circle"),
    ("candidate", "accent", "emptyCircle"),
    ("rejected", "bad", "triangle"),
    ("rolled_back", "warn", "diamond"),
)

router = APIRouter()


@router.get("/overview")
def overview(pages: PagesDep) -> HTMLResponse:
    """Show the page."""
    return pages.show("overview", gather)


def gather(cursor: Cursor) -> dict[str, Any]:
    """Read what the page shows."""
    versions = rows(cursor, "versions", {"max_rows": VERSIONS})
    readings = rows(cursor, "readings", {"reach": REACH, "slot": SLOT})
    fleet = row(cursor, "fleet", {"silence": SILENCE})
    reading = row(cursor, "reading")
    return {
        "head": row(cursor, "head"),
        "reading": reading,
        "is_stale": reading is not None and is_stale(reading),
        "fleet": fleet,
        "control": row(cursor, "control"),
        "rounds": rows(cursor, "rounds", {"max_rows": ROUNDS}),
        "attention": attention(cursor, reading, fleet),
        "anomalies": rows(cursor, "latest_anomalies", {"max_rows": ANOMALIES}),
        "accuracy": by_version("Accuracy by version", versions, "global_accuracy", "percent"),
        "loss": by_version("Log loss by version", versions, "global_loss", "decimals"),
        "flow": flow(readings),
        "lag": lag(readings),
    }


def by_version(
    title: str, versions: Sequence[Row], figure: str, form: charts.Format
) -> dict[str, Any]:
    """Chart what was measured of each version, with what became of it."""
    measured = [version for version in versions if version[figure] is not None]
    promoted = [(each["version"], each[figure]) for each in measured if each["promoted_at"]]
    drawn = [
        charts.series("promoted versions", promoted, colour="line", draw="line", symbol="none")
    ]
    drawn += [
        charts.series(
            status.replace("_", " "),
            [(each["version"], each[figure]) for each in measured if each["status"] == status],
            colour=colour,
            draw="points",
            symbol=symbol,
        )
        for status, colour, symbol in STATUSES
    ]
    return charts.chart(title, "version", [charts.axis("", form)], drawn)


def flow(readings: Sequence[Row]) -> dict[str, Any]:
    """Chart what flows."""
    return charts.chart(
        "Rows and updates a second",
        "time",
        [charts.axis("rows/s", "rate", low=0), charts.axis("updates/s", "rate", low=0)],
        [
            charts.series(
                "rows/s",
                charts.over_time(readings, "created_at", "rows_per_second"),
                colour="accent",
                draw="area",
            ),
            charts.series(
                "updates/s",
                charts.over_time(readings, "created_at", "updates_per_second"),
                colour="second",
                axis=1,
            ),
        ],
    )


def lag(readings: Sequence[Row]) -> dict[str, Any]:
    """Chart how long rows wait."""
    return charts.chart(
        "How long rows wait",
        "time",
        [charts.axis("", "seconds", low=0)],
        [
            charts.series(
                "training job",
                charts.over_time(readings, "created_at", "lag_seconds"),
                colour="accent",
                draw="area",
            ),
            charts.series(
                "stream analysis",
                charts.over_time(readings, "created_at", "stream_lag_seconds"),
                colour="second",
            ),
        ],
    )
