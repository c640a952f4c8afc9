"""What needs a person, worst first."""

from datetime import timedelta
from typing import Any, Final

import msgspec

from flead.storage.connection import Cursor
from flead.storage.queries import Row, row

REACH: Final = timedelta(days=7)
STALE: Final = timedelta(minutes=5)
"""The health gate takes a reading every minute; an older one says nothing of now."""


class Item(msgspec.Struct, frozen=True):
    """What is to be looked at; `page` is a page of the app, `airflow` one of Airflow's."""

    level: str
    text: str
    action: str
    page: str | None = None
    airflow: str | None = None


def attention(cursor: Cursor, reading: Row | None, fleet: Row | None) -> list[Item]:
    """Return what needs a person now."""
    found = row(cursor, "attention", {"reach": REACH}) or {}
    return [*_of_health(reading), *_of_decisions(found), *_of_devices(fleet)]


def is_stale(reading: Row) -> bool:
    """Tell whether a reading of the health gate is too old to say anything of now."""
    return bool(reading["age"] > STALE)


def _of_health(reading: Row | None) -> list[Item]:
    if reading is None:
        return []
    if is_stale(reading):
        minutes = int(reading["age"].total_seconds() // 60)
        return [
            Item(
                "warn",
                f"The health gate took its last reading {minutes} minutes ago",
                "Does the scheduler run?",
                airflow="/dags/monitor_training",
            )
        ]
    level = "bad" if reading["verdict"] in {"breached", "exhausted"} else "warn"
    return [
        Item(level, _breach(each), "See the pipeline", page="/pipeline")
        for each in reading["reasons"]
    ]


def _of_decisions(found: Row) -> list[Item]:
    items = []
    if revision := found.get("awaiting_approval"):
        text = f"A tuning decision (revision {revision}) waits for an approval"
        items.append(Item("warn", text, "Decide", page="/tuning"))
    if number := found.get("quarantined"):
        text = f"{number} evaluation{'s' if number > 1 else ''} in quarantine in the last 7 days"
        items.append(Item("bad", text, "See what failed", page="/quality"))
    if version := found.get("rolled_back"):
        text = f"Version {version} was taken back in the last 7 days"
        items.append(Item("warn", text, "See the models", page="/models"))
    if number := found.get("unpublished"):
        messages = "messages wait" if number > 1 else "message waits"
        text = f"{number:,} {messages} longer than 5 minutes to be published"
        items.append(Item("bad", text, "See the rounds", airflow="/dags/aggregation_round"))
    return items


def _of_devices(fleet: Row | None) -> list[Item]:
    items: list[Item] = []
    if fleet is None:
        return items
    if drifting := fleet["drifting"]:
        text = f"{drifting:,} device{'s drift' if drifting > 1 else ' drifts'}"
        items.append(Item("warn", text, "See them", page="/devices?status=drifting"))
    if silent := fleet["silent"]:
        text = f"{silent:,} device{'s are' if silent > 1 else ' is'} silent"
        items.append(Item("warn", text, "See them", page="/devices?status=silent"))
    return items


def _breach(reason: dict[str, Any]) -> str:
    value, limit = (
        f"{each:,.4g}" if isinstance(each, int | float) else str(each)
        for each in (reason["value"], reason["limit"])
    )
    return f"{reason['rule'].replace('_', ' ')}: {value} (limit {limit})"
