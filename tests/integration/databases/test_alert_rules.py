"""When alert rules fire, on both databases: at the limits of the health gate."""

import pytest
import yaml

from flead.stack.home import CHECKOUT
from flead.storage.connection import connect

pytestmark = pytest.mark.servers

FILE = CHECKOUT / "grafana" / "provisioning" / "alerting" / "flead.yaml"
[GROUP] = yaml.safe_load(FILE.read_text())["groups"]
ALERTS = {rule["uid"]: rule["data"][0]["model"]["rawSql"] for rule in GROUP["rules"]}


@pytest.mark.parametrize("query", ALERTS.values(), ids=ALERTS)
def test_an_alert_rests_where_nothing_runs(database, query):
    with connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(query)

        assert cursor.fetchall() == [(0.0,)]


@pytest.fixture
def ask(database):
    """Return the function that changes an empty database and returns the number of an alert."""

    def run(uid, *statements):
        with connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            cursor.execute(ALERTS[uid])
            [(value,)] = cursor.fetchall()
            return value

    return run


def limit(uid):
    [rule] = [rule for rule in GROUP["rules"] if rule["uid"] == uid]
    [condition] = rule["data"][1]["model"]["conditions"]
    return condition["evaluator"]["params"][0]


def reading(age="0 seconds", verdict="healthy", reasons="[]", **columns):
    """Return the statement that stores a reading of the health gate."""
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", {value}" for value in columns.values())
    return (
        "INSERT INTO training_health"  # noqa: S608 - of this file's own constants
        f" (created_at, dag_run_id, positions, deploying, healing, verdict, reasons{names})"
        f" VALUES (now() - INTERVAL '{age}', 'run', '{{}}', '{{}}', '{{}}', '{verdict}',"
        f" '{reasons}'{values})"
    )


BROKEN = '[{"rule": "lag_seconds", "value": 400, "limit": 315}]'


@pytest.mark.parametrize(
    ("uid", "broken", "kept"),
    [
        (
            "flead-verdict-exhausted",
            reading(verdict="exhausted", reasons=BROKEN),
            reading(verdict="breached", reasons=BROKEN),
        ),
        (
            "flead-verdict-breached",
            reading(verdict="breached", reasons=BROKEN),
            reading("4 minutes", verdict="breached", reasons=BROKEN),
        ),
        (
            "flead-checkpoint-age",
            reading(checkpoint_age_seconds=46, checkpoint_interval_seconds=5),
            reading(checkpoint_age_seconds=89, checkpoint_interval_seconds=30),
        ),
        (
            "flead-lag",
            reading(lag_seconds=391, checkpoint_interval_seconds=30),
            reading(lag_seconds=389, checkpoint_interval_seconds=30),
        ),
        (
            "flead-stream-lag",
            reading(stream_lag_seconds=391, stream_trigger_seconds=30),
            reading(stream_lag_seconds=389, stream_trigger_seconds=30),
        ),
        (
            "flead-stream-batch-age",
            reading(stream_batch_age_seconds=301, stream_lag_rows=1),
            reading(stream_batch_age_seconds=301, stream_lag_rows=0),
        ),
        (
            "flead-dead-letters",
            reading(dead_letters_per_minute=1001),
            reading(dead_letters_per_minute=1000),
        ),
        ("flead-restarts", reading(restarts=4), reading(restarts=3)),
    ],
)
def test_an_alert_fires_beyond_the_rule_of_the_health_gate(ask, uid, broken, kept):
    assert ask(uid, kept) <= limit(uid)
    assert ask(uid, "DELETE FROM training_health", broken) > limit(uid)


def deployed(ago):
    return (
        "INSERT INTO training_deployments"  # noqa: S608 - of this file's own constants
        " (deployment_id, attempt, job_id, kind, status,"
        " feature_schema, configuration, updated_at)"
        f" VALUES ('d', 1, repeat('1', 32), 'submit', 'active', 's', '{{}}',"
        f" now() - INTERVAL '{ago}')"
    )


def test_a_deployment_that_nobody_looks_at_is_told_of(ask):
    uid = "flead-no-reading"

    assert ask(uid, deployed("2 minutes")) < limit(uid)
    assert ask(uid, "DELETE FROM training_deployments", deployed("1 hour")) > limit(uid)
    assert ask(uid, reading("2 minutes")) < limit(uid)
    assert ask(uid, "UPDATE training_deployments SET status = 'suspended'") == 0


def test_an_evaluation_that_was_quarantined_today_is_told_of(ask):
    quarantined = (
        "INSERT INTO evaluation_runs (evaluation_run_id, state, feature_schema, due_versions,"
        " versions, warm_up_offsets, start_offsets, end_offsets, planned_at, evaluated_at,"
        " quality_status, quality_checked_at)"
        " VALUES ('r', 'evaluated', 's', '{1}', '{1}', '{}', '{}', '{}', now(), now(),"
        " 'quarantined', now() - INTERVAL '%s')"
    )

    assert ask("flead-quarantined-evaluation", quarantined % "2 days") == 0
    assert (
        ask("flead-quarantined-evaluation", "DELETE FROM evaluation_runs", quarantined % "1 hour")
        == 1
    )


def test_a_change_that_waits_for_approval_is_told_of(ask):
    waiting = (
        "INSERT INTO tuning_decisions (revision, parent_revision, status, reason, feature_schema,"
        " model_version, hyperparameters, incumbent, trials, horizon_seconds, evidence,"
        " decided_by, created_at)"
        " VALUES (2, 1, '%s', 'a reason', 's', 1, '{}', '{}', '[]', 1, '{}', 'x', now())"
    )

    assert ask("flead-pending-approval", waiting % "trying") == 0
    assert (
        ask("flead-pending-approval", "DELETE FROM tuning_decisions", waiting % "awaiting_approval")
        == 1
    )


def test_a_message_that_does_not_leave_is_told_of(ask):
    ready = (
        "INSERT INTO outbox (topic, key, value, state, created_at)"
        " VALUES ('global-model-updates', 'global', '', '%s', now() - INTERVAL '6 minutes')"
    )

    assert ask("flead-unsent-messages", ready % "held") == 0
    assert ask("flead-unsent-messages", ready % "ready") > limit("flead-unsent-messages")


def version(number, schema, status, ago):
    return (
        "INSERT INTO federated_models (version, parent_version, status, feature_schema,"  # noqa: S608 - of this file's own constants
        " feature_names, strategy, options, weights, intercept, standardizer, num_devices,"
        " num_updates, total_samples, input_offsets, hyperparameters_revision, artifact_path,"
        " artifact_sha256, created_at)"
        f" VALUES ({number}, {number - 1}, '{status}', '{schema}', '{{f}}', 'fedavg', '{{}}',"
        " '{}', 0, '{}', 1, 1, 1, '{}', 1, 'a', repeat('0', 64),"
        f" now() - INTERVAL '{ago}')"
    )


def test_a_candidate_that_is_not_decided_on_is_told_of(ask):
    uid = "flead-undecided-candidate"

    assert ask(uid, version(1, "old", "candidate", "10 seconds")) < limit(uid)
    assert ask(
        uid, "DELETE FROM federated_models", version(1, "old", "candidate", "1 day")
    ) > limit(uid)
    # an older version that is restored meanwhile changes nothing
    assert ask(uid, version(2, "old", "promoted", "1 hour")) > limit(uid)


def test_a_candidate_of_a_feature_list_that_was_given_up_is_not(ask):
    uid = "flead-undecided-candidate"

    given_up = version(1, "old", "candidate", "1 day")

    assert ask(uid, given_up, version(2, "new", "promoted", "1 minute")) == 0
