"""What the running stack made, checked against an independent reading of its input."""

import json
import time
from collections import defaultdict
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import psycopg2
import psycopg2.extras
import pytest

from flead.contracts.messages import Hyperparameters
from flead.contracts.simulation import FEATURES
from flead.messaging.reading import Record, read_committed
from tests.system.conftest import DEVICES, Demonstrated, Resumed
from tests.system.reference import (
    DeviceHistory,
    histories,
    metrics_of,
    moments_of,
    personalized_from,
    standardized,
    trained,
)

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

ALL = 10_000_000
LAST_WINDOW_SECONDS = 120
TOLERANCE = 1e-9
SETTINGS = Hyperparameters()


@pytest.fixture(scope="session")
def updates(resumed: Resumed) -> dict[str, list[dict[str, Any]]]:
    """Every update by device, once all rows of the topic are in one."""
    expected = len(read(resumed, "edge-iiot-stream"))
    deadline = time.monotonic() + LAST_WINDOW_SECONDS
    while True:
        messages = [json.loads(record.value) for record in read(resumed, "local-model-updates")]
        trained_rows = sum(message["rows"] for message in messages)
        if trained_rows >= expected or time.monotonic() > deadline:
            break
        time.sleep(2)
    by_device = defaultdict(list)
    for message in messages:
        by_device[message["device_id"]].append(message)
    return by_device


@pytest.fixture(scope="session")
def inputs(resumed: Resumed) -> dict[str, DeviceHistory]:
    """Every row of the topic by device, with its inputs by the reference."""
    return histories(read(resumed, "edge-iiot-stream"), list(FEATURES))


@pytest.fixture(scope="session")
def models(resumed: Resumed) -> dict[int, dict[str, Any]]:
    rows = query(resumed, "SELECT * FROM federated_models ORDER BY version")
    return {row["version"]: row for row in rows}


def test_the_demonstration_reports_what_it_made(demonstrated: Demonstrated) -> None:
    report = demonstrated.report

    versions = [made["version"] for made in report["versions"]]
    # One that the fleet found worse than its parent leaves a gap.
    assert versions[0] == 1
    assert versions == sorted(set(versions))
    assert len(versions) >= 3
    assert all(made["num_updates"] > 0 for made in report["versions"])
    assert report["devices"] == DEVICES
    assert max(made["num_devices"] for made in report["versions"]) <= DEVICES
    assert report["rows"] > 0
    assert report["local_updates"] >= sum(made["num_updates"] for made in report["versions"])
    assert report["flink_job_state"] == "RUNNING"
    assert report["checkpoints_completed"] > 0
    assert report["dead_letters"] == 0
    assert report["seconds_to_first_version"] > 0
    assert report["consumer_lag_rows_end"] <= report["consumer_lag_rows_max"]
    assert 0 < report["peak_memory_mb"] < 6000


def test_the_demonstration_leaves_nothing_running(demonstrated: Demonstrated) -> None:
    services = demonstrated.status["services"]

    assert {service["state"] for service in services} == {"stopped"}
    assert demonstrated.status["total_processes"] == 0


def test_every_row_is_in_one_window_across_down_and_up(
    updates: dict[str, list[dict[str, Any]]], inputs: dict[str, DeviceHistory]
) -> None:
    assert updates.keys() == inputs.keys()
    for device, windows in updates.items():
        offsets = inputs[device].offsets
        for window in windows:
            assert window["rows"] == len(rows_of(inputs[device], window)), (device, window)
        assert sum(window["rows"] for window in windows) == len(offsets), (device, windows[-1])
        assert sum(window["offset_sum"] for window in windows) == sum(offsets), device
        bounds = [(window["first_offset"], window["last_offset"]) for window in windows]
        assert all(before[1] < after[0] for before, after in pairwise(bounds))
        versions = [window["model_version"] for window in windows]
        assert versions == list(range(1, len(windows) + 1)), device


def test_the_job_took_up_the_savepoint_that_down_left(resumed: Resumed) -> None:
    (suspended,) = query(
        resumed, "SELECT savepoint_path FROM training_deployments WHERE kind = 'stop'"
    )
    (active,) = query(
        resumed, "SELECT kind, restored_from FROM training_deployments WHERE status = 'active'"
    )

    assert suspended["savepoint_path"]
    assert active == {"kind": "restore", "restored_from": suspended["savepoint_path"]}


