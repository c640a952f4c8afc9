"""A data set of a user's own goes through the stack on which a simulated fleet ran before."""

import json
import time
from typing import Any

import numpy as np
import psycopg2
import pytest

from flead.contracts.schema import feature_schema
from tests.conftest import run_flead
from tests.system.conftest import Resumed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

FEATURES = ["power, kW", "flow"]
MACHINES = 25
ROWS = 150
WAIT_SECONDS = 120
SPEC = """
name: mill
files: "*.csv"
device: {from: path}
time: {column: t, unit: s}
features: ["power, kW", flow]
label: {column: alarm}
"""


@pytest.fixture(scope="module")
def newest_before(resumed: Resumed) -> int:
    [(version,)] = query(resumed, "SELECT max(version) FROM federated_models")
    return int(version)


@pytest.fixture(scope="module")
def replay(
    resumed: Resumed, newest_before: int, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mill")
    generator = np.random.default_rng(0)
    for machine in range(MACHINES):
        alarm = generator.random(ROWS) < 0.1
        power = generator.normal(20 + machine, 1, ROWS) + 8 * alarm
        flow = generator.normal(5, 0.5, ROWS)
        lines = [
            f"{second},{power[second]:.3f},{flow[second]:.3f},{int(alarm[second])}"
            for second in range(ROWS)
        ]
        text = "\n".join(['t,"power, kW",flow,alarm', *lines]) + "\n"
        (folder / f"mill-{machine:02}.csv").write_text(text)
    (folder / "mill.yaml").write_text(SPEC)
    ran = run_flead(
        resumed.home, "replay", str(folder), "--spec", str(folder / "mill.yaml"),
        "--speed", "max", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


def test_every_row_is_sent(replay: dict[str, Any]) -> None:
    assert (replay["devices"], replay["rows"]) == (MACHINES, MACHINES * ROWS)


def test_its_models_are_a_lineage_of_their_own(
    resumed: Resumed, newest_before: int, replay: dict[str, Any]
) -> None:
    wait_until(lambda: len(promoted(resumed)) > 1)

    (first, parent), (second, parent_of_second), *_ = promoted(resumed)
    assert newest_before < first < second
    assert not parent
    assert parent_of_second == first


def test_what_it_trains_is_the_set_alone(resumed: Resumed, replay: dict[str, Any]) -> None:
    def trained() -> int:
        [(rows,)] = query(
            resumed,
            "SELECT coalesce(sum(rows), 0) FROM local_models WHERE feature_schema = %s",
            feature_schema(FEATURES),
        )
        return int(rows)

    wait_until(lambda: trained() >= MACHINES * ROWS)

    assert trained() == MACHINES * ROWS


def promoted(resumed: Resumed) -> list[tuple[int, int | None]]:
    """Return version and parent of the models of the set's features."""
    return query(
        resumed,
        "SELECT version, parent_version FROM federated_models"
        " WHERE feature_schema = %s AND status = 'promoted' ORDER BY version",
        feature_schema(FEATURES),
    )


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)


def query(resumed: Resumed, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(resumed.addresses.database_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()
    finally:
        connection.close()
