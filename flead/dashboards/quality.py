"""Dashboard: what the checks of data quality find, and what they hold back."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import board
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    SECONDS,
    SHARE,
    TIME,
    Column,
    figures,
    rows,
    series,
)

SEVERITIES = {"critical": BAD, "warning": DOUBTFUL}
NO_CHECKS = "No checks"


def data_quality() -> Dashboard:
    """Return the dashboard."""
    return board(
        "flead-data-quality",
        "FLEAD: Data quality",
        "What the suites of Great Expectations find in updates, models, evaluations, feedback and"
        " results, and which evaluations are quarantined for it.",
        [
            figures(
                "quality/summary",
                "Evaluations by what checks said",
                "A critical rule that is broken quarantines the evaluation with its feedback.",
                [
                    Column("passed", "Passed", COUNT),
                    Column("quarantined", "Quarantined", COUNT, limits=[(1, BAD)]),
                    Column("unchecked", "Not checked yet", COUNT),
                    Column("mean_wait", "Mean wait for the check", SECONDS),
                ],
            ),
            series(
                "quality/success",
                "Rules that were kept",
                "Share of the rules of each suite.",
                unit=SHARE,
                top=1,
                no_value=NO_CHECKS,
            ),
            series(
                "quality/unexpected",
                "Rows that break a rule",
                "Share of what each suite has looked at; a row counts for each rule.",
                unit=SHARE,
                no_value=NO_CHECKS,
            ),
            series(
                "quality/runs",
                "Evaluations",
                "By what checks said of them.",
                unit=COUNT,
                as_bars=True,
                span=8,
                height=9,
                no_value="No evaluation",
            ),
            rows(
                "quality/rules",
                "Rules",
                "The most often broken first.",
                [
                    Column("suite", "Suite"),
                    Column("rule", "Rule", width=260),
                    Column("severity", "Severity", colours=SEVERITIES),
                    Column("checks", "Checks", COUNT),
                    Column("broken", "Broken", COUNT, limits=[(1, BAD)]),
                    Column("last_broken", "Last broken", TIME),
                ],
                span=16,
            ),
            rows(
                "quality/broken_rules",
                "Broken rules, the newest first",
                "With one of the rows that break each. The page of the run in Airflow has more.",
                [
                    Column("created_at", "Checked", TIME),
                    Column("severity", "Severity", colours=SEVERITIES),
                    Column("suite", "Suite"),
                    Column("rule", "Rule"),
                    Column("unexpected_count", "Broken by", COUNT),
                    Column("element_count", "Of", COUNT),
                    Column("run_id", "Run"),
                    Column("reason", "Why there is the rule"),
                    Column("example", "Example"),
                ],
            ),
        ],
        page="quality",
        since="now-7d",
    )
