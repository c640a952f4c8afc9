"""How long the queries of the fleet pages take, on databases as fleets leave them after a month.

What a page asks is named by `cases`; a test holds that no query of the pages is left out. Each
page is asked for anew with a connection that is open, as often as the options say, each time for
another device.
"""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from benchmarks.filled.database import Filled, fill
from benchmarks.filled.fleet import FULL, LARGE, Size
from benchmarks.servers import Say, own_home, running
from flead.storage import queries
from flead.storage.connection import Cursor, connect_read_only, connect_without_transaction

LIMITS_MS: Final = {FULL.devices: 100.0, LARGE.devices: 1_000.0}
"""By the number of devices: what a page's queries may take."""

STATEMENT_SECONDS: Final = 60.0
PAGE_ROWS: Final = 25
SILENCE: Final = timedelta(minutes=15)
REACH: Final = timedelta(hours=6)
SLOT: Final = timedelta(minutes=2)
WEEK: Final = timedelta(days=7)
POINTS: Final = 360
SAMPLE: Final = timedelta(seconds=15)
SORTS: Final = (
    "worst", "device", "accuracy", "log_loss", "global_accuracy", "learning_rate", "seen",
)  # fmt: skip

Parameters = dict[str, Any]
Queries = list[tuple[str, Parameters]]


class Options(msgspec.Struct, frozen=True):
    """Which fleets, and how often each page is asked for."""

    sizes: tuple[Size, ...] = (FULL, LARGE)
    repeats: int = 20


class Measured(msgspec.Struct, frozen=True):
    """Times of all queries of a page; `slowest` is the query that took longest at the median."""

    page: str
    p50_ms: float
    p95_ms: float
    is_within: bool
    slowest: str
    slowest_ms: float


class OfSize(msgspec.Struct, frozen=True):
    """What was measured on one database; `rows` are estimates of the largest tables.

    `plans` has the plan of the slowest query of each page beyond the limit.
    """

    devices: int
    days: int
    limit_ms: float | None
    fill_seconds: float
    database_mb: float
    rows: dict[str, int]
    pages: list[Measured]
    plans: dict[str, str]


class Result(msgspec.Struct, frozen=True):
    """All that was measured; whether every page was within the limit at the 95th percentile."""

    within_limits: bool
    databases: list[OfSize]


class Place(NamedTuple):
    """What stands in the parameters of pages: a device with its end, versions, runs."""

    device: str
    end: Any
    newest: Any
    run: str
    quarantined: str


Case = Callable[[Place], Queries]


def run(options: Options, say: Say) -> Result:
    """Fill a database of each size and measure every page on it."""
    home = own_home()
    with running(home, "postgres") as addresses:
        measured = []
        for size in options.sizes:
            name = f"pages_{size.devices}"
            with connect_without_transaction(addresses.superuser_url) as connection:
                connection.cursor().execute(f'CREATE DATABASE "{name}"')
            url = f"{addresses.superuser_url.rpartition('/')[0]}/{name}"
            measured.append(_measure(url, size, options, say))
    return Result(all(each.is_within for of in measured for each in of.pages), measured)


def cases() -> dict[str, Case]:
    """Return what each page asks, by the name of the page and what is shown on it."""
    found: dict[str, Case] = {
        "overview": lambda _: _overview(),
        "pipeline": lambda _: _pipeline(),
        "models, newest": lambda _: _models(0),
        "models, page 100": lambda _: _models(100 * PAGE_ROWS),
        "quality": lambda place: _quality(place.run),
        "quality, quarantined": lambda place: _quality(place.quarantined),
        "tuning": lambda _: [("control", {}), ("tuning", {"max_rows": 20})],
        "devices, last page": lambda _: _devices(first_row=-1),
        "devices, search by name": lambda place: _devices(search=place.device),
        "devices, search by kind": lambda _: _devices(search="pump"),
        "devices, drifting": lambda _: _devices(status="drifting"),
    }
    for sort in SORTS:
        found[f"devices, by {sort}"] = lambda _, sort=sort: _devices(sort=sort)
    for hours in (0.25, 1, 6, 24):
        found[f"device, {hours:g} h"] = lambda place, hours=hours: _device(
            place, timedelta(hours=hours)
        )
    return found


def _overview() -> Queries:
    return [
        ("versions", {"max_rows": 200}),
        ("readings", {"reach": REACH, "slot": SLOT}),
        ("fleet", {"silence": SILENCE}),
        ("reading", {}),
        ("head", {}),
        ("control", {}),
        ("rounds", {"max_rows": 8}),
        ("attention", {"reach": WEEK}),
        ("latest_anomalies", {"max_rows": 5}),
    ]


def _pipeline() -> Queries:
    return [
        ("reading", {}),
        ("readings", {"reach": REACH, "slot": SLOT}),
        ("rounds", {"max_rows": 1}),
        ("head", {}),
        ("deployments", {"max_rows": 12}),
        ("fleet", {"silence": SILENCE}),
        ("evaluations", {"max_rows": 1}),
        ("tuning", {"max_rows": 1}),
        ("stream_deployment", {}),
        ("analysis_day", {}),
    ]


def _models(first_row: int) -> Queries:
    return [("models_count", {}), ("models", {"max_rows": PAGE_ROWS, "first_row": first_row})]


def _quality(run: str) -> Queries:
    return [
        ("evaluations", {"max_rows": 20}),
        ("quality_results", {"run": run}),
        ("evaluated_versions", {"run": run}),
        ("quality_failures", {"max_rows": 20}),
    ]


