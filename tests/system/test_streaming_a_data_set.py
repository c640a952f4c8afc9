"""A data set of a user's own goes through the stack between two runs of a simulated fleet."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest

from flead.contracts.messages import LocalUpdate
from flead.contracts.schema import feature_schema
from flead.contracts.simulation import FEATURES as SIMULATED
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets, read_committed
from tests.conftest import run_flead
from tests.system.conftest import FLEET, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

FEATURES = ["power, kW", "flow"]
MACHINES = 25
ROWS = 150
FIRST_ROWS = 60
EVERYTHING = 10**9
DEAD_LETTERS = Topic.TELEMETRY_DLQ
SPEC = """
name: mill
files: "*.csv"
device: {from: path}
time: {column: t, unit: s}
features: ["power, kW", flow]
label: {column: alarm}
"""


@dataclass(frozen=True)
class Before:
    """What there was before the data set came."""

    deployment: str
    newest_version: int
    head: int
    dead_letter_ends: dict[int, int]


@pytest.fixture(scope="module")
def before(resumed: Resumed) -> Before:
    [(deployment,)] = resumed.query(
        "SELECT deployment_id FROM training_deployments WHERE status = 'active'"
    )
    [(version,)] = resumed.query("SELECT max(version) FROM federated_models")
    [(head,)] = resumed.query(
        "SELECT version FROM model_head WHERE feature_schema = %s",
        feature_schema(SIMULATED),
    )
    return Before(deployment, version, head, end_offsets(resumed.kafka, DEAD_LETTERS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write a folder with the first rows of every machine, and one with its next."""
    folders = [tmp_path_factory.mktemp("mill"), tmp_path_factory.mktemp("mill")]
    generator = np.random.default_rng(0)
    for machine in range(MACHINES):
        alarm = generator.random(ROWS) < 0.1
        power = generator.normal(20 + machine, 1, ROWS) + 8 * alarm
        flow = generator.normal(5, 0.5, ROWS)
        lines = [
            f"{second},{power[second]:.3f},{flow[second]:.3f},{int(alarm[second])}"
            for second in range(ROWS)
        ]
        for folder, rows in zip(folders, (lines[:FIRST_ROWS], lines[FIRST_ROWS:]), strict=True):
            text = "\n".join(['t,"power, kW",flow,alarm', *rows]) + "\n"
            (folder / f"mill-{machine:02}.csv").write_text(text)
    for folder in folders:
        (folder / "mill.yaml").write_text(SPEC)
    return folders


@pytest.fixture(scope="module")
def replay(resumed: Resumed, before: Before, folders: list[Path]) -> dict[str, Any]:
    return replayed(resumed, folders[0])


@pytest.fixture(scope="module")
def continued(resumed: Resumed, folders: list[Path], replay: dict[str, Any]) -> dict[str, Any]:
    """Send the other rows once devices have a model to train from."""
    wait_until(lambda: made(resumed, FEATURES))
    return replayed(resumed, folders[1])


