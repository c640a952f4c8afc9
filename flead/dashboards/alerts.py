"""Alert rules for what the health gate reads, with the limits of the settings."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from grafana_foundation_sdk.builders import alerting, expr
from grafana_foundation_sdk.models.alerting import RelativeTimeRange, Rule
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from flead.dashboards.pipeline import PIPELINE_DASHBOARD
from flead.dashboards.queries import FRESH_SECONDS, SOURCE, Query
from flead.health.rules import READING_SECONDS
from flead.settings import Settings

FOLDER: Final = "FLEAD"
GROUP: Final = "FLEAD health"
EVERY_SECONDS: Final = 60
UNSENT_SECONDS: Final = 300.0
"""A message that is ready leaves with the round that made it, or the next."""
VALUE: Final = '{{ printf "%.0f" .Values.A.Value }}'
"""The number, in a text. Without a `$`, which Grafana takes for a variable of its environment."""
EXPRESSIONS: Final = "__expr__"
"""Uid of Grafana's own source of expressions."""


class Alert(msgspec.Struct, frozen=True):
    """When a number of `sql/dashboards/alerts/NAME.sql` is above a limit, and what to do then.

    Parameters
    ----------
    lasting_seconds
        How long it must be before anybody is told.
    dashboard
        That shows more.
    """

    name: str
    title: str
    limit: float
    summary: str
    description: str
    severity: str = "warning"
    lasting_seconds: int = 0
    dashboard: str = PIPELINE_DASHBOARD


def alerts(settings: Settings) -> list[Alert]:
    """Return all alerts, with the limits of `settings`."""
    gate = "docs/operations.md says what each rule of the health gate means."
    return [
        Alert(
            "verdict_exhausted",
            "A dead job was deployed again too often",
            0,
            "The health gate has given up: a person is needed.",
            "Read the newest failed run of deploy_training or deploy_stream_analysis in Airflow,"
            " mend the reason, and trigger it with resume.",
            severity="critical",
        ),
        Alert(
            "verdict_breached",
            "Rules of the health gate are broken",
            0,
            f"The newest readings break {VALUE} rules of the health gate.",
            f"The table of broken rules on the dashboard names them; {gate}",
            lasting_seconds=int(FRESH_SECONDS),
        ),
        Alert(
            "no_reading",
            "Nobody looks at the training job",
            FRESH_SECONDS,
            f"A job should run, and the health gate has not read it for {VALUE} seconds.",
            "Look whether monitor_training runs in Airflow: is it paused, does the scheduler live?",
            severity="critical",
        ),
        Alert(
            "checkpoint_age",
            "Checkpoints of the training job stall",
            settings.health_checkpoint_age_seconds,
            f"The last checkpoint completed {VALUE} seconds ago.",
            f"A restart would read all rows since then again. {gate}",
            severity="critical",
        ),
        Alert(
            "lag",
            "The training job falls behind",
            settings.health_lag_seconds,
            f"Rows wait for training {VALUE} seconds longer than checkpoints explain.",
            f"Look at rows, back pressure and restarts on the dashboard. {gate}",
            lasting_seconds=2 * int(READING_SECONDS),
        ),
        Alert(
            "stream_lag",
            "The stream analysis falls behind",
            settings.health_lag_seconds,
            f"Rows wait for the analysis {VALUE} seconds longer than its triggers explain.",
            f"Look at the duration of batches on the dashboard. {gate}",
            lasting_seconds=2 * int(READING_SECONDS),
        ),
        Alert(
            "stream_batch_age",
            "The stream analysis stalls",
            settings.health_batch_age_seconds,
            f"Rows wait, and the last batch was committed {VALUE} seconds ago.",
            f"Read the log of its driver. {gate}",
        ),
        Alert(
            "dead_letters",
            "Many messages do not validate",
            settings.health_dead_letters_per_minute,
            f"{VALUE} messages a minute went to dead-letter topics.",
            "Read some of them: each says its reason, and where it came from.",
        ),
        Alert(
            "restarts",
            "The training job restarts again and again",
            settings.health_restarts,
            f"It has failed {VALUE} times within {settings.health_window_seconds:g} seconds.",
            f"Flink's page of the job has the exceptions. {gate}",
            severity="critical",
        ),
        Alert(
            "undecided_candidate",
            "A candidate is not decided on",
            settings.gate_timeout_seconds + settings.max_wait_seconds,
            f"A candidate waits for its verdict for {VALUE} seconds; the next round should"
            " have rejected it.",
            "Look whether aggregation_round runs in Airflow, and whether devices send updates.",
            dashboard="flead-model-accuracy",
        ),
        Alert(
            "unsent_messages",
            "Messages do not leave for Kafka",
            UNSENT_SECONDS,
            f"A message is ready for {VALUE} seconds and has not left.",
            "Look at the task that publishes in aggregation_round: does Kafka answer?",
        ),
        Alert(
            "quarantined_evaluation",
            "An evaluation was quarantined",
            0,
            f"{VALUE} evaluations of the last day break a critical rule of data quality;"
            " their feedback is held back.",
            "The dashboard names the rules, the page of the run in Airflow shows the rows.",
            dashboard="flead-data-quality",
        ),
        Alert(
            "pending_approval",
            "A change of hyperparameters waits for approval",
            0,
            "Hyperparameters that would change by a large step wait for an answer; after"
            f" {settings.tuning_approval_seconds / 3600:g} hours they are rejected.",
            "Answer on the page of hyperparameter_tuning in Airflow.",
            severity="info",
            dashboard="flead-tuning",
        ),
    ]


