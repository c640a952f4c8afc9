"""Dashboard: which hyperparameters were decided on, on what evidence, and what they did."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import board, features
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    GOOD,
    NATS,
    NO_LABELS,
    QUIET,
    SHARE,
    TIME,
    WIDTH,
    Column,
    figures,
    rows,
    series,
)

DECISIONS = {
    "adopted": GOOD,
    "kept": QUIET,
    "proposed": DOUBTFUL,
    "trying": DOUBTFUL,
    "awaiting_approval": DOUBTFUL,
    "rejected": BAD,
    "expired": BAD,
    "reverted": BAD,
}
NO_DECISIONS = "No decisions"


def tuning() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-tuning",
        "FLEAD: Tuning",
        "Which hyperparameters were decided on, on what evidence, and what came of them.",
        [
            figures(
                "tuning/summary",
                "Decisions",
                "Those of the range of time, and those in flight. A large step waits for an"
                " approval in Airflow, on the page of hyperparameter_tuning.",
                [
                    Column("in_flight", "In flight", COUNT),
                    Column("awaiting_approval", "Awaiting approval", COUNT, limits=[(1, DOUBTFUL)]),
                    Column("adopted", "Adopted", COUNT),
                    Column("kept", "Kept", COUNT),
                    Column("reverted", "Taken back", COUNT),
                    Column("turned_down", "Turned down", COUNT),
                ],
            ),
            series(
                "tuning/loss_by_revision",
                "Log loss by hyperparameters",
                "Of versions, as devices measured them before training; each line is a revision of"
                " the hyperparameters that their updates were trained with.",
                unit=NATS,
                span=16,
                no_value=NO_LABELS,
            ),
            rows(
                "tuning/current",
                "Hyperparameters by the newest decision",
                "What the fleet has trained with since, and trained with before. A deployment with"
                " other hyperparameters is no decision.",
                [
                    Column("hyperparameter", "Hyperparameter"),
                    Column("value", "Value", "none"),
                    Column("before", "Before", "none"),
                ],
                span=8,
                height=8,
            ),
            series(
                "tuning/hyperparameters",
                "Hyperparameters over time",
                "After each decision, as a multiple of the first value in the range of time.",
                unit="none",
                span=WIDTH,
                height=7,
                no_value=NO_DECISIONS,
            ),
            rows(
                "tuning/decisions",
                "Decisions, the newest first",
                "A decision to keep changes nothing; an adopted change is watched, and taken back"
                " when it turns out worse.",
                [
                    Column("revision", "Revision", "none", width=80),
                    Column("parent_revision", "Before", "none", width=80),
                    Column("status", "Status", colours=DECISIONS),
                    Column("reason", "Reason", width=360),
                    Column("model_version", "Version then", "none"),
                    Column("hyperparameters", "Hyperparameters"),
                    Column("decided_by", "Decided by"),
                    Column("created_at", "Made", TIME),
                    Column("decided_at", "Decided", TIME),
                    Column("settled_at", "Settled", TIME),
                ],
            ),
            rows(
                "tuning/trials",
                "Trials",
                "Mean change of the log loss of a trial's devices minus that of those that went on"
                " as before: negative is better. p is corrected for the number of trials.",
                [
                    Column("revision", "Revision", "none", width=80),
                    Column("trial", "Trial"),
                    Column("fraction_of_fleet", "Part of the fleet", SHARE),
                    Column("hyperparameters", "Hyperparameters", width=420),
                    Column("devices", "Devices", COUNT),
                    Column("mean_difference", "Difference", NATS, decimals=4),
                    Column("p_holm", "p (Holm)", "none", decimals=4),
                    Column("has_won", "Won", "bool_yes_no"),
                ],
            ),
        ],
        page="tuning",
        variables=[features()],
        events=("Decisions", "tuning/annotations", DOUBTFUL),
        since="now-7d",
    )
