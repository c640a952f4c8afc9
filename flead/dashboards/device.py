"""Dashboard: how devices perform, and one of them in detail."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import DEVICE_DASHBOARD, DEVICE_LINK, board, device, features
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    GOOD,
    NATS,
    NO_LABELS,
    QUIET,
    SHARE,
    WIDTH,
    Column,
    bars,
    figures,
    rows,
    series,
    timeline,
)

TRAINING = {"converged": GOOD, "training": GOOD, "drifting": DOUBTFUL, "paused": QUIET}
JUDGEMENTS = {"accepted": GOOD, "pending": QUIET, "superseded": QUIET, "rejected": BAD}
NO_EVALUATION = "No evaluation that passed"
NO_SAMPLES = "No stream analysis of this device"
NO_UPDATES = "No updates of this device"
BOTH_MODELS = [
    Column("personalized", "Personalized model"),
    Column("global_model", "Global model"),
]


def device_performance() -> Dashboard:
    """Return the dashboard."""
    return board(
        DEVICE_DASHBOARD,
        "FLEAD: Device performance",
        "How equally devices fare, which fare worst, and the chosen one: its stream, its two"
        " models, and what became of its updates.",
        [
            series(
                "device/spread",
                "Accuracy over devices",
                "Percentiles over the devices of each evaluation: the fifth shows whom the global"
                " model leaves behind.",
                [
                    Column("ninety_fifth_percentile", "95th percentile"),
                    Column("median_device", "Median device"),
                    Column("fifth_percentile", "5th percentile"),
                ],
                unit=SHARE,
                top=1,
                span=16,
                no_value=NO_EVALUATION,
            ),
            bars(
                "device/status_of_fleet",
                "What devices say",
                "Status of the devices whose updates are in the newest round.",
                [Column("training_status", "Status"), Column("devices", "Devices")],
                unit=COUNT,
                span=8,
                no_value="No round",
            ),
            rows(
                "device/worst",
                "Devices in the newest evaluation, the worst first",
                "By log loss on rows that the version was not trained on. A click chooses the"
                " device.",
                [
                    Column("device_id", "Device", link=DEVICE_LINK),
                    Column("model_version", "Version", "none"),
                    Column("labelled_rows", "Labelled rows", COUNT),
                    Column("accuracy", "Accuracy", SHARE, decimals=1),
                    Column("log_loss", "Log loss", NATS, decimals=3),
                    Column("recall", "Recall", SHARE, decimals=1),
                    Column("precision", "Precision", SHARE, decimals=1),
                ],
                height=8,
                no_value=NO_EVALUATION,
            ),
            figures(
                "device/newest_update",
                "$device: newest update",
                "The device's own counter of updates is another one than the global version that"
                " the window began with. Accuracy is empty without labels.",
                [
                    Column("training_status", "Status", colours=TRAINING),
                    Column("global_version", "Global version", "none"),
                    Column("updates", "Updates so far", COUNT),
                    Column("learning_rate", "Learning rate", "none", decimals=4),
                    Column("personalized_accuracy", "Accuracy of the window", SHARE, decimals=1),
                    Column("label_source", "Trained by"),
                    Column("judgement", "The round said", colours=JUDGEMENTS),
                    Column("received_at", "Received", "dateTimeFromNow"),
                ],
                no_value=NO_UPDATES,
            ),
            series(
                "device/signal",
                "$device: what it sends",
                "One row in fifteen seconds.",
                unit="none",
                lowest=None,
                span=WIDTH,
                no_value=NO_SAMPLES,
            ),
            series(
                "device/probability",
                "$device: probability of an anomaly",
                "By the global model, with what the z-score rule and the label say of the row.",
                [
                    Column("probability", "Probability"),
                    Column("called_anomalous", "Called anomalous by the z-score rule"),
                    Column("labelled_anomalous", "Labelled anomalous"),
                ],
                unit=SHARE,
                top=1,
                no_value=NO_SAMPLES,
            ),
            series(
                "device/anomalies",
                "$device: anomalies",
                "The largest z-score of each anomalous row, by feature.",
                unit="none",
                lowest=None,
                no_value="No anomalies of this device",
            ),
            series(
                "device/accuracy",
                "$device: accuracy of its two models",
                "Both on the same labelled rows, before either was trained on them.",
                BOTH_MODELS,
                unit=SHARE,
                top=1,
                no_value=NO_LABELS,
            ),
            series(
                "device/log_loss",
                "$device: log loss of its two models",
                "Both on the same labelled rows, before either was trained on them.",
                BOTH_MODELS,
                unit=NATS,
                no_value=NO_LABELS,
            ),
            series(
                "device/feedback",
                "$device: error in evaluations",
                "Of the predictions that evaluations keep of the device, where quality checks"
                " passed.",
                [
                    Column("mean_error", "Mean error"),
                    Column("mean_confidence", "Mean confidence"),
                ],
                unit="none",
                top=1,
                no_value="No feedback that passed",
            ),
            series(
                "device/learning_rate",
                "$device: learning rate",
                "Each device moves its own between the bounds of its hyperparameters.",
                [Column("learning_rate", "Learning rate")],
                unit="none",
                no_value=NO_UPDATES,
            ),
            timeline(
                "device/training_status",
                "$device: status",
                "What most updates of an interval said.",
                Column("training_status", "Status", colours=TRAINING),
                span=WIDTH // 2,
                height=7,
                no_value=NO_UPDATES,
            ),
            series(
                "device/updates",
                "$device: updates by what became of them",
                "Not averaged: superseded by a later one of the same round, or kept as evidence on"
                " a candidate.",
                [
                    Column("accepted", "Accepted"),
                    Column("rejected", "Rejected"),
                    Column("not_averaged", "Not averaged"),
                ],
                unit=COUNT,
                as_bars=True,
                height=7,
                no_value=NO_UPDATES,
            ),
        ],
        page="devices/${device:percentencode}",
        variables=[device(), features()],
        since="now-6h",
    )