def rule_group(settings: Settings) -> dict[str, Any]:
    """Return the file of provisioned rules.

    Format: https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/
    """
    rules = [_provisioned(alert, _rule(alert)) for alert in alerts(settings)]
    group = {
        "orgId": 1,
        "name": GROUP,
        "folder": FOLDER,
        "interval": f"{EVERY_SECONDS}s",
        "rules": rules,
    }
    return {"apiVersion": 1, "groups": [group]}


def _rule(alert: Alert) -> Rule:
    number = (
        alerting.Query("A")
        .datasource_uid(str(SOURCE.uid))
        .relative_time_range(RelativeTimeRange(from_val=600, to=0))
        .model(Query(f"alerts/{alert.name}"))
    )
    evaluator = expr.ExprTypeThresholdConditionsEvaluator().type("gt").params([alert.limit])
    above = (
        alerting.Query("B")
        .datasource_uid(EXPRESSIONS)
        .relative_time_range(RelativeTimeRange(from_val=600, to=0))
        .model(
            expr.TypeThreshold()
            .datasource(DataSourceRef(EXPRESSIONS, EXPRESSIONS))
            .ref_id("B")
            .expression("A")
            .conditions([expr.ExprTypeThresholdConditions().evaluator(evaluator)])
        )
    )
    return (
        alerting.Rule(alert.title)
        .uid(f"flead-{alert.name.replace('_', '-')}")
        .folder_uid(FOLDER)
        .rule_group(GROUP)
        .org_id(1)
        .condition("B")
        .queries([number, above])
        .for_val(f"{alert.lasting_seconds}s")
        # each query always gives a row: none means that the database was not read
        .no_data_state("Alerting")
        .exec_err_state("Error")
        .labels({"severity": alert.severity, "system": "flead"})
        .annotations({"summary": alert.summary, "description": alert.description})
        .build()
    )


def _provisioned(alert: Alert, rule: Rule) -> Mapping[str, Any]:
    """Return a rule as files have it: the group says where it belongs, a dashboard is a field."""
    document = rule.to_json()
    for name in ("folderUID", "orgID", "ruleGroup"):
        del document[name]
    return document | {"dashboardUid": alert.dashboard, "panelId": 1}