def replayed(resumed: Resumed, folder: Path) -> dict[str, Any]:
    ran = run_flead(
        resumed.home, "replay", str(folder), "--spec", str(folder / "mill.yaml"),
        "--speed", "10x", "--json",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.fixture(scope="module")
def returned(resumed: Resumed, continued: dict[str, Any]) -> None:
    """Let the simulated fleet come back once the data set has been trained."""
    wait_until(lambda: trained(resumed) >= MACHINES * ROWS)
    ran = run_flead(resumed.home, "simulate", *FLEET, "--duration", "20")
    assert ran.returncode == 0, ran.stderr


def test_every_row_is_sent(replay: dict[str, Any], continued: dict[str, Any]) -> None:
    assert replay["devices"] == continued["devices"] == MACHINES
    assert replay["rows"] == MACHINES * FIRST_ROWS
    assert replay["rows"] + continued["rows"] == MACHINES * ROWS


def test_the_next_rows_go_to_the_job_that_runs(
    replay: dict[str, Any], continued: dict[str, Any]
) -> None:
    assert continued["deployment_id"] == replay["deployment_id"]


def test_the_job_that_it_replaces_leaves_a_savepoint(
    resumed: Resumed, before: Before, replay: dict[str, Any]
) -> None:
    [(savepoint,)] = resumed.query(
        "SELECT savepoint_path FROM training_deployments"
        " WHERE status = 'stopped' AND kind <> 'stop' AND deployment_id = %s"
        " ORDER BY id DESC LIMIT 1",
        before.deployment,
    )
    [(active,)] = resumed.query(
        "SELECT deployment_id FROM training_deployments WHERE status = 'active'"
    )

    assert Path(urlsplit(savepoint).path, "_metadata").is_file()
    assert active == replay["deployment_id"] != before.deployment
    said = "".join(resumed.task_logs("deploy_training", "stop_running_job"))
    assert "was stopped with savepoint" in said
    assert "took no savepoint" not in said


def test_its_models_are_a_lineage_of_their_own(
    resumed: Resumed, before: Before, continued: dict[str, Any]
) -> None:
    # Whether devices have rows left to judge the second by is a matter of how fast rounds are.
    wait_until(lambda: len(made(resumed, FEATURES)) > 1)

    (first, parent), (second, parent_of_second), *_ = made(resumed, FEATURES)
    assert before.newest_version < first < second
    assert not parent
    assert parent_of_second == first


def test_what_it_trains_is_the_set_alone(resumed: Resumed, continued: dict[str, Any]) -> None:
    wait_until(lambda: trained(resumed) >= MACHINES * ROWS)

    assert trained(resumed) == MACHINES * ROWS


def test_the_fleet_that_comes_back_goes_on_from_its_own_newest_model(
    resumed: Resumed, before: Before, returned: None
) -> None:
    def since() -> list[tuple[int, int]]:
        models = made(resumed, SIMULATED, "promoted")
        return [each for each in models if each[0] > before.newest_version]

    wait_until(lambda: bool(since()))

    (version, _), *_ = since()
    # The head that its fleet had when it was made way for, and what was a candidate then, may have
    # been taken back meanwhile.
    line = ancestors(resumed, version)
    head = newest_kept(resumed, before.head)
    assert head in line
    bases = resumed.query(
        "SELECT DISTINCT base_version FROM local_models JOIN federated_models USING"
        " (aggregation_round) WHERE version = %s AND local_models.status = 'accepted'",
        version,
    )
    assert {base for (base,) in bases} & {each for each in line if each >= head}


def test_no_row_meets_a_job_of_other_features(
    resumed: Resumed, before: Before, returned: None
) -> None:
    letters = read_committed(resumed.kafka, DEAD_LETTERS, before.dead_letter_ends, 10)

    assert letters.records == []


def newest_kept(resumed: Resumed, version: int) -> int:
    """Return a version, or the newest before it that was not taken back."""
    while True:
        [(status, parent)] = resumed.query(
            "SELECT status, parent_version FROM federated_models WHERE version = %s", version
        )
        if status == "promoted":
            return version
        version = int(parent)


def ancestors(resumed: Resumed, version: int) -> set[int]:
    """Return the versions that a version continues."""
    found = resumed.query(
        "WITH RECURSIVE line (version) AS ("
        "   SELECT parent_version FROM federated_models WHERE version = %s"
        "   UNION SELECT model.parent_version FROM federated_models AS model"
        "       JOIN line USING (version)"
        " ) SELECT version FROM line",
        version,
    )
    return {each for (each,) in found}


def trained(resumed: Resumed) -> int:
    """Return how many rows of the set are in windows: rounds may leave the last few unread."""
    records = read_committed(resumed.kafka, Topic.LOCAL_UPDATES, {}, EVERYTHING).records
    updates = [msgspec.json.decode(record.value or b"", type=LocalUpdate) for record in records]
    return sum(each.rows for each in updates if each.feature_schema == feature_schema(FEATURES))


def made(resumed: Resumed, features: Sequence[str], *status: str) -> list[tuple[int, int]]:
    """Return version and parent of the models of these features, in any status unless given.

    Those that were made from updates: an evaluation may have had a head taken back meanwhile.
    """
    return resumed.query(
        "SELECT version, parent_version FROM federated_models WHERE feature_schema = %s"
        " AND restored_version IS NULL AND (status = ANY(%s) OR %s) ORDER BY version",
        feature_schema(features), list(status), not status,
    )  # fmt: skip
