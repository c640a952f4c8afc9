"""Dashboard: whether rows become models, from the stream to the published version."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from flead.dashboards.boards import board
from flead.dashboards.panels import (
    BAD,
    COUNT,
    DOUBTFUL,
    GOOD,
    QUIET,
    ROWS_PER_SECOND,
    SECONDS,
    SHARE,
    TIME,
    WIDTH,
    Column,
    figures,
    rows,
    series,
    timeline,
)
from flead.dashboards.queries import FRESH_SECONDS
from flead.settings import Settings

PIPELINE_DASHBOARD = "flead-pipeline-health"
VERDICTS = {
    "healthy": GOOD,
    "deploying": QUIET,
    "breached": DOUBTFUL,
    "healing": DOUBTFUL,
    "exhausted": BAD,
}
ATTEMPTS = {"active": GOOD, "completed": GOOD, "submitting": DOUBTFUL, "failed": BAD}
NO_READINGS = "No readings: nothing should run"
LIMIT = "The dashed line is the limit of the health gate by default"


def pipeline_health(settings: Settings) -> Dashboard:
    """Return the dashboard, with the limits of `settings` as lines."""
    age = settings.health_checkpoint_age_seconds
    letters = settings.health_dead_letters_per_minute
    return board(
        PIPELINE_DASHBOARD,
        "FLEAD: Pipeline health",
        "Whether rows become models: the readings of the health gate, rounds, and what waits.",
        [
            figures(
                "pipeline/newest_reading",
                "Newest reading of the health gate",
                "One a minute while anything should run; an old one means that nobody looks.",
                [
                    Column("verdict", "Verdict", colours=VERDICTS),
                    Column(
                        "reading_age", "Read", SECONDS, decimals=0, limits=[(FRESH_SECONDS, BAD)]
                    ),
                    Column("job_state", "Training job"),
                    Column("checkpoint_age", "Last checkpoint", SECONDS, limits=[(age, BAD)]),
                    Column("lag", "Oldest waiting row", SECONDS),
                    Column("rows_per_second", "Rows", ROWS_PER_SECOND),
                    Column("updates_per_second", "Updates a second", "none", decimals=1),
                    Column(
                        "dead_letters_per_minute",
                        "Dead letters a minute",
                        COUNT,
                        limits=[(letters, BAD)],
                    ),
                ],
            ),
            timeline(
                "pipeline/verdicts",
                "Verdicts",
                "What the readings amount to, the worst of an interval. Exhausted: it was deployed"
                " again too often, and a person is needed.",
                Column("verdict", "Verdict", colours=VERDICTS),
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/throughput",
                "Rows",
                "Rows a second that the training job has read, by the offsets that it commits.",
                [Column("rows_per_second", "Rows")],
                unit=ROWS_PER_SECOND,
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/updates",
                "Updates",
                "Updates a second that devices have sent.",
                [Column("updates_per_second", "Updates a second")],
                unit="none",
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/lag",
                "How long rows wait",
                "The oldest row that is not committed. A job commits with its checkpoints, so a"
                f" healthy lag is about an interval long. {LIMIT}, to which three intervals are"
                " added.",
                [
                    Column("training_job", "Training job"),
                    Column("stream_analysis", "Stream analysis"),
                ],
                unit=SECONDS,
                limits=[(settings.health_lag_seconds, BAD)],
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/lag_rows",
                "How many rows wait",
                "Rows beyond what is committed.",
                [
                    Column("training_job", "Training job"),
                    Column("stream_analysis", "Stream analysis"),
                ],
                unit=COUNT,
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/checkpoint_age",
                "Since the last checkpoint and batch",
                f"{LIMIT} for checkpoints, or three intervals where these are longer. A stream"
                " without new rows makes no batches.",
                [
                    Column("checkpoint", "Checkpoint of the training job"),
                    Column("stream_batch", "Batch of the stream analysis"),
                ],
                unit=SECONDS,
                limits=[(age, BAD)],
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/dead_letters",
                "Dead letters",
                f"Messages a minute that did not validate, of all topics. {LIMIT}.",
                [Column("dead_letters_per_minute", "Dead letters a minute")],
                unit=COUNT,
                limits=[(letters, BAD)],
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/back_pressure",
                "Back pressure",
                "Largest share of its time that a part of the training job waits for those behind"
                f" it. {LIMIT}, which counts only for a job that falls behind.",
                [Column("back_pressure", "Back pressure")],
                unit=SHARE,
                top=1,
                limits=[(settings.health_back_pressure_ratio, BAD)],
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/failures",
                "Restarts and failed checkpoints",
                "Restarts within the health gate's window, and checkpoints that have failed since"
                f" the job started. {LIMIT} of restarts.",
                [
                    Column("restarts", "Restarts"),
                    Column("failed_checkpoints", "Failed checkpoints"),
                ],
                unit=COUNT,
                limits=[(settings.health_restarts, BAD)],
                no_value=NO_READINGS,
            ),
            series(
                "pipeline/round_updates",
                "Updates of each round",
                "Each point is a round.",
                [
                    Column("accepted", "Accepted"),
                    Column("not_accepted", "Not accepted"),
                    Column("dead_letters", "Dead letters"),
                ],
                unit=COUNT,
                no_value="No rounds",
            ),
            series(
                "pipeline/rejections",
                "Rejected updates by reason",
                "Each point is a round.",
                unit=COUNT,
                no_value="No update was rejected",
            ),
            series(
                "pipeline/round_duration",
                "Rounds",
                "How long a round took from its opening to its end, and how long after the one"
                " before it was opened.",
                [
                    Column("duration", "Duration"),
                    Column("since_the_round_before", "Since the round before"),
                ],
                unit=SECONDS,
                no_value="No rounds",
            ),
            series(
                "pipeline/stream_batches",
                "Batches of the stream analysis",
                "How long they took.",
                [Column("mean_duration", "Mean"), Column("longest", "Longest")],
                unit=SECONDS,
                no_value="No stream analysis",
            ),
            series(
                "pipeline/stream_rows",
                "Rows of the stream analysis",
                "Late rows came after their window was written and were added to it.",
                [
                    Column("valid_rows", "Valid rows"),
                    Column("invalid_messages", "Invalid messages"),
                    Column("late_rows", "Late rows"),
                ],
                unit=COUNT,
                no_value="No stream analysis",
            ),
            rows(
                "pipeline/outbox",
                "What has not left for Kafka",
                "Held messages wait for quality checks. Quarantined ones, which never leave, are"
                " not counted.",
                [
                    Column("topic", "Topic"),
                    Column("state", "State", colours={"ready": DOUBTFUL}),
                    Column("messages", "Messages", COUNT),
                    Column("oldest", "Oldest", TIME),
                ],
                span=WIDTH // 2,
                height=8,
                no_value="Everything has left",
            ),
            rows(
                "pipeline/broken_rules",
                "Rules of the health gate that were broken",
                "What each rule means, and what to do: docs/operations.md.",
                [
                    Column("rule", "Rule"),
                    Column("readings", "Readings", COUNT),
                    Column("last_reading", "Last", TIME),
                    Column("last_value", "Value then"),
                    Column("limit_then", "Limit then"),
                ],
                height=7,
                no_value="No rule was broken",
            ),
            rows(
                "pipeline/deployments",
                "Deployments of the training job",
                "Submissions, restores, savepoints and stops, the newest first.",
                [
                    Column("created_at", "Time", TIME),
                    Column("kind", "Kind"),
                    Column("status", "Status", colours=ATTEMPTS),
                    Column("deployment_id", "Deployment"),
                    Column("attempt", "Attempt", "none"),
                    Column("job_id", "Job"),
                    Column("restored_from", "Restored from"),
                    Column("savepoint_path", "Savepoint"),
                    Column("reason", "Reason"),
                ],
            ),
        ],
        page="pipeline",
        since="now-3h",
    )
