"""Dashboard: how good the predictions are that evaluations keep."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import DEVICE_LINK, board, versions
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    GOOD,
    SHARE,
    TIME,
    WIDTH,
    Column,
    bars,
    figures,
    rows,
    series,
)

RUN_STATES = {"passed": GOOD, "pending": DOUBTFUL, "quarantined": BAD}
NO_FEEDBACK = "No feedback that passed"
ERROR = "Error is the distance of the predicted probability from the label: 0 is right and sure, 1"


def feedback() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-feedback-quality",
        "FLEAD: Feedback quality",
        "How far the predictions that evaluations keep are from the labels, by version. Only"
        " feedback that quality checks passed is counted, as by devices and by tuning.",
        [
            figures(
                "feedback/summary",
                "Feedback in the range of time",
                f"{ERROR} is wrong and sure. Confidently wrong: on the wrong side of one half with"
                " a confidence of 80 % or more.",
                [
                    Column("predictions", "Predictions", COUNT),
                    Column("devices", "Devices", COUNT),
                    Column("mean_error", "Mean error", "none", decimals=3),
                    Column("right_side", "On the right side", SHARE, decimals=1),
                    Column("confidently_wrong", "Confidently wrong", SHARE, decimals=2),
                ],
                no_value=NO_FEEDBACK,
            ),
            bars(
                "feedback/error_by_version",
                "Average error by version",
                f"{ERROR} is wrong and sure. A tenth of the predictions is beyond the second bar.",
                [
                    Column("version", "Version"),
                    Column("mean_error", "Mean error"),
                    Column("ninetieth_percentile", "90th percentile"),
                ],
                unit="none",
                no_value=NO_FEEDBACK,
            ),
            series(
                "feedback/error_over_time",
                "Error over time",
                "By the time of the rows that were predicted.",
                [
                    Column("mean_error", "Mean error"),
                    Column("ninetieth_percentile", "90th percentile"),
                ],
                unit="none",
                top=1,
                no_value=NO_FEEDBACK,
            ),
            series(
                "feedback/error_by_class",
                "Error on anomalies and on normal rows",
                "A model that hardly ever says anomaly has a small error on normal rows and a large"
                " one on anomalies.",
                [Column("anomalies", "Anomalies"), Column("normal_rows", "Normal rows")],
                unit="none",
                top=1,
                no_value=NO_FEEDBACK,
            ),
            bars(
                "feedback/error_by_confidence",
                "Error by confidence",
                "Confidence is 0 at a probability of one half and 1 at 0 and 1, so it claims an"
                " error. Where the measured error is larger, the model is surer than it may be.",
                [
                    Column("confidence", "Confidence"),
                    Column("mean_error", "Measured error"),
                    Column("claimed_error", "Claimed by the confidence"),
                ],
                unit="none",
                no_value=NO_FEEDBACK,
            ),
            rows(
                "feedback/worst_devices",
                "Devices with the largest error",
                "Few predictions of a device make a shaky mean: an evaluation keeps five.",
                [
                    Column("device_id", "Device", link=DEVICE_LINK),
                    Column("predictions", "Predictions", COUNT),
                    Column("mean_error", "Mean error", "none", decimals=3),
                    Column("mean_confidence", "Mean confidence", SHARE, decimals=0),
                    Column("newest_version", "Newest version", "none"),
                ],
                span=WIDTH // 2,
            ),
            rows(
                "feedback/runs",
                "Evaluations and their release",
                "Feedback of quarantined evaluations reaches no device, and is not counted here.",
                [
                    Column("evaluated_at", "Evaluated", TIME),
                    Column("evaluation_run_id", "Run"),
                    Column("quality_status", "Quality", colours=RUN_STATES),
                    Column("newest_version", "Newest version", "none"),
                    Column("versions", "Versions", COUNT),
                    Column("labelled_rows", "Labelled rows", COUNT),
                    Column("devices", "Devices", COUNT),
                    Column("quality_checked_at", "Checked", TIME),
                ],
                span=WIDTH // 2,
            ),
        ],
        page="quality",
        variables=[versions()],
        since="now-7d",
    )
