"""Dashboard: whether each version is better than the one before it."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import board, features
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    GOOD,
    NATS,
    NO_LABELS,
    SHARE,
    TIME,
    Column,
    curve,
    figures,
    rows,
    series,
)

DECISIONS = {"promoted": GOOD, "rejected": BAD, "rolled_back": BAD, "restored": DOUBTFUL}
OTHER_ROWS = (
    "Versions are measured on different rows, one after the other, so that a harder hour looks like"
    " a worse version; on the same rows they are compared below."
)


def improvement() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-improvement",
        "FLEAD: Improvement between versions",
        "Whether each promoted version is better than the one before it, and what was decided on"
        " what evidence.",
        [
            figures(
                "improvement/summary",
                "Promoted versions against the version before",
                "As devices measured them before training; the mean fall of the loss is the"
                f" geometric one. {OTHER_ROWS}",
                [
                    Column("versions", "Versions compared", COUNT),
                    Column("improved", "Improvement rate", SHARE, decimals=0),
                    Column("mean_loss_reduction", "Mean fall of the log loss", SHARE, decimals=2),
                    Column("mean_accuracy_gain", "Mean gain of accuracy", SHARE, decimals=2),
                ],
                no_value=NO_LABELS,
            ),
            curve(
                "improvement/by_version",
                "Change by version",
                "Fall of the log loss relative to the version before, and gain of accuracy in"
                f" shares of rows; above zero is better. {OTHER_ROWS}",
                [
                    Column("version", "Version", "none"),
                    Column("loss_reduction", "Relative fall of the log loss"),
                    Column("accuracy_gain", "Gain of accuracy"),
                ],
                x="version",
                unit=SHARE,
                as_bars=True,
            ),
            curve(
                "improvement/loss_by_version",
                "Log loss by version",
                "As devices measured it before training, and its mean over ten versions.",
                [
                    Column("version", "Version", "none"),
                    Column("log_loss", "Log loss"),
                    Column("mean_of_ten_versions", "Mean of ten versions"),
                ],
                x="version",
                unit=NATS,
            ),
            series(
                "improvement/against_parent",
                "Versions and their parents on the same rows",
                "Of evaluations that quality checks passed: fall of the log loss in nats a row, and"
                " gain of accuracy in shares of rows; above zero the version is better.",
                [
                    Column("loss_reduction", "Fall of the log loss", NATS),
                    Column("accuracy_gain", "Gain of accuracy", SHARE),
                ],
                unit="none",
                span=24,
                lowest=None,
                no_value="No evaluation of a version and its parent that passed",
            ),
            rows(
                "improvement/decisions",
                "Decisions on versions",
                "A difference is the mean over devices of the log loss minus the reference's on the"
                " same rows: negative is better. p is the chance of such a difference, or one for"
                " the worse, without any.",
                [
                    Column("decided_at", "Decided", TIME),
                    Column("version", "Version", "none"),
                    Column("reference_version", "Reference", "none"),
                    Column("decision", "Decision", colours=DECISIONS),
                    Column("reason", "Reason", width=360),
                    Column("mean_difference", "Difference", NATS, decimals=4),
                    Column("p_value", "p", "none", decimals=4),
                    Column("devices", "Devices", COUNT),
                    Column("labelled_rows", "Labelled rows", COUNT),
                    Column("decided_by", "Decided by"),
                ],
            ),
        ],
        page="models",
        variables=[features()],
        since="now-6h",
        events=("Rejections and rollbacks", "accuracy/decisions", BAD),
    )