def test_weights_and_metrics_equal_scikit_learn_on_the_raw_topic(
    updates: dict[str, list[dict[str, Any]]],
    inputs: dict[str, DeviceHistory],
    models: dict[int, dict[str, Any]],
) -> None:
    scored_rows = 0
    for device, windows in updates.items():
        history = inputs[device]
        personalized: tuple[np.ndarray, float] | None = None
        seen: list[list[float]] = []
        for window in windows:
            rows = rows_of(history, window)
            x_raw = [history.inputs[row] for row in rows]
            y = [history.labels[row] for row in rows]
            base = models.get(window["base_version"])
            x = standardized(
                x_raw, moments_of(seen, len(x_raw[0])), base and moments_in(base["standardizer"])
            )
            start = (
                (np.zeros(x.shape[1]), 0.0)
                if base is None
                else (np.array(base["weights"]), base["intercept"])
            )
            if personalized is None:
                personalized = start

            assert_metrics(window["personalized_metrics"], metrics_of(*personalized, x, y))
            if base is not None:
                assert window["global_metrics"]["version"] == window["base_version"]
                assert_metrics(window["global_metrics"], metrics_of(*start, x, y))
                scored_rows += len(y)

            # The device's own: its fleet's rate times a multiplier in [1/8, 8].
            rate = window["learning_rate"]
            assert SETTINGS.learning_rate / 8 <= rate <= SETTINGS.learning_rate * 8
            settings = msgspec.structs.replace(SETTINGS, learning_rate=rate)
            weights, intercept = trained(*start, x, y, settings)
            np.testing.assert_allclose(window["weights"], weights, rtol=0, atol=TOLERANCE)
            assert window["intercept"] == pytest.approx(intercept, abs=TOLERANCE)
            personalized = (
                trained(*personalized, x, y, settings)
                if base is None
                else personalized_from(*personalized, x, y, settings, anchor=start)
            )
            seen += x_raw
    assert scored_rows > 0


def test_global_weights_equal_a_recomputation_from_the_stored_updates(
    resumed: Resumed, models: dict[int, dict[str, Any]]
) -> None:
    assert len(models) >= 3
    for version, model in models.items():
        accepted = query(
            resumed,
            "SELECT * FROM local_models WHERE aggregation_round = %s AND status = 'accepted'",
            model["aggregation_round"],
        )
        parent = weights_of(models, model["parent_version"], len(model["weights"]))
        rows = np.array([update["samples_processed"] for update in accepted], float)
        deltas = [
            np.array([*update["weights"], update["intercept"]])
            - weights_of(models, update["base_version"], len(model["weights"]))
            for update in accepted
        ]
        expected = parent + (rows[:, None] * np.array(deltas)).sum(axis=0) / rows.sum()

        np.testing.assert_allclose(
            [*model["weights"], model["intercept"]], expected, rtol=0, atol=TOLERANCE,
            err_msg=f"version {version}",
        )  # fmt: skip
        assert model["num_updates"] == len(accepted)


def test_a_version_is_measured_by_the_updates_that_scored_it(
    resumed: Resumed,
) -> None:
    # In one statement, for rounds go on.
    models = query(
        resumed,
        "WITH scored AS ("
        " SELECT (scores ->> 'version')::bigint AS version,"
        " sum((scores ->> 'rows')::bigint) AS rows,"
        " sum((scores ->> 'log_loss_sum')::double precision) AS loss,"
        " sum((scores ->> 'tp')::bigint + (scores ->> 'tn')::bigint) AS right"
        # As the head, and as the candidate before.
        " FROM local_models, unnest(ARRAY[global_metrics, candidate_metrics]) AS scores"
        " WHERE status = 'accepted' GROUP BY 1)"
        " SELECT * FROM federated_models LEFT JOIN scored USING (version)",
    )
    measured = [model for model in models if model["rows"]]
    assert measured
    for model in measured:
        rows = float(model["rows"])
        assert model["global_accuracy"] == pytest.approx(float(model["right"]) / rows)
        assert model["global_loss"] == pytest.approx(model["loss"] / rows)
    for model in models:
        if not model["rows"]:
            assert model["global_accuracy"] is None
            assert model["global_loss"] is None


def read(resumed: Resumed, topic: str) -> list[Record]:
    records = read_committed(resumed.kafka, topic, {}, ALL).records
    return sorted(records, key=lambda record: (record.partition, record.offset))


def query(resumed: Resumed, statement: str, *values: object) -> list[dict[str, Any]]:
    connection = psycopg2.connect(
        resumed.addresses.database_url, cursor_factory=psycopg2.extras.RealDictCursor
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()]
    finally:
        connection.close()


def rows_of(history: DeviceHistory, window: dict[str, Any]) -> list[int]:
    """Places of the rows of a window in the history of its device."""
    first, last = window["first_offset"], window["last_offset"]
    return [row for row, offset in enumerate(history.offsets) if first <= offset <= last]


def moments_in(standardizer: dict[str, Any]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(standardizer[name]) for name in ("count", "mean", "m2"))


def weights_of(models: dict[int, dict[str, Any]], version: int, inputs: int) -> np.ndarray:
    if version == 0:
        return np.zeros(inputs + 1)
    return np.array([*models[version]["weights"], models[version]["intercept"]])


def assert_metrics(reported: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: reported[name] for name in ("rows", "tp", "fp", "tn", "fn")} == {
        name: expected[name] for name in ("rows", "tp", "fp", "tn", "fn")
    }
    assert reported["log_loss_sum"] == pytest.approx(expected["log_loss_sum"], abs=TOLERANCE)