def _devices(
    search: str = "", status: str = "", sort: str = "worst", first_row: int = 0
) -> Queries:
    """Return what the list of devices asks; -1 for the first row of the last page."""
    asked = {"search": search, "status": status, "silence": SILENCE}
    window = {"sort": sort, "direction": -1, "max_rows": PAGE_ROWS, "first_row": first_row}
    # The fleet is counted by status; a search counts what it finds.
    counted = [("devices_found", asked)] if search else []
    return [("fleet", {"silence": SILENCE}), *counted, ("devices", asked | window)]


def _device(place: Place, reach: timedelta) -> Queries:
    mine = {"device": place.device}
    window = {**mine, "start": place.end - reach, "end": place.end}
    return [
        ("device", {**mine, "silence": SILENCE}),
        ("device_end", mine),
        ("device_samples", {**window, "slot": max(reach / POINTS, SAMPLE)}),
        ("device_anomalies", {**window, "max_rows": 500}),
        (
            "device_updates",
            {
                **mine,
                "reach": reach,
                "end": place.newest,
                "slot": max(reach / POINTS, timedelta(seconds=1)),
            },
        ),
        ("device_evaluations", {**mine, "max_rows": 15}),
        ("device_feedback", {**mine, "max_rows": 15}),
    ]


def _measure(url: str, size: Size, options: Options, say: Say) -> OfSize:
    began = time.monotonic()
    filled = fill(url, size, say)
    took = time.monotonic() - began
    limit = LIMITS_MS.get(size.devices)
    pages, plans = [], {}
    with connect_read_only(url, STATEMENT_SECONDS) as connection, connection.cursor() as cursor:
        places = list(_places(cursor, filled, options.repeats))
        for name, case in cases().items():
            measured, slowest = _of_page(cursor, name, case, places, limit)
            pages.append(measured)
            say(f"{size.devices:,} devices, {name}: {measured.p50_ms} ms, p95 {measured.p95_ms} ms")
            if not measured.is_within:
                plans[name] = _plan(cursor, *slowest)
        rows = _largest(cursor)
        cursor.execute("SELECT pg_database_size(current_database()) / 1e6")
        [(database_mb,)] = cursor.fetchall()
    return OfSize(
        size.devices,
        size.days,
        limit,
        round(took, 1),
        round(float(database_mb)),
        rows,
        pages,
        plans,
    )


def _of_page(
    cursor: Cursor, name: str, case: Case, places: list[Place], limit: float | None
) -> tuple[Measured, tuple[str, Parameters]]:
    """Time a page at every place, and name its slowest query with the parameters of the last."""
    totals: list[float] = []
    of_query: dict[str, list[float]] = {}
    asked: Queries = []
    for place in places:
        asked = [_at_last_page(cursor, each) for each in case(place)]
        spent = 0.0
        for query, parameters in asked:
            began = time.perf_counter()
            queries.rows(cursor, query, parameters)
            milliseconds = 1_000 * (time.perf_counter() - began)
            of_query.setdefault(query, []).append(milliseconds)
            spent += milliseconds
        totals.append(spent)
    medians = {query: float(np.median(times)) for query, times in of_query.items()}
    slowest = max(medians, key=lambda query: medians[query])
    p50, p95 = (round(float(each), 1) for each in np.percentile(totals, (50, 95)))
    measured = Measured(
        name, p50, p95, limit is None or p95 <= limit, slowest, round(medians[slowest], 1)
    )
    return measured, next(each for each in asked if each[0] == slowest)


def _at_last_page(cursor: Cursor, asked: tuple[str, Parameters]) -> tuple[str, Parameters]:
    query, parameters = asked
    if parameters.get("first_row") != -1:
        return asked
    cursor.execute("SELECT count(*) FROM device_status")
    [(count,)] = cursor.fetchall()
    return query, {**parameters, "first_row": (count - 1) // PAGE_ROWS * PAGE_ROWS}


def _places(cursor: Cursor, filled: Filled, count: int) -> Iterator[Place]:
    """Return places with devices from all over the fleet, the worst one first."""
    runs = {}
    for status in ("passed", "quarantined"):
        cursor.execute(
            "SELECT evaluation_run_id FROM evaluation_runs WHERE quality_status = %s"
            " ORDER BY evaluated_at DESC LIMIT 1",
            (status,),
        )
        [(runs[status],)] = cursor.fetchall()
    cursor.execute("SELECT device_id FROM device_status ORDER BY log_loss DESC LIMIT 1")
    [(worst,)] = cursor.fetchall()
    step = max(len(filled.devices) // count, 1)
    for device in [worst, *filled.devices[::step]][:count]:
        end = queries.row(cursor, "device_end", {"device": device})
        known = queries.row(cursor, "device", {"device": device, "silence": SILENCE})
        assert end is not None  # noqa: S101 - every device has both
        assert known is not None  # noqa: S101
        yield Place(
            device, end["event_time"], known["kafka_timestamp"], runs["passed"],
            runs["quarantined"],
        )  # fmt: skip


def _plan(cursor: Cursor, query: str, parameters: Parameters) -> str:
    text = (queries.DIRECTORY / f"{query}.sql").read_text(encoding="utf-8")
    cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {text}", parameters)
    return "\n".join(line for (line,) in cursor.fetchall())


def _largest(cursor: Cursor) -> dict[str, int]:
    cursor.execute(
        "SELECT relname, reltuples::BIGINT FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND reltuples >= 1000"
        " ORDER BY reltuples DESC LIMIT 12"
    )
    return dict(cursor.fetchall())
