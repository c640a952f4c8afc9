"""Dashboard: how good the global model is, over time."""

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

STATES = {"promoted": GOOD, "candidate": DOUBTFUL, "rejected": BAD, "rolled_back": BAD}


def accuracy() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-model-accuracy",
        "FLEAD: Model accuracy",
        "How good the global model is, over time: as devices measure it before they train on the"
        " rows, and as Spark evaluates it on rows that it was not trained on.",
        [
            figures(
                "accuracy/newest",
                "Now",
                "The version that devices use, and the figures of the newest version that labelled"
                " rows were scored with. A figure belongs to the version that was scored.",
                [
                    Column("head_version", "In use: version", "none"),
                    Column("measured_version", "Measured: version", "none"),
                    Column("accuracy", "Accuracy", SHARE, decimals=1),
                    Column("log_loss", "Log loss", NATS, decimals=3),
                    Column("labelled_rows", "Labelled rows", COUNT),
                    Column("devices", "Devices of its round", COUNT),
                ],
                no_value=NO_LABELS,
            ),
            series(
                "accuracy/measured_by_devices",
                "Accuracy by the devices",
                "Versions by the time of their publication, on all labelled rows that devices scored"
                " with them before they trained on the rows; a point of a long range is the mean of"
                " several. To always name the more frequent class would have been right as often"
                " as the other line says.",
                [
                    Column("accuracy", "Global model"),
                    Column("always_the_more_frequent_class", "Always the more frequent class"),
                ],
                unit=SHARE,
                top=1,
                no_value=NO_LABELS,
            ),
            series(
                "accuracy/evaluated",
                "Accuracy by evaluation",
                "The newest version of each evaluation that quality checks passed, on labelled rows"
                " beyond all that it was trained on; two rules on the same rows for comparison.",
                [
                    Column("accuracy", "Global model"),
                    Column("always_normal", "To call every row normal"),
                    Column("z_score_rule", "The z-score rule"),
                ],
                unit=SHARE,
                top=1,
                no_value="No evaluation that passed",
            ),
            series(
                "accuracy/loss_measured_by_devices",
                "Log loss by the devices",
                "Mean negative log likelihood of a labelled row; to say one half always is 0.693.",
                [Column("log_loss", "Global model")],
                unit=NATS,
                no_value=NO_LABELS,
            ),
            series(
                "accuracy/errors_measured_by_devices",
                "Two kinds of error by the devices",
                "Share of anomalous rows that were called normal, and of normal rows that were"
                " called anomalous.",
                [
                    Column("missed_anomalies", "Missed anomalies"),
                    Column("false_alarms", "False alarms"),
                ],
                unit=SHARE,
                no_value=NO_LABELS,
            ),
            series(
                "accuracy/ranking_quality",
                "Precision, recall and ranking by evaluation",
                "Of the newest version of each evaluation. ROC AUC is the chance that an anomalous"
                " row has a higher probability than a normal one.",
                [
                    Column("roc_auc", "ROC AUC"),
                    Column("precision", "Precision"),
                    Column("recall", "Recall"),
                    Column("f1", "F1"),
                ],
                unit=SHARE,
                top=1,
                no_value="No evaluation that passed",
            ),
            curve(
                "accuracy/calibration",
                "Calibration in the newest evaluation",
                "Of rows that were given about the same probability: how many are anomalous. Below"
                " the straight line the model is too sure of anomalies.",
                [
                    Column("predicted", "Predicted probability", SHARE),
                    Column("observed", "Anomalous rows"),
                    Column("calibrated", "Perfectly calibrated"),
                ],
                x="predicted",
                unit=SHARE,
                no_value="No evaluation that passed",
            ),
            rows(
                "accuracy/versions",
                "Versions",
                "Global models in the range of time. Accuracy is empty until rows with a label were"
                " scored with the version.",
                [
                    Column("version", "Version", "none", width=80),
                    Column("status", "Status", colours=STATES),
                    Column("parent_version", "Parent", "none", width=80),
                    Column("accuracy", "Accuracy", SHARE, decimals=1),
                    Column("log_loss", "Log loss", NATS, decimals=3),
                    Column("labelled_rows", "Labelled rows", COUNT),
                    Column("devices", "Devices", COUNT),
                    Column("updates", "Updates", COUNT),
                    Column("samples", "Rows trained", COUNT),
                    Column("strategy", "Strategy"),
                    Column("hyperparameters_revision", "Hyperparameters", "none"),
                    Column("created_at", "Made", TIME),
                    Column("promoted_at", "Promoted", TIME),
                ],
            ),
        ],
        page="models",
        variables=[features()],
        events=("Rejections and rollbacks", "accuracy/decisions", BAD),
    )
