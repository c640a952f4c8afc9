"""Pipeline: each part as the data flows through it, with its health and how far it is behind."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from flead.storage.connection import Cursor
from flead.storage.queries import Row, row, rows
from flead_airflow.pages import charts, formats
from flead_airflow.pages.attention import is_stale
from flead_airflow.pages.devices import SILENCE
from flead_airflow.pages.rendering import PagesDep

DEPLOYMENTS: Final = 12
REACH: Final = timedelta(hours=6)
SLOT: Final = timedelta(minutes=2)
SILENT_SHARE: Final = 0.05
"""Of the devices may be silent before the fleet is."""
OF_STREAM: Final = "stream_"
"""Rules of the health gate about the stream analysis begin so, the others are about training."""

router = APIRouter()


class Part(msgspec.Struct, frozen=True):
    """One component of the pipeline.

    `kind` is what runs it: `topic` and `device` are no programs. `facts` are labels with values,
    `page` is a page of the app, `airflow` one of Airflow's.
    """

    title: str
    kind: str
    status: str
    facts: list[tuple[str, str]]
    page: str | None = None
    airflow: str | None = None


class Lane(msgspec.Struct, frozen=True):
    """Parts that data flows through one after the other, and where it goes on to."""

    title: str
    parts: list[Part]
    onward: str


@router.get("/pipeline")
def pipeline(pages: PagesDep) -> HTMLResponse:
    """Show the page."""
    return pages.show("pipeline", gather)


def gather(cursor: Cursor) -> dict[str, Any]:
    """Read what the page shows."""
    now = datetime.now(UTC)
    reading = row(cursor, "reading")
    readings = rows(cursor, "readings", {"reach": REACH, "slot": SLOT})
    round_ = row(cursor, "rounds", {"max_rows": 1})
    head = row(cursor, "head")
    deployments = rows(cursor, "deployments", {"max_rows": DEPLOYMENTS})
    return {
        "lanes": [
            Lane(
                "Training",
                [
                    devices(row(cursor, "fleet", {"silence": SILENCE})),
                    telemetry(reading),
                    training(reading, deployments),
                    updates(reading),
                    aggregation(round_, now),
                    models(head, now),
                ],
                "the training job, which uses the model from its next window on",
            ),
            Lane(
                "Evaluation",
                [
                    *evaluation(row(cursor, "evaluations", {"max_rows": 1}), now),
                    tuning(cursor, now),
                ],
                "devices, as feedback, and the training job, as hyperparameters",
            ),
            Lane(
                "Analysis",
                [
                    stream(row(cursor, "stream_deployment"), reading, now),
                    daily(row(cursor, "analysis_day")),
                ],
                "the pages of the devices",
            ),
        ],
        "reading": reading,
        "is_stale": reading is not None and is_stale(reading),
        "deployments": deployments,
        "checkpoints": of_job(readings, "Age of the newest checkpoint", "checkpoint_age_seconds"),
        "pressure": of_job(readings, "Back-pressure", "back_pressure_ratio"),
        "lag": of_job(readings, "How long rows wait", "lag_seconds"),
        "letters": of_job(readings, "Dead letters a minute", "dead_letters_per_minute"),
    }


def devices(fleet: Row | None) -> Part:
    """Tell of the fleet."""
    if not fleet or not fleet["devices"]:
        return Part("Devices", "device", "unknown", [("reporting", "none yet")], page="/devices")
    facts = [
        ("reporting", formats.count(fleet["reporting"])),
        ("drifting", formats.count(fleet["drifting"])),
        ("silent", formats.count(fleet["silent"])),
    ]
    status = "warning" if fleet["silent"] > SILENT_SHARE * fleet["devices"] else "ok"
    return Part("Devices", "device", status, facts, page="/devices")


def telemetry(reading: Row | None) -> Part:
    """Tell of the rows that wait."""
    if reading is None:
        return Part("edge-iiot-stream", "topic", "unknown", [])
    facts = [
        ("rows wait", formats.count(reading["lag_rows"])),
        ("the oldest for", formats.duration(reading["lag_seconds"])),
        ("dead letters/min", formats.rate(reading["dead_letters_per_minute"])),
    ]
    status = "bad" if reading["kafka_error"] else _of_rules(reading, ("lag", "dead_letters"))
    return Part("edge-iiot-stream", "topic", _unless_stale(reading, status), facts)


def training(reading: Row | None, deployments: list[Row]) -> Part:
    """Tell of the training job."""
    active = next((each for each in deployments if each["status"] == "active"), None)
    link = "/dags/deploy_training"
    if reading is None or reading["job_state"] is None:
        status = "unknown" if active else "not deployed"
        error = reading["flink_error"] if reading and not is_stale(reading) else None
        facts = [("Flink", "does not answer")] if error else []
        return Part("Training job", "Flink", "bad" if error else status, facts, airflow=link)
    facts = [
        ("state", reading["job_state"].lower()),
        ("vertices", f"{reading['vertices_running']} of {reading['vertices_total']}"),
        ("rows/s", formats.rate(reading["rows_per_second"])),
        ("checkpoint age", formats.duration(reading["checkpoint_age_seconds"])),
    ]
    rules = [each for each in reading["reasons"] if not each["rule"].startswith(OF_STREAM)]
    status = "deploying" if reading["verdict"] == "deploying" else "bad" if rules else "ok"
    return Part("Training job", "Flink", _unless_stale(reading, status), facts, airflow=link)


def updates(reading: Row | None) -> Part:
    """Tell of the updates."""
    if reading is None:
        return Part("local-model-updates", "topic", "unknown", [])
    facts = [("updates/s", formats.rate(reading["updates_per_second"]))]
    return Part("local-model-updates", "topic", _of_rules(reading, ("updates",)), facts)


def aggregation(round_: Row | None, now: datetime) -> Part:
    """Tell of the newest round."""
    link = "/dags/aggregation_round"
    if round_ is None:
        return Part("Aggregation", "Airflow", "unknown", [("rounds", "none yet")], airflow=link)
    facts = [
        ("round", f"{round_['round']}, {formats.ago(round_['opened_at'], now)}"),
        ("updates", f"{formats.count(round_['accepted'])} of {formats.count(round_['updates'])}"),
    ]
    if round_["attempts"] > 1:
        facts.append(("attempts", formats.count(round_["attempts"])))
    is_stuck = round_["state"] == "open" and round_["attempts"] > 1
    return Part("Aggregation", "Airflow", "warning" if is_stuck else "ok", facts, airflow=link)


def models(head: Row | None, now: datetime) -> Part:
    """Tell of the model that devices use."""
    if head is None:
        return Part("global-model-updates", "topic", "unknown", [("version", "none yet")])
    accuracy = formats.percent(head["global_accuracy"])
    if head["measured_version"] is not None:
        accuracy += f" of version {head['measured_version']}"
    facts = [
        ("version", f"{head['version']}, {formats.ago(head['promoted_at'], now)}"),
        ("accuracy", accuracy),
    ]
    return Part("global-model-updates", "topic", "ok", facts, page="/models")


def evaluation(run: Row | None, now: datetime) -> list[Part]:
    """Tell of the newest evaluation and of its check."""
    scored, gate = "/dags/model_evaluation", "/quality"
    if run is None:
        return [
            Part("Model evaluation", "Spark", "unknown", [("runs", "none yet")], airflow=scored),
            Part("Quality gate", "Airflow", "unknown", [("checks", "none yet")], page=gate),
        ]
    when = run["evaluated_at"] or run["planned_at"]
    versions = ", ".join(map(str, run["due_versions"]))
    facts = [
        ("versions", versions),
        ("labelled rows", formats.count(run["rows_labelled"])),
        ("run", formats.ago(when, now)),
    ]
    checks = [
        ("rules", formats.count(run["rules"])),
        ("critical, broken", formats.count(run["critical"])),
        ("checked", formats.ago(run["quality_checked_at"], now)),
    ]
    verdict = {"passed": "ok", "quarantined": "bad"}.get(run["quality_status"], "pending")
    return [
        Part(
            "Model evaluation", "Spark", "ok" if run["state"] == "evaluated" else "running", facts,
            airflow=scored,
        ),
        Part("Quality gate", "Airflow", verdict, checks, page=gate),
    ]  # fmt: skip


def tuning(cursor: Cursor, now: datetime) -> Part:
    """Tell of the newest decision about hyperparameters."""
    decision = row(cursor, "tuning", {"max_rows": 1})
    if decision is None:
        facts = [("decisions", "none yet")]
        return Part("Tuning", "Airflow", "unknown", facts, page="/tuning")
    status = decision["status"] if decision["status"] == "awaiting_approval" else "ok"
    facts = [
        ("newest", formats.words(decision["status"])),
        ("revision", str(decision["revision"])),
        ("decided", formats.ago(decision["decided_at"], now)),
    ]
    return Part("Tuning", "Airflow", status, facts, page="/tuning")


def stream(deployment: Row | None, reading: Row | None, now: datetime) -> Part:
    """Tell of the stream analysis."""
    link = "/dags/deploy_stream_analysis"
    if deployment is None:
        return Part("Stream analysis", "Spark", "not deployed", [], airflow=link)
    facts = [
        ("rows wait", formats.count(reading["stream_lag_rows"] if reading else None)),
        ("batch", f"{formats.ago(deployment['last_batch_at'], now)},"
                  f" {formats.count(deployment['rows'])} rows"),
        ("took", formats.duration(deployment["seconds"])),
    ]  # fmt: skip
    state = deployment["state"]
    if reading is None or is_stale(reading):
        status = "unknown" if state == "active" else state
    elif any(each["rule"].startswith(OF_STREAM) for each in reading["reasons"]):
        status = "bad"
    elif reading["stream_state"] == "lost":
        status = "lost"
    else:
        status = "ok" if state == "active" else state
    return Part("Stream analysis", "Spark", status, facts, airflow=link)


def daily(day: Row | None) -> Part:
    """Tell of the newest day that was analysed."""
    link = "/dags/daily_batch_analysis"
    if day is None:
        return Part("Daily analysis", "Spark", "unknown", [("days", "none yet")], airflow=link)
    facts = [
        ("day", str(day["analysis_date"])),
        ("rows", formats.count(day["rows"])),
        ("devices", formats.count(day["devices"])),
    ]
    status = "warning" if day["needs_rerun"] else "running" if day["state"] == "running" else "ok"
    return Part("Daily analysis", "Spark", status, facts, airflow=link)


def of_job(readings: list[Row], title: str, figure: str) -> dict[str, Any]:
    """Chart a figure of the training job."""
    form: charts.Format = "seconds" if figure.endswith("seconds") else "rate"
    if figure.endswith("ratio"):
        form = "percent"
    points = charts.over_time(readings, "created_at", figure)
    drawn = [charts.series(title.lower(), points, colour="accent", draw="area")]
    return charts.chart(title, "time", [charts.axis("", form, low=0)], drawn)


def _of_rules(reading: Row, beginnings: tuple[str, ...]) -> str:
    is_broken = any(each["rule"].startswith(beginnings) for each in reading["reasons"])
    return _unless_stale(reading, "bad" if is_broken else "ok")


def _unless_stale(reading: Row, status: str) -> str:
    return "unknown" if is_stale(reading) else status
