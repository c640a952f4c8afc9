"""What figures on dashboards mean, on both databases: of which versions, and how they are made."""

from datetime import UTC, datetime, timedelta
from math import sqrt

import pytest

from flead.dashboards.queries import sql
from flead.storage.copying import copy_rows
from tests.grafana.expansion import Context

pytestmark = pytest.mark.servers

NOW = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONTEXT = Context({"features": "s", "device": "pump-1"}, NOW - HOUR, NOW + HOUR, "1h")


@pytest.fixture
def ask(cursor):
    """Return the function that runs a query of a dashboard: its rows by the columns' names."""

    def run(name):
        cursor.execute(CONTEXT.expand(sql(name)))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return run


def write_version(cursor, number, status, rows, log_loss_sum, right, **changes):
    """Write a version that `rows` labelled rows were scored with, half of them anomalous."""
    row = {
        "version": number, "parent_version": number - 1, "status": status, "feature_schema": "s",
        "feature_names": ["f"], "strategy": "fedavg", "options": "{}", "weights": [],
        "intercept": 0.0, "standardizer": "{}", "num_devices": 1, "num_updates": 1,
        "total_samples": rows, "input_offsets": "{}", "hyperparameters_revision": 1,
        "metrics_rows": rows, "metrics_log_loss_sum": log_loss_sum, "metrics_tp": right // 2,
        "metrics_fp": (rows - right) // 2, "metrics_tn": right // 2,
        "metrics_fn": (rows - right) // 2, "artifact_path": "a", "artifact_sha256": "0" * 64,
        "created_at": NOW, "promoted_at": NOW,
    } | changes  # fmt: skip
    copy_rows(cursor, "federated_models", list(row), [list(row.values())])


@pytest.fixture
def rejected(cursor):
    """Write a version that was promoted, and a newer one that was rejected for its figures."""
    write_version(cursor, 1, "promoted", 100, 20.0, 90)
    write_version(cursor, 2, "rejected", 100, 300.0, 10, promoted_at=None)
    cursor.execute("INSERT INTO model_head VALUES ('s', 1)")


@pytest.mark.parametrize(
    ("query", "figures"),
    [
        ("accuracy/newest", {"measured_version": 1, "accuracy": 0.9, "log_loss": 0.2}),
        ("accuracy/measured_by_devices", {"accuracy": 0.9}),
        ("accuracy/loss_measured_by_devices", {"log_loss": 0.2}),
        ("accuracy/errors_measured_by_devices", {"missed_anomalies": 0.1, "false_alarms": 0.1}),
        ("tuning/loss_by_revision", {"log_loss": 0.2}),
    ],
)
def test_a_rejected_candidate_is_no_global_model(rejected, ask, query, figures):
    [row] = ask(query)

    assert {name: row[name] for name in figures} == pytest.approx(figures)


def test_losses_that_fall_and_rise_by_the_same_factor_are_no_fall(cursor, ask):
    for number, loss in enumerate((0.4, 0.2, 0.4), 1):
        write_version(cursor, number, "promoted", 100, 100 * loss, 90)

    [row] = ask("improvement/summary")

    assert (row["versions"], row["improved"]) == (2, 0.5)
    assert row["mean_loss_reduction"] == pytest.approx(0)


def test_a_loss_of_nothing_has_no_factor(cursor, ask):
    for number, loss in enumerate((0.4, 0.1, 0.0, 0.1), 1):
        write_version(cursor, number, "promoted", 100, 100 * loss, 90)

    [row] = ask("improvement/summary")

    assert (row["versions"], row["improved"]) == (3, pytest.approx(2 / 3))
    assert row["mean_loss_reduction"] == pytest.approx(0.75)


def test_only_losses_of_nothing_have_no_mean(cursor, ask):
    for number, loss in enumerate((0.4, 0.0, 0.4), 1):
        write_version(cursor, number, "promoted", 100, 100 * loss, 90)

    [row] = ask("improvement/summary")

    assert (row["versions"], row["mean_loss_reduction"]) == (2, None)


def test_falls_of_the_loss_have_their_geometric_mean(cursor, ask):
    for number, loss in enumerate((0.8, 0.4, 0.3), 1):
        write_version(cursor, number, "promoted", 100, 100 * loss, 90)

    [row] = ask("improvement/summary")

    assert row["mean_loss_reduction"] == pytest.approx(1 - sqrt(0.5 * 0.75))


def test_the_mean_of_ten_versions_counts_each_row_once(cursor, ask):
    write_version(cursor, 1, "promoted", 900, 90.0, 800)
    write_version(cursor, 2, "promoted", 100, 110.0, 80)

    means = [row["mean_of_ten_versions"] for row in ask("improvement/loss_by_version")]

    assert means == pytest.approx([0.1, 0.2])
