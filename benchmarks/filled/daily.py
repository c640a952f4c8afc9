"""Results of the daily analysis."""

from datetime import UTC, datetime
from statistics import NormalDist
from typing import Final

import numpy as np

from benchmarks.filled.columns import Times, copy_columns
from benchmarks.filled.fleet import DAY_MINUTES, ROWS_PER_MINUTE, Fleet, kind_features
from benchmarks.filled.history import History
from flead.analysis.statistics import PERCENTS
from flead.contracts.simulation import FEATURES
from flead.fleet.devices import KINDS
from flead.fleet.simulator import MISSING_RATE
from flead.storage.connection import Cursor

DAY_ROWS: Final = DAY_MINUTES * ROWS_PER_MINUTE
ANALYSED_AFTER_MS: Final = 65 * 60_000
# The extremes of a day's values stand for p00 and p100.
_QUANTILES: Final = np.array(
    [NormalDist().inv_cdf(min(max(each / 100.0, 2e-4), 1.0 - 2e-4)) for each in PERCENTS]
)


def write_days(cursor: Cursor, fleet: Fleet, history: History) -> None:
    """Write the days that have been analysed, and each device's result."""
    days = range(fleet.size.days - fleet.size.analysed_days, fleet.size.days)
    statistics = _statistics(fleet)
    for day in days:
        _write_day(cursor, fleet, history, day, statistics)


def _write_day(
    cursor: Cursor, fleet: Fleet, history: History, day: int, statistics: list[str]
) -> None:
    random = fleet.generator(7, day)
    begin, end = fleet.at_ms(day * DAY_MINUTES), fleet.at_ms((day + 1) * DAY_MINUTES)
    date = f"{datetime.fromtimestamp(begin / 1_000, UTC):%Y-%m-%d}"
    version = int(history.head_at[(day + 1) * DAY_MINUTES])
    share = 0.7 * fleet.attacked_share + 0.01
    attacked = random.binomial(DAY_ROWS, share)
    found = np.minimum(random.binomial(DAY_ROWS, share * 0.95 + 0.02), DAY_ROWS)
    by_zscore = random.binomial(attacked, 0.75) + random.binomial(DAY_ROWS - attacked, 0.004)
    drift = random.beta(2.0, 30.0, len(fleet)).round(6)
    size = len(fleet)
    analysed = np.array([end + ANALYSED_AFTER_MS])
    copy_columns(
        cursor,
        "analysis_days",
        {
            "analysis_date": [date],
            "state": "done",
            "read_from": "archive",
            "model_version": version,
            "reference_model_version": version,
            "rows": size * DAY_ROWS,
            "devices": size,
            "closed": True,
            "first_run_at": Times(analysed),
            "analysed_at": Times(analysed),
        },
    )
    copy_columns(
        cursor,
        "batch_analysis_results",
        {
            "analysis_date": date,
            "device_id": fleet.names,
            "row_count": DAY_ROWS,
            "rows_labelled": DAY_ROWS,
            "first_event_time": Times(np.full(size, begin)),
            "last_event_time": Times(np.full(size, end - 1)),
            "feature_schema": fleet.schema,
            "model_version": version,
            "scored_rows": DAY_ROWS,
            "anomaly_count": found,
            "reference_model_version": version,
            "reference_anomaly_count": found,
            "zscore_anomaly_count": by_zscore,
            "feature_statistics": statistics,
            "drift": drift,
            "feature_drift": [f'{{"{FEATURES[0]}":{each!r}}}' for each in drift.tolist()],
            "created_at": Times(np.full(size, int(analysed[0]))),
        },
    )


def _statistics(fleet: Fleet) -> list[str]:
    """Return each device's statistics of a day as a document; they are the same every day."""
    documents = np.empty(len(fleet), object)
    count = round(DAY_ROWS * (1 - MISSING_RATE))
    for number in range(len(KINDS)):
        devices = np.flatnonzero(fleet.character.kind == number)
        texts = [
            _of_feature(
                FEATURES[feature],
                count,
                fleet.character.level[devices, feature],
                fleet.character.noise[devices, feature],
            )
            for feature in kind_features(number)
        ]
        documents[devices] = ["{" + ",".join(each) + "}" for each in zip(*texts, strict=True)]
    return documents.tolist()


def _of_feature(name: str, count: int, level: np.ndarray, noise: np.ndarray) -> list[str]:
    form = (
        f'"{name}":{{"count":{count},"missing_share":{1 - count / DAY_ROWS:.6f},'
        '"mean":%.6g,"std":%.6g,"quantiles":['
        + ",".join(["%.6g"] * len(PERCENTS))
        + '],"frequencies":null}'
    )
    quantiles = np.maximum(level[:, np.newaxis] + noise[:, np.newaxis] * _QUANTILES, 0.0)
    numbers = np.column_stack([level, noise, quantiles])
    return [form % tuple(each) for each in numbers.tolist()]
