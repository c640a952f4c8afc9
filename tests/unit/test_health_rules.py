"""What the health gate finds, in series of readings that are a minute apart."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from flead.health.readings import Breach, Part, Reading
from flead.health.rules import judge, looked_back
from flead.settings import Settings

SETTINGS = Settings()
START = datetime(2026, 11, 24, 12, tzinfo=UTC)
HEALTHY = Reading(
    created_at=START,
    deployment_id="d",
    job_id="1" * 32,
    job_state="RUNNING",
    vertices_running=9,
    vertices_total=9,
    checkpoint_interval_seconds=5.0,
    window_seconds=60.0,
    checkpoint_age_seconds=4.0,
    failed_checkpoints=2,
    restarts=0,
    back_pressure_ratio=0.1,
    lag_rows=2_000,
    lag_seconds=4.0,
    rows_per_second=516.0,
    updates_per_second=40.0,
    dead_letters_per_minute=3.0,
    stream_deployment_id="s",
    stream_state="active",
    stream_trigger_seconds=30.0,
    stream_batch_age_seconds=20.0,
    stream_lag_rows=9_000,
    stream_lag_seconds=17.0,
)


def series(*changes, before=HEALTHY):
    """Make readings out of what each has that the one before it had not, a minute apart."""
    readings = []
    for minute, change in enumerate(changes):
        at = START + timedelta(minutes=minute)
        before = msgspec.structs.replace(before, created_at=at, **change)
        readings.append(before)
    return readings


def found(*changes, settings=SETTINGS):
    *earlier, newest = series(*changes)
    return judge(newest, earlier, settings)


def rules(*changes):
    return [breach.rule for breach in found(*changes)]


def rules_after_each(*changes):
    readings = series(*changes)
    return [
        [breach.rule for breach in judge(newest, readings[:number], SETTINGS)]
        for number, newest in enumerate(readings)
    ]


def test_nothing_is_found_on_a_healthy_system_over_ten_minutes():
    ups_and_downs = [
        {
            "lag_rows": 2_000 + 400 * (minute % 3),
            "lag_seconds": 3.0 + minute % 3,
            "checkpoint_age_seconds": minute % 6,
            "stream_lag_rows": 4_000 * (1 + minute % 4),
            "stream_lag_seconds": 8.0 * (1 + minute % 4),
            "updates_per_second": 40.0 * (minute % 2),
        }
        for minute in range(10)
    ]

    assert rules_after_each(*ups_and_downs) == [[]] * 10


class TestJob:
    @pytest.mark.parametrize(
        ("state", "rule"),
        [
            ("FAILED", "job_failed"),
            ("ABSENT", "job_absent"),
            ("CANCELED", "job_ended"),
            ("FINISHED", "job_ended"),
        ],
    )
    def test_that_does_not_come_back_by_itself_is_found_at_once_and_alone(self, state, rule):
        change = {"job_state": state, "vertices_running": 0, "checkpoint_age_seconds": 900.0}

        assert found(change) == [Breach(rule, state, "RUNNING")]

    def test_that_restarts_once_is_left_to_flink(self):
        restarting = {"job_state": "RESTARTING", "vertices_running": 0, "restarts": 1}
        back = {"job_state": "RUNNING", "vertices_running": 9}

        assert rules_after_each({}, restarting, back) == [[], [], []]

    def test_that_waits_for_its_vertices_is_found_with_the_second_reading(self):
        waiting = {"vertices_running": 7}

        assert rules_after_each({}, waiting, {}) == [[], [], ["job_not_running"]]
        [breach] = found({}, waiting, {})
        assert breach.value == "RUNNING, 7 vertices of 9"

    def test_whose_cluster_does_not_answer_is_told_with_the_reason(self):
        change = {"flink_error": "ConnectError: refused", "job_state": None}

        assert found({}, change) == [
            Breach("cluster_unreachable", "ConnectError: refused", "an answer")
        ]

    def test_that_restarts_again_and_again_is_found(self):
        assert rules({}, {"restarts": 3}) == []
        assert found({}, {"restarts": 4}) == [Breach("restarts", 4, 3)]


class TestCheckpoints:
    def test_that_stall_are_found_by_the_age_of_the_last(self):
        assert rules({"checkpoint_age_seconds": 45.0}) == []
        assert found({"checkpoint_age_seconds": 46.0}) == [
            Breach("checkpoint_stalled_seconds", 46.0, 45.0)
        ]

    def test_that_are_far_apart_may_be_older(self):
        seldom = {"checkpoint_interval_seconds": 120.0, "checkpoint_age_seconds": 350.0}

        assert rules(seldom) == []
        assert rules(seldom | {"checkpoint_age_seconds": 361.0}) == ["checkpoint_stalled_seconds"]

    def test_that_fail_are_counted_against_the_readings_of_the_window(self):
        failing = [{"failed_checkpoints": 100 + failed} for failed in (0, 2, 5, 6)]

        assert rules_after_each(*failing) == [[], [], [], ["failed_checkpoints"]]
        assert found(*failing) == [Breach("failed_checkpoints", 6, 5)]

    def test_that_failed_before_the_window_are_not_counted(self):
        failing = [{"failed_checkpoints": 0}, *[{"failed_checkpoints": 6}] * 11]

        assert rules_after_each(*failing)[-2:] == [["failed_checkpoints"], []]

    def test_of_the_job_before_or_of_another_jobmanager_are_not_counted(self):
        other = {"job_id": "2" * 32, "failed_checkpoints": 8}
        anew = {"failed_checkpoints": 4}

        assert rules({}, other) == []
        assert rules({"failed_checkpoints": 90}, anew) == []


class TestLag:
    def test_that_grows_is_found_once_rows_wait_too_long(self):
        growing = [
            {"lag_rows": rows, "lag_seconds": seconds}
            for rows, seconds in ((2_000, 4.0), (20_000, 38.0), (38_000, 75.0))
        ]

        assert rules_after_each(*growing) == [[], [], ["lag_growing_seconds"]]
        # 30 s and three checkpoints of 5 s
        assert found(*growing) == [Breach("lag_growing_seconds", 75.0, 45.0)]
        assert rules({"lag_rows": 2_000}, {"lag_rows": 25_000, "lag_seconds": 50.0}) == [
            "lag_growing_seconds"
        ]

    def test_that_is_as_long_as_before_or_has_no_before_does_not_grow(self):
        long = {"lag_rows": 25_000, "lag_seconds": 50.0}

        assert rules_after_each(long, long) == [[], []]

    def test_is_judged_against_the_last_that_could_be_read(self):
        unread = {"lag_rows": None, "lag_seconds": None}
        growing = {"lag_rows": 60_000, "lag_seconds": 120.0}

        assert rules({}, unread, growing) == ["lag_growing_seconds"]

    def test_that_grows_and_is_short_is_within_what_checkpoints_make(self):
        growing = [{"lag_rows": rows, "lag_seconds": rows / 500} for rows in (500, 2_500, 5_000)]

        assert rules(*growing) == []

    def test_that_is_long_and_shrinks_is_a_job_that_catches_up(self):
        catching_up = [{"lag_rows": rows, "lag_seconds": 900.0} for rows in (9_000, 5_000, 2_000)]

        assert rules_after_each(*catching_up) == [[], [], []]

    def test_that_is_long_and_stays_is_found(self):
        stuck = {"lag_rows": 70_000, "lag_seconds": 316.0}

        assert found(stuck, {}) == [Breach("lag_seconds", 316.0, 315.0)]

    def test_of_the_job_before_is_no_growth(self):
        before = {"lag_rows": 1_000, "lag_seconds": 90.0}
        replaced = {"job_id": "2" * 32, "lag_rows": 3_000}

        assert rules(before, replaced) == []

    def test_that_grew_while_the_job_was_away_and_shrinks_since_breaks_nothing(self):
        away = {"lag_rows": 60_000, "lag_seconds": 120.0, "deploying": [Part.TRAINING]}
        back = {"lag_rows": 90_000, "lag_seconds": 180.0, "deploying": []}
        less = {"lag_rows": 30_000, "lag_seconds": 60.0}

        assert rules_after_each({}, away, {"job_id": "2" * 32, **back}, less) == [[]] * 4


class TestProgress:
    def test_of_a_job_that_keeps_up_may_be_held_back(self):
        assert rules(*[{"back_pressure_ratio": 1.0}] * 4) == []

    def test_of_a_job_that_is_held_back_and_behind_is_found(self):
        behind = {"back_pressure_ratio": 0.99, "lag_seconds": 100.0}

        assert rules_after_each(*[behind] * 3) == [[], [], ["back_pressure_ratio"]]

    def test_without_updates_is_found_after_their_window_and_five_minutes(self):
        silent = [{"updates_per_second": 0.0}] * 8

        assert rules_after_each(*silent)[6:] == [[], ["updates_stalled_seconds"]]
        assert found(*silent) == [Breach("updates_stalled_seconds", 420.0, 360.0)]

    def test_without_rows_needs_no_updates(self):
        assert rules(*[{"updates_per_second": 0.0, "rows_per_second": 0.0}] * 10) == []

    def test_with_too_many_dead_letters_is_found(self):
        assert found({"dead_letters_per_minute": 1_001.0}) == [
            Breach("dead_letters_per_minute", 1_001.0, 1_000.0)
        ]

    def test_is_unknown_when_the_brokers_do_not_answer(self):
        unknown = {"kafka_error": "KafkaException: no brokers", "lag_rows": None}

        assert rules({}, unknown | {"lag_seconds": None}) == ["kafka_unreachable"]


class TestStream:
    @pytest.mark.parametrize(
        ("state", "rule"),
        [("lost", "stream_lost"), ("failed", "stream_failed"), ("stopped", "stream_ended")],
    )
    def test_that_has_ended_is_found_at_once_and_alone(self, state, rule):
        change = {"stream_state": state, "stream_batch_age_seconds": 999.0}

        assert found(change) == [Breach(rule, state, "active")]

    def test_that_was_stopped_with_the_stack_is_waited_for_while_the_job_comes_back(self):
        coming_back = {"deploying": [Part.TRAINING]}

        assert rules(coming_back | {"stream_state": "stopped"}) == []
        assert rules(coming_back | {"stream_state": "lost"}) == ["stream_lost"]

    def test_that_commits_no_batch_is_found_while_rows_wait(self):
        stalled = {"stream_batch_age_seconds": 301.0}

        assert found(stalled) == [Breach("stream_stalled_seconds", 301.0, 300.0)]
        assert rules(stalled | {"stream_lag_rows": 0, "stream_lag_seconds": 0.0}) == []

    def test_that_falls_behind_is_found_once_rows_wait_too_long(self):
        growing = [
            {"stream_lag_rows": rows, "stream_lag_seconds": rows / 500}
            for rows in (10_000, 40_000, 70_000)
        ]

        # 30 s and three triggers of 30 s
        assert found(*growing) == [Breach("stream_lag_growing_seconds", 140.0, 120.0)]

    def test_alone_is_judged_without_a_training_job(self):
        alone = {"deployment_id": None, "job_id": None, "job_state": None, "stream_state": "lost"}

        assert rules(alone) == ["stream_lost"]


@pytest.mark.parametrize("part", list(Part))
def test_what_is_being_deployed_is_not_judged(part):
    dead = {"job_state": "ABSENT", "stream_state": "lost", "deploying": [part]}

    assert (
        rules(dead)
        == {
            Part.TRAINING: ["stream_lost"],
            Part.STREAM: ["job_absent"],
        }[part]
    )


LATENESS = timedelta(seconds=10)
"""From the full minute until a run of the health gate has read."""


def readings_of_a_job_that_stands_still(first_seconds, interval=5.0):
    """Read each minute a job whose last checkpoint lies as far back as its rows, first so long."""
    for minute in range(10):
        still = first_seconds + 60.0 * minute
        yield msgspec.structs.replace(
            HEALTHY,
            created_at=START + timedelta(seconds=still),
            checkpoint_interval_seconds=interval,
            checkpoint_age_seconds=still,
            lag_rows=int(500 * still),
            lag_seconds=still,
        )


@pytest.mark.parametrize("first_seconds", range(1, 61))
@pytest.mark.parametrize("rule", ["checkpoint_stalled_seconds", "lag_growing_seconds"])
def test_a_job_that_stands_still_is_found_within_two_minutes_whenever_it_stops(rule, first_seconds):
    before = msgspec.structs.replace(
        HEALTHY, created_at=START + timedelta(seconds=first_seconds - 60), lag_rows=2_500
    )
    readings = [before]
    for reading in readings_of_a_job_that_stands_still(first_seconds):
        if rule in [breach.rule for breach in judge(reading, readings, SETTINGS)]:
            break
        readings.append(reading)

    assert reading.created_at - START + LATENESS < timedelta(seconds=120)


def test_limits_come_from_the_settings():
    settings = Settings(health_checkpoint_age_seconds=600.0, health_restarts=9)

    assert found({"checkpoint_age_seconds": 500.0, "restarts": 9}, settings=settings) == []


def test_it_looks_back_as_far_as_its_longest_rule():
    # 300 s, a window of 60 s, and the reading before
    assert looked_back(HEALTHY, Settings(health_window_seconds=60.0)) == timedelta(seconds=420)
    assert looked_back(HEALTHY, SETTINGS) == timedelta(seconds=600)


def test_a_breach_reads_as_rule_value_and_limit():
    assert str(Breach("checkpoint_stalled_seconds", 75.25, 60.0)) == (
        "checkpoint_stalled_seconds: 75.25 (limit: 60)"
    )
    assert str(Breach("job_failed", "FAILED", "RUNNING")) == "job_failed: FAILED (limit: RUNNING)"
