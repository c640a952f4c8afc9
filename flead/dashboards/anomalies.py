"""Dashboard: what is anomalous in the fleet's streams."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.contracts.schema import Z_THRESHOLD
from flead.dashboards.boards import DEVICE_LINK, board, window
from flead.dashboards.panels import (
    COUNT,
    SHARE,
    TIME,
    WIDTH,
    Column,
    bars,
    figures,
    rows,
    series,
)

NO_STREAM = "No stream analysis"
NO_DAYS = "No day was analysed"


def anomalies() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-anomalies",
        "FLEAD: Anomalies",
        "How many rows are anomalous, where, and in what: by the stream analysis within seconds,"
        " and by the daily analysis.",
        [
            figures(
                "anomalies/summary",
                "In the range of time",
                "By the windows of the stream analysis. The global model calls a row anomalous"
                " with a probability of one half or more; the z-score rule, when a feature lies"
                f" more than {Z_THRESHOLD:g} standard deviations from its mean over the 100 rows"
                " before.",
                [
                    Column("rows", "Rows", COUNT),
                    Column("anomalies", "Anomalies by the model", COUNT),
                    Column("anomaly_rate", "Rate by the model", SHARE, decimals=2),
                    Column("zscore_anomaly_rate", "Rate by the z-score rule", SHARE, decimals=2),
                    Column("devices_with_anomalies", "Devices with any by the rule", COUNT),
                ],
                no_value=NO_STREAM,
            ),
            series(
                "anomalies/rate",
                "Anomaly rate",
                "Share of the rows that the global model calls anomalous, of those that it scored;"
                " share that the z-score rule does; and the model's mean probability.",
                [
                    Column("by_the_model", "By the model"),
                    Column("by_the_z_score_rule", "By the z-score rule"),
                    Column("mean_probability", "Mean probability by the model"),
                ],
                unit=SHARE,
                no_value=NO_STREAM,
            ),
            series(
                "anomalies/rows",
                "Rows and anomalies",
                "Rows that were analysed, by the start of their window.",
                [
                    Column("rows", "Rows"),
                    Column("by_the_model", "Anomalies by the model"),
                    Column("by_the_z_score_rule", "Anomalies by the z-score rule"),
                ],
                unit=COUNT,
                no_value=NO_STREAM,
            ),
            series(
                "anomalies/by_feature",
                "Anomalies of the z-score rule by feature",
                "By the feature with the largest z-score of the row.",
                unit=COUNT,
                as_bars=True,
                no_value="No anomalies",
            ),
            series(
                "anomalies/agreement",
                "What the z-score rule calls anomalous",
                "Of these rows: how many are labelled anomalous (rows without a label are left"
                " out), and how many the global model gives a probability of one half or more.",
                [
                    Column("labelled_anomalous", "Labelled anomalous"),
                    Column("called_anomalous_by_the_model", "Called anomalous by the model"),
                ],
                unit=SHARE,
                top=1,
                no_value="No anomalies",
            ),
            bars(
                "anomalies/z_scores",
                "How far out",
                "Anomalies of the rule by the size of their largest z-score, clipped at 10.",
                [Column("z_score", "z-score"), Column("anomalies", "Anomalies")],
                unit=COUNT,
                no_value="No anomalies",
            ),
            rows(
                "anomalies/devices",
                "Devices with most anomalies",
                "By the windows of the stream analysis; most by the z-score rule first.",
                [
                    Column("device_id", "Device", link=DEVICE_LINK),
                    Column("by_the_z_score_rule", "By the rule", COUNT),
                    Column("by_the_model", "By the model", COUNT),
                    Column("rows", "Rows", COUNT),
                    Column("zscore_anomaly_rate", "Rate by the rule", SHARE, decimals=1),
                    Column("last_window", "Last window with one", TIME),
                ],
                span=WIDTH // 2,
                height=8,
            ),
            rows(
                "anomalies/newest",
                "Newest anomalies",
                "Of the z-score rule: the feature with the largest z-score of each row.",
                [
                    Column("event_time", "Time", TIME),
                    Column("device_id", "Device", link=DEVICE_LINK),
                    Column("feature", "Feature"),
                    Column("value", "Value", "none"),
                    Column("z_score", "z-score", "none", decimals=1),
                    Column("probability", "Probability", SHARE, decimals=0),
                    Column("label", "Label", "none"),
                    Column("model_version", "Model version", "none"),
                ],
            ),
            series(
                "anomalies/daily",
                "Anomaly rate by day, 30 days",
                "The daily analysis: by the model that was promoted at the day's end, by the one"
                " that the day was first analysed with, and by the z-score rule.",
                [
                    Column("by_the_model", "Model of the day"),
                    Column("by_the_reference_model", "Reference model"),
                    Column("by_the_z_score_rule", "The z-score rule"),
                ],
                unit=SHARE,
                days=30,
                no_value=NO_DAYS,
            ),
            series(
                "anomalies/drift",
                "Drift by day, 30 days",
                "Jensen-Shannon distance of each device's day to its days before: 0 is the same"
                " distribution, 1 another one altogether.",
                [
                    Column("median_device", "Median device"),
                    Column("ninety_fifth_percentile", "95th percentile"),
                    Column("largest", "Largest"),
                ],
                unit="none",
                top=1,
                days=30,
                no_value=NO_DAYS,
            ),
        ],
        page="devices",
        variables=[window()],
        since="now-6h",
    )
