"""A device: its stream with what is anomalous in it, and how its models do."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import HTMLResponse

from flead.contracts.schema import Z_THRESHOLD
from flead.storage.connection import Cursor
from flead.storage.queries import Row, row, rows
from flead_airflow.pages import charts
from flead_airflow.pages.devices import SILENCE
from flead_airflow.pages.rendering import PagesDep, not_found

Reach = Literal["15m", "1h", "6h", "24h"]
REACHES: Final[dict[Reach, timedelta]] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
}
POINTS: Final = 360
"""Of a line at most."""
SAMPLE: Final = timedelta(seconds=15)
"""Slot of `device_samples`."""
ANOMALIES: Final = 500
"""Drawn at most, the newest."""
LISTED: Final = 15

router = APIRouter()


@router.get("/devices/{device_id:path}")
def device(
    pages: PagesDep,
    device_id: Annotated[str, Path(max_length=256)],
    reach: Reach = "1h",
    feature: Annotated[str, Query(max_length=256)] = "",
) -> HTMLResponse:
    """Show the page of a device."""
    return pages.show("devices", lambda cursor: gather(cursor, device_id, reach, feature))


def gather(cursor: Cursor, device_id: str, reach: Reach, feature: str) -> dict[str, Any]:
    """Read what the page shows."""
    if "\0" in device_id:
        raise not_found("device with such a name")
    mine = {"device": device_id}
    known = row(cursor, "device", {**mine, "silence": SILENCE})
    end = (row(cursor, "device_end", mine) or {}).get("event_time")
    if known is None and end is None:
        raise not_found(f"device {device_id}")
    span = REACHES[reach]
    samples, anomalies = _stream(cursor, device_id, span, end)
    updates = _updates(cursor, device_id, span, known)
    features = sorted({name for sample in samples for name in sample["features"]})
    if feature not in features:
        feature = _most_anomalous(anomalies, features)
    evaluations = rows(cursor, "device_evaluations", {**mine, "max_rows": LISTED})
    ends = None if end is None else (end - span, end)
    return {
        "template": "device",
        "device_id": device_id,
        "device": known,
        "end": end,
        "reach": reach,
        "reaches": list(REACHES),
        "feature": feature,
        "features": features,
        "anomalies": anomalies,
        "are_all_drawn": len(anomalies) < ANOMALIES,
        "listed": LISTED,
        "stream": stream(feature, samples, anomalies, ends),
        "probability": probability(samples, anomalies, ends),
        "z_scores": z_scores(anomalies, ends),
        "accuracy": compared("Accuracy", "percent", updates, "correct"),
        "loss": compared("Log loss", "decimals", updates, "log_loss_sum"),
        "learning_rate": learning_rate(updates),
        "labelled": any(update["own_rows"] or update["global_rows"] for update in updates),
        "evaluations": evaluations,
        "feedback": rows(cursor, "device_feedback", {**mine, "max_rows": LISTED}),
    }


def _stream(
    cursor: Cursor, device_id: str, span: timedelta, end: datetime | None
) -> tuple[list[Row], list[Row]]:
    if end is None:
        return [], []
    window = {"device": device_id, "start": end - span, "end": end}
    samples = rows(cursor, "device_samples", {**window, "slot": max(span / POINTS, SAMPLE)})
    return samples, rows(cursor, "device_anomalies", {**window, "max_rows": ANOMALIES})


def _updates(cursor: Cursor, device_id: str, span: timedelta, known: Row | None) -> list[Row]:
    if known is None:
        return []
    slot = max(span / POINTS, timedelta(seconds=1))
    window = {"device": device_id, "reach": span, "end": known["kafka_timestamp"], "slot": slot}
    return rows(cursor, "device_updates", window)


def _most_anomalous(anomalies: Sequence[Row], features: Sequence[str]) -> str:
    """Return the feature with most anomalies; the first where there are none, "" without any."""
    counts = {name: sum(name in each["features"] for each in anomalies) for name in features}
    return max(counts, key=lambda name: counts[name], default="")


def stream(
    feature: str,
    samples: Sequence[Row],
    anomalies: Sequence[Row],
    ends: tuple[datetime, datetime] | None,
) -> dict[str, Any]:
    """Chart a feature with its anomalies; the values of others are not stored with them."""
    known = {_place(each): each["features"].get(feature) for each in samples}
    marked = [
        (charts.milliseconds(each["event_time"]), value)
        for each in anomalies
        if feature in each["features"]
        and (value := each["value"] if each["feature"] == feature else known.get(_place(each)))
        is not None
    ]
    return charts.chart(
        f"Stream: {feature}" if feature else "Stream",
        "time",
        [charts.axis("", "number")],
        [
            charts.series(
                feature,
                [
                    (charts.milliseconds(each["event_time"]), each["features"].get(feature))
                    for each in samples
                ],
                colour="accent",
            ),
            charts.series("anomaly", sorted(marked), colour="bad", draw="points", symbol="diamond"),
        ],
        ends=ends,
    )


def _place(of: Row) -> tuple[int, int]:
    """Where a row is in the telemetry: two of one time are two."""
    return of["kafka_partition"], of["kafka_offset"]


def probability(
    samples: Sequence[Row], anomalies: Sequence[Row], ends: tuple[datetime, datetime] | None
) -> dict[str, Any]:
    """Chart what the global model says of each sample and of each anomaly."""
    return charts.chart(
        "Probability of an anomaly",
        "time",
        [charts.axis("", "percent", low=0, high=1)],
        [
            charts.series("sample", charts.over_time(samples, "event_time", "probability"),
                          colour="accent"),
            charts.series(
                "anomaly by z-score",
                charts.over_time(anomalies[::-1], "event_time", "probability"),
                colour="bad", draw="points", symbol="diamond",
            ),
        ],
        ends=ends,
    )  # fmt: skip


def z_scores(anomalies: Sequence[Row], ends: tuple[datetime, datetime] | None) -> dict[str, Any]:
    """Chart the largest z-score of each anomaly, with the threshold."""
    drawn = [
        charts.series(
            "z-score",
            charts.over_time(anomalies[::-1], "event_time", "z_score"),
            colour="bad", draw="points", symbol="diamond",
        )
    ]  # fmt: skip
    chart = charts.chart(
        "Z-scores beyond the threshold", "time", [charts.axis("", "number")], drawn, ends=ends
    )
    return chart | {"marks": [-Z_THRESHOLD, Z_THRESHOLD]}


def compared(
    title: str, form: charts.Format, updates: Sequence[Row], figure: str
) -> dict[str, Any]:
    """Chart the personalized model against the global one, on the same rows."""

    def points(model: str) -> list[tuple[float, float]]:
        return [
            (
                charts.milliseconds(each["window_end"]),
                each[f"{model}_{figure}"] / each[f"{model}_rows"],
            )
            for each in updates
            if each[f"{model}_rows"]
        ]

    return charts.chart(
        f"{title}, personalized and global",
        "time",
        [charts.axis("", form)],
        [
            charts.series("personalized", points("own"), colour="accent"),
            charts.series("global", points("global"), colour="second"),
        ],
    )


def learning_rate(updates: Sequence[Row]) -> dict[str, Any]:
    """Chart the device's own learning rate."""
    points = charts.over_time(updates, "window_end", "learning_rate")
    drawn = [charts.series("learning rate", points, colour="third", draw="steps")]
    return charts.chart("Learning rate", "time", [charts.axis("", "number")], drawn)
