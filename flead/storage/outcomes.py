"""How the fleet has done, as the tuning of its hyperparameters compares it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flead.storage.connection import Cursor
from flead.storage.evaluations import FLEET

MAX_LOG_LOSS: Final = 1_000.0
"""Mean log loss of a window above which its sums are implausible."""

UNUSABLE: Final = ("unknown_schema", "dimension", "not_finite", "implausible")
"""Reasons of a rejection that speak against an update's figures; the others do not."""


@dataclass(frozen=True, slots=True)
class DeviceLoss:
    """Sums of a device's personalized model over labelled rows, before it trained on them.

    `trial` is the one that the device says it was in.
    """

    device_id: str
    trial: str | None
    rows: int
    log_loss_sum: float


def device_losses(
    cursor: Cursor,
    feature_schema: str,
    revisions: tuple[int, int],
    since: datetime,
    until: datetime,
) -> list[DeviceLoss]:
    """Add up the windows that devices sent from `since` to before `until`.

    Windows whose sums do not fit together are left out: rounds do not judge all of those updates
    that they do not average.

    Parameters
    ----------
    revisions
        First and last revision of the hyperparameters that the windows were trained with.
    """
    cursor.execute(
        """
        SELECT device_id, trial, sum(scored_rows)::bigint, sum(log_loss_sum)
        FROM (
            SELECT
                device_id, trial, rows_labelled,
                (personalized_metrics ->> 'rows')::bigint AS scored_rows,
                (personalized_metrics ->> 'log_loss_sum')::double precision AS log_loss_sum
            FROM local_models
            WHERE feature_schema = %s
                AND hyperparameters_revision BETWEEN %s AND %s
                AND kafka_timestamp >= %s AND kafka_timestamp < %s
                AND coalesce(reject_reason, '') <> ALL(%s)
        ) AS sent
        WHERE scored_rows > 0 AND scored_rows = rows_labelled
            AND log_loss_sum BETWEEN 0 AND %s * scored_rows
        GROUP BY device_id, trial
        ORDER BY device_id COLLATE "C", trial
        """,
        (feature_schema, *revisions, since, until, list(UNUSABLE), MAX_LOG_LOSS),
    )
    return [DeviceLoss(*row) for row in cursor.fetchall()]


def median_learning_rate(
    cursor: Cursor, feature_schema: str, since_revision: int, since: datetime
) -> float | None:
    """Return the median of the rates that devices outside trials train with, None without any.

    Each device counts by the newest window that it sent since an instant with hyperparameters of
    `since_revision` or later.
    """
    cursor.execute(
        """
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY learning_rate)
        FROM (
            SELECT DISTINCT ON (device_id) learning_rate FROM local_models
            WHERE feature_schema = %s AND trial IS NULL
                AND hyperparameters_revision >= %s AND kafka_timestamp >= %s
                AND coalesce(reject_reason, '') <> ALL(%s)
            ORDER BY device_id, kafka_timestamp DESC
        ) AS newest
        """,
        (feature_schema, since_revision, since, list(UNUSABLE)),
    )
    median = cursor.fetchall()[0][0]
    return None if median is None else float(median)


def anything_sent_since(cursor: Cursor, instant: datetime) -> bool:
    """Tell whether rounds have read an update that was sent at `instant` or later."""
    cursor.execute(
        "SELECT EXISTS (SELECT FROM local_models WHERE kafka_timestamp >= %s)", (instant,)
    )
    return bool(cursor.fetchall()[0][0])


def newest_promoted_versions(cursor: Cursor, feature_schema: str, count: int) -> list[int]:
    """Return the newest `count` promoted versions of a schema, oldest first."""
    cursor.execute(
        """
        SELECT version FROM federated_models
        WHERE feature_schema = %s AND status = 'promoted'
        ORDER BY version DESC LIMIT %s
        """,
        (feature_schema, count),
    )
    return sorted(version for (version,) in cursor.fetchall())


def labelled_rows(cursor: Cursor, versions: Sequence[int]) -> int:
    """Count the labelled rows that `versions` were made from."""
    cursor.execute(
        """
        SELECT coalesce(sum(stored.rows_labelled), 0)
        FROM federated_models AS model
        INNER JOIN local_models AS stored ON model.aggregation_round = stored.aggregation_round
        WHERE model.version = ANY(%s) AND stored.status = 'accepted'
        """,
        (list(versions),),
    )
    return int(cursor.fetchall()[0][0])


@dataclass(frozen=True, slots=True)
class FleetError:
    """Mean log loss of a version over the labelled rows of a window, by an evaluation."""

    version: int
    window: tuple[datetime, datetime]
    samples: int
    log_loss: float


def fleet_errors(cursor: Cursor, versions: Sequence[int]) -> list[FleetError]:
    """Return what evaluations that passed the quality checks say of `versions`."""
    cursor.execute(
        """
        SELECT model_version, window_start, window_end, samples, log_loss
        FROM passed_evaluations
        WHERE device_id = %s AND status = 'evaluated' AND log_loss IS NOT NULL AND samples > 0
            AND model_version = ANY(%s)
        ORDER BY model_version, window_start, window_end
        """,
        (FLEET, list(versions)),
    )
    return [
        FleetError(version, (start, end), samples, log_loss)
        for version, start, end, samples, log_loss in cursor.fetchall()
    ]
