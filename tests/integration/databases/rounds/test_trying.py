"""Another strategy on stored rounds, scored on what devices have sent after each.

Models have no weight but the intercept b, so that a row without an anomaly costs ln(1 + e^b) and
one with an anomaly ln(1 + e^-b), whatever its inputs are.
"""

import math

import msgspec
import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from flead.cli.main import app
from flead.contracts.topics import Topic
from flead.messaging.reading import end_offsets

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("database_server", ["postgresql"], indirect=True),
]


@pytest.fixture
def fleet(federation, make_update):
    """Return a fleet of one device in each partition of the rows' topic."""
    return Fleet(federation, make_update)


class Fleet:
    """Sends rows, and trains on all that were sent since the last round."""

    def __init__(self, federation, make_update):
        self.federation, self._make_update = federation, make_update
        self._next = end_offsets(federation.kafka, Topic.TELEMETRY)
        self._base = 0

    def send(self, *labels):
        """Send rows of each device, with these labels."""
        for partition, own in enumerate(labels):
            for label in own:
                row = {
                    "device_id": f"device-{partition}",
                    "event_time": 1_764_000_000_000,
                    "features": {"x": 1.0},
                    "label": label,
                }
                self.federation.producer.produce(
                    Topic.TELEMETRY, msgspec.json.encode(row), f"device-{partition}".encode(),
                    partition=partition,
                )  # fmt: skip
        assert self.federation.producer.flush(30) == 0

    def train(self, *intercepts):
        """Aggregate an update of each device, which has come to an intercept of its own."""
        ends = end_offsets(self.federation.kafka, Topic.TELEMETRY)
        self.federation.run_round(
            *[
                self._make_update(
                    f"device-{partition}", np.array([0.0, 0.0, 0.0, 0.0, intercept]),
                    base=self._base, number=self._base, partition=partition,
                    first_offset=self._next[partition],
                    rows=ends[partition] - self._next[partition],
                )
                for partition, intercept in enumerate(intercepts)
            ]
        )  # fmt: skip
        self._next = ends
        self._base += 1


@pytest.fixture
def flead(federation, stack_home, monkeypatch):
    monkeypatch.setenv("FLEAD_HOME", str(stack_home.root))
    monkeypatch.setenv("FLEAD_DATABASE_URL", federation.database_url)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def losses(labels, intercept):
    """Log loss of each row of the devices."""
    return [[math.log1p(math.exp(intercept * (-1) ** label)) for label in own] for own in labels]


def mean(nested):
    rows = [row for own in nested for row in own]
    return sum(rows) / len(rows)


def test_both_results_of_each_round_are_scored_on_the_rows_until_the_next(flead, fleet):
    fleet.send(*[[0] * 10] * 4)
    fleet.train(1.0, 2.0, 3.0, 30.0)  # the average is 9, the median 2.5
    first = [[0] * 5, [0] * 5, [0] * 5, [1] * 5]
    fleet.send(*first)
    fleet.train(10.0, 10.0, 10.0, 30.0)  # on top of 9, 1 1 1 21: the average is 15, the median 10
    fleet.send([0, None], [0, 0], [0, 1], [1, 1])
    second = [[0], [0, 0], [0, 1], [1, 1]]

    ran = flead("rounds", "try", "--strategy", "fedmedian", "--rounds", "5", "--json")

    assert ran.exit_code == 0, ran.output
    said = msgspec.json.decode(ran.stdout)
    assert (said["strategy"], said["options"]) == ("fedmedian", {"server_learning_rate": 1.0})
    assert [(each["round"], each["version"], each["strategy"]) for each in said["rounds"]] == [
        (1, 1, "fedavg"), (2, 2, "fedavg"),
    ]  # fmt: skip
    for each, labels, made, tried in zip(
        said["rounds"], [first, second], [9.0, 15.0], [2.5, 10.0], strict=True
    ):
        found = each["difference"]
        assert (found["devices"], found["rows"]) == (4, sum(map(len, labels)))
        assert found["reference_log_loss"] == pytest.approx(mean(losses(labels, made)), rel=1e-12)
        assert found["log_loss"] == pytest.approx(mean(losses(labels, tried)), rel=1e-12)

    by_device = [
        [np.mean(own) for own in map(sum, zip(*both, strict=True), [[]] * 4)]
        for both in [
            (losses(first, 2.5), losses(second, 10.0)),
            (losses(first, 9.0), losses(second, 15.0)),
        ]
    ]
    test = stats.ttest_rel(*by_device)
    found = said["difference"]
    assert (found["devices"], found["rows"]) == (4, 27)
    assert found["mean_difference"] == pytest.approx(np.subtract(*by_device).mean(), rel=1e-12)
    assert found["p_value"] == pytest.approx(test.pvalue, rel=1e-9)
    assert found["confidence_interval"] == pytest.approx(test.confidence_interval(), rel=1e-9)


def test_the_strategy_that_made_a_round_differs_in_nothing(flead, fleet):
    fleet.send(*[[0] * 10] * 4)
    fleet.train(1.0, 2.0, 3.0, 4.0)
    fleet.send([0], [0], [1], [1])

    ran = flead("rounds", "try", "--json")

    found = msgspec.json.decode(ran.stdout)["difference"]
    assert (ran.exit_code, found["rows"], found["mean_difference"]) == (0, 4, 0.0)
    assert (found["p_value"], found["confidence_interval"]) == (None, None)


def test_people_read_a_line_a_round_and_what_all_of_them_come_to(flead, fleet):
    fleet.send(*[[0] * 10] * 4)
    fleet.train(1.0, 2.0, 3.0, 4.0)
    fleet.send([0], [0], [1], [1])
    fleet.train(3.0, 3.0, 3.0, 4.0)

    shown = flead(
        "rounds", "try", "--strategy", "fedtrimmedavg", "--strategy-option", "beta=0.3"
    ).stdout

    assert "log loss fedtrimmedavg" in " ".join(shown.split())
    # In the middle of 1 2 3 4 lies their mean, too.
    assert f"1 1 fedavg 4 4 {mean(losses([[0, 1]], 2.5)):.4f}" in " ".join(shown.split())
    assert "round 2 is not compared: no row with a label has come since" in shown
    assert "4 rows of 4 devices: mean difference over devices" in shown


def test_without_a_model_or_a_labelled_row_it_says_what_is_missing(flead, fleet):
    assert "there is no model yet" in str(flead("rounds", "try").exception)

    fleet.send(*[[0] * 10] * 4)
    fleet.train(1.0, 2.0, 3.0, 4.0)
    fleet.send(*[[None]] * 4)

    ran = flead("rounds", "try", "--json")

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert str(ran.exception) == (
        "none of the last 1 rounds can be compared: no row with a label has come since"
    )
